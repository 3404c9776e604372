"""Named resources of a host, such as gpu=4: parsing, checking, and sharing them among the host's engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

#: The largest number of one resource.
MOST = 65_536

#: The resource whose indexes are those in CUDA_VISIBLE_DEVICES.
GPU = "gpu"

_HINT = "Give a number for each, as in gpu=4,license=1"


def check(resources: Mapping[Any, Any]) -> dict[str, int]:
    """A copy of the mapping of names to numbers.

    Raises
    ------
    ConfigError
        A name or a number is not valid.
    """
    if not isinstance(resources, Mapping):
        raise ConfigError(f"resources are a mapping of names to numbers, not {resources!r}. {_HINT}")
    for name, count in resources.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ConfigError(
                f"the name of a resource is a letter, then letters, digits, '_', '-' and '.'; got {name!r}. {_HINT}"
            )
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST:
            raise ConfigError(f"resource {name} needs a number from 0 to {MOST}, got {count!r}. {_HINT}")
    return dict(resources)


def parse(text: str) -> dict[str, int]:
    """The resources in a text like `gpu=4,license=1`.

    Raises
    ------
    ConfigError
        The text is not like that.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, count = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ConfigError(f"resource {part!r} has no number. {_HINT}")
        if name in found:
            raise ConfigError(f"resource {name!r} is given twice. {_HINT}")
        found[name] = int(count) if re.fullmatch(r"[+-]?\d{1,9}", count, re.ASCII) else count
    return check(found)


def read(setting: str | Mapping[str, Any]) -> dict[str, int]:
    """The resources in the value of a flag (a text) or of a configuration file (a text or a mapping).

    Raises
    ------
    ConfigError
        The value is not valid.
    """
    return parse(setting) if isinstance(setting, str) else check(setting)


def spell(resources: Mapping[str, int]) -> str:
    """Resources as a text for `parse`."""
    return ",".join(f"{name}={count}" for name, count in resources.items())


def deal(resources: Mapping[str, int], engines: int, visible: str | None = None) -> list[dict[str, list[int]]]:
    """Share the indexes of each resource evenly among engines, in order.

    Returns the shares of the engines. A share leaves out resources of which its engine has none.

    Parameters
    ----------
    resources : mapping
        The number of each resource.
    engines : int
        The number of engines.
    visible : str, optional
        CUDA_VISIBLE_DEVICES of the host: the indexes of "gpu".

    Raises
    ------
    ConfigError
        CUDA_VISIBLE_DEVICES has fewer gpus than `resources`, or names them otherwise than by number.
    """
    shares: list[dict[str, list[int]]] = [{} for _ in range(engines)]
    for name, count in check(resources).items():
        indices = list(range(count)) if name != GPU or visible is None else _visible(count, visible)
        each, left = divmod(count, max(engines, 1))
        start = 0
        for number, share in enumerate(shares):
            end = start + each + (number < left)
            if end > start:
                share[name] = indices[start:end]
            start = end
    return shares


def _visible(count: int, visible: str) -> list[int]:
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if not all(name.isdecimal() for name in names):
        raise ConfigError(
            f"resources gpu={count}: CUDA_VISIBLE_DEVICES={visible} names devices otherwise than by number. "
            "Give their numbers, or unset it"
        )
    if count > len(names):
        raise ConfigError(
            f"resources gpu={count}: CUDA_VISIBLE_DEVICES={visible} leaves {len(names)}. Ask for that many, or widen it"
        )
    return [int(name) for name in names[:count]]
