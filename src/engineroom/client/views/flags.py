"""The flags that say how and where the scheduler runs a task: their checks."""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from ...config import check_switches
from ...errors import ConfigError
from ...messages import TaskOptions

#: The schemes every controller has.
SCHEMES = ("leastload", "lru", "plainrandom", "twobin", "weighted", "pure")

#: Numbers are smaller: they fit into 31 bits.
_MOST = 1 << 31

#: Options that the scheme `pure` cannot honour: it decides nothing for a single task.
_NOT_WITH_PURE = ("retries", "targets", "after", "follow", "timeout", "priority", "resources", "inputs", "depend")


def whole(name: str, value: Any, what: str, least: int) -> int:
    """A whole number from `least` on, of at most 31 bits."""
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        number = operator.index(value)
        if least <= number < _MOST:
            return number
        what += f", below {_MOST:,}" if number >= _MOST else ""
    raise ConfigError(f"{name} is {what}; got {value!r}")


def seconds(name: str, value: Any, what: str) -> float:
    """A number of seconds that is not negative."""
    if not isinstance(value, bool) and hasattr(value, "__float__"):  # numpy's numbers are numbers too
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(value)
            if math.isfinite(number) and number >= 0:
                return number
    raise ConfigError(f"{name} is {what}; got {value!r}")


def timeout(value: Any) -> float | None:
    """Seconds for dependencies to be met; None: no limit."""
    what = "a number of seconds for dependencies to be met, 0 or None: for ever"
    return None if value is None else seconds("timeout", value, what) or None


def run_timeout(value: Any) -> float | None:
    """Seconds an attempt may run; None: no limit."""
    if value is None:
        return None
    what = "a number of seconds an attempt may run, more than 0, or None: for ever"
    number = seconds("run_timeout", value, what)
    if number == 0:
        raise ConfigError(f"run_timeout is {what}; got {value!r}")
    return number


def resources(value: Any) -> dict[str, int] | None:
    """How much of each named resource a task needs."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"resources are a dict of names and numbers, like {{'gpu': 1}}; got {value!r}")
    needed = {}
    for name, amount in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a resource has a name, like 'gpu'; got {name!r}")
        needed[name] = whole(f"resources[{name!r}]", amount, "a whole number, 1 or more", 1)
    return needed or None


def yes_or_no(name: str, value: Any) -> bool:
    """True or False; see `config.is_switch` for the values that will do."""
    check_switches(**{name: value})
    return bool(value)


def scheme(value: Any) -> str | None:
    """The name of a scheme: a built-in one, an entry point, or "module:function"."""
    if value is None or value in SCHEMES:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
            return value
        import difflib
        import importlib.metadata

        registered = importlib.metadata.entry_points(group="engineroom.schemes").names
        if value in registered:
            return value
        near = difflib.get_close_matches(value, [*SCHEMES, *registered], 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"there is no scheme {value!r}: {hint}It is one of {', '.join(SCHEMES)}, a name registered as entry point "
            "of 'engineroom.schemes', or 'module:function'"
        )
    raise ConfigError(f"a scheme is named by a str, or None for the controller's; got {value!r}")


def check_pure(options: TaskOptions, default: str) -> None:
    """Refuse options that the scheme `pure` cannot honour.

    Parameters
    ----------
    default : str
        The controller's scheme.

    Raises
    ------
    ConfigError
        The message names the flag.
    """
    if (options.scheme or default) != "pure":
        return
    given = [name for name in _NOT_WITH_PURE if getattr(options, name)]
    if given:
        name = "AsyncResults as arguments" if given[0] == "inputs" else f"{given[0]}="
        whose = "The view's" if options.scheme else "The controller's"
        raise ConfigError(
            f"{whose} scheme is 'pure', which cannot honour {name}: it decides nothing for a task by itself. Choose "
            "another for this view, scheme='leastload', or do without"
        )
