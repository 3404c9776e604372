"""Named resources of a host: how they are written, checked, and dealt out to its engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

#: The most there can be of one resource.
MOST = 65_536

#: Indices of the one resource that is known by its name: what CUDA_VISIBLE_DEVICES holds.
GPU = "gpu"

_HINT = "Say how many there are of each, as in gpu=4,license=1"


def check(resources: Mapping[Any, Any]) -> dict[str, int]:
    """How much there is of each resource.

    Raises
    ------
    ConfigError
        A name or a number makes no sense.
    """
    if not isinstance(resources, Mapping):
        raise ConfigError(f"resources are a mapping of names to numbers, not {resources!r}. {_HINT}")
    for name, count in resources.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ConfigError(
                f"the name of a resource is a letter, then letters, digits, '_', '-' and '.'; got {name!r}. {_HINT}"
            )
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST:
            raise ConfigError(f"resource {name}: a number from 0 to {MOST} is wanted, got {count!r}. {_HINT}")
    return dict(resources)


def parse(text: str) -> dict[str, int]:
    """What `gpu=4,license=1` says.

    Raises
    ------
    ConfigError
        It says nothing of the kind.
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
    """What a flag or a configuration file says.

    Raises
    ------
    ConfigError
        It makes no sense.
    """
    return parse(setting) if isinstance(setting, str) else check(setting)


def spell(resources: Mapping[str, int]) -> str:
    """The text that `parse` understands."""
    return ",".join(f"{name}={count}" for name, count in resources.items())


def deal(resources: Mapping[str, int], engines: int, visible: str | None = None) -> list[dict[str, list[int]]]:
    """Deal the indices of each resource out to engines, evenly, in order; who gets none of one does not have it.

    Parameters
    ----------
    resources : mapping
        How much there is of each.
    engines : int
        To how many.
    visible : str, optional
        CUDA_VISIBLE_DEVICES of the host: "gpu" are these.

    Raises
    ------
    ConfigError
        There are fewer gpus than that.
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
