"""What ipyparallel has in `serialize`: objects to buffers and back, by the pickling that tasks travel by.

Views need nothing of this: they pickle functions and arguments themselves (`wire/payload.py`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from ...on_engine.engine_calls import Reference
from ...wire import payload
from ...wire.former_names import submodule
from . import canning, codeutil
from .canning import can, can_map, in_namespace, uncan, uncan_map, use_cloudpickle, use_dill, use_pickle
from .prepickled import PrePickled


def serialize_object(obj: Any, buffer_threshold: int = 1024, item_threshold: int = 64) -> list[Any]:
    """An object as buffers: a header, then its large arrays and bytes, each as one buffer.

    The thresholds are accepted and have no effect: what is smaller than 16 kB stays in the header.

    Raises
    ------
    Exception
        The object cannot be pickled.
    """
    stream, frames = payload.dumps(can(obj))
    return [pickle.dumps((stream, len(frames)), 5), *frames]


def deserialize_object(buffers: Sequence[Any], g: dict[str, Any] | None = None) -> tuple[Any, list[Any]]:
    """The first object of some buffers, and the buffers behind it.

    Parameters
    ----------
    g : dict, optional
        The global names of functions that come from a script or a notebook; default: those of `__main__`.
    """
    if not buffers:
        raise ValueError("there are no buffers: an object has a header at least")
    stream, count = pickle.loads(buffers[0])
    with in_namespace(g):
        value = payload.loads(stream, list(buffers[1 : 1 + count]))
    return uncan(value, g), list(buffers[1 + count :])


def pack_apply_message(
    f: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    buffer_threshold: int = 1024,
    item_threshold: int = 64,
) -> list[Any]:
    """A call as buffers."""
    return serialize_object((f, tuple(args), dict(kwargs)), buffer_threshold, item_threshold)


def unpack_apply_message(
    bufs: Sequence[Any], g: dict[str, Any] | None = None, copy: bool = True
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The function, arguments and keyword arguments of a call.

    Parameters
    ----------
    copy : bool
        Has no effect: large arrays use the memory of the buffers.
    """
    (f, args, kwargs), _ = deserialize_object(bufs, g)
    return f, args, kwargs


__all__ = [
    "PrePickled",
    "Reference",
    "can",
    "can_map",
    "canning",
    "codeutil",
    "deserialize_object",
    "pack_apply_message",
    "serialize_object",
    "uncan",
    "uncan_map",
    "unpack_apply_message",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
]


def __getattr__(name: str) -> ModuleType:
    """`serialize.serialize`, which programs name without an import."""
    return submodule("engineroom.serialize", name)
