"""What ipyparallel has in `serialize.canning`: objects that cannot be pickled by name, made picklable.

`can_map` can be extended: an entry for a type is used by `can`, and by every call that a view sends.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import pickle
import types
from collections.abc import Callable
from typing import Any

from ...on_engine.engine_calls import Reference
from ...wire import arrays, payload
from ...wire.functions import living_in

Can = Callable[[Any], Any]
Uncan = Callable[[Any, Any], Any]


def in_namespace(g: dict[str, Any] | None) -> contextlib.AbstractContextManager[None]:
    """Inside the block, functions of a script get their global names from `g`; None: from `__main__`."""
    return contextlib.nullcontext() if g is None else living_in(g)


class CannedObject:
    """An object in a form that pickle can send. A subclass for a type of yours has its own `get_object`.

    Parameters
    ----------
    obj : object
    keys : list of str
        Attributes that are canned by themselves.
    hook : callable, optional
        Called with the object in `get_object`, before it is returned.
    """

    def __init__(self, obj: Any, keys: Any = (), hook: Callable[[Any], Any] | None = None) -> None:
        import copy

        self.keys, self.hook = list(keys), can(hook) if hook is not None else None
        self.obj = copy.copy(obj) if self.keys else obj
        for key in self.keys:
            setattr(self.obj, key, can(getattr(obj, key)))
        self.buffers: list[Any] = []

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        """The object."""
        for key in self.keys:
            setattr(self.obj, key, uncan(getattr(self.obj, key), g))
        if self.hook is not None:
            uncan(self.hook, g)(self.obj)
        return self.obj


class CannedFunction(CannedObject):
    """A function, class or partial, pickled by value if it is of a script or a notebook."""

    def __init__(self, f: Any) -> None:
        self._stream, frames = payload.dumps(f)
        self._frames = [bytes(frame) for frame in frames]
        self.__name__ = getattr(f, "__name__", type(f).__name__)

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        with in_namespace(g):
            return payload.loads(self._stream, self._frames)


class CannedClass(CannedFunction):
    """A class."""

    def __init__(self, cls: type) -> None:
        super().__init__(cls)


class CannedPartial(CannedFunction):
    """A `functools.partial`."""


class CannedCell(CannedObject):
    """A cell of a closure."""

    def __init__(self, cell: types.CellType) -> None:
        self.cell_contents = can(cell.cell_contents)

    def get_object(self, g: dict[str, Any] | None = None) -> types.CellType:
        return types.CellType(uncan(self.cell_contents, g))


class CannedArray(CannedObject):
    """An array of numpy: its shape, its type, and one buffer with its elements in C order.

    Arrays of Python objects have no such buffer: they are kept as they are.
    """

    def __init__(self, obj: Any) -> None:
        import numpy

        self.shape, self.dtype = obj.shape, obj.dtype
        self.pickled = bool(obj.dtype.hasobject)
        elements: Any = numpy.ascontiguousarray(obj)
        self.buffers = [obj] if self.pickled else [pickle.PickleBuffer(elements)]

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        import numpy

        if self.pickled:
            return self.buffers[0]
        return numpy.frombuffer(self.buffers[0], dtype=self.dtype).reshape(self.shape)


class CannedBytes(CannedObject):
    """Bytes, as one buffer."""

    wrap: Callable[[Any], Any] = bytes

    def __init__(self, obj: Any) -> None:
        self.buffers = [pickle.PickleBuffer(obj)]

    def get_object(self, g: dict[str, Any] | None = None) -> Any:
        return type(self).wrap(self.buffers[0])


class CannedBuffer(CannedBytes):
    """Anything with a buffer; it comes back as a memoryview."""

    wrap = memoryview


class CannedMemoryView(CannedBuffer):
    """A memoryview: one buffer with its items in C order, its format and its shape.

    Raises TypeError for a format that cannot be rebuilt from bytes, as that of a structure.
    """

    def __init__(self, obj: Any) -> None:
        view = memoryview(obj)
        if not arrays.is_rebuilt(view):
            raise TypeError(arrays.not_rebuilt(view))
        super().__init__(arrays.in_c_order(view))
        self.format, self.shape = view.format, tuple(view.shape or ())

    def get_object(self, g: dict[str, Any] | None = None) -> memoryview:
        return arrays.view_of(self.buffers[0], self.format, self.shape)


class _CanMap(dict[Any, Can]):
    """type → what makes an object of it picklable. The pickler is told of every type that is added."""

    def __setitem__(self, kind: Any, canned: Can) -> None:
        super().__setitem__(kind, canned)
        cls = _class(kind)
        if cls not in _BY_VALUE:
            copyreg.pickle(cls, lambda obj: (uncan, (canned(obj),)))

    def __delitem__(self, kind: Any) -> None:
        super().__delitem__(kind)
        copyreg.dispatch_table.pop(_class(kind), None)


def _class(kind: Any) -> Any:
    """The type that a key of `can_map` names."""
    if not isinstance(kind, str):
        return kind
    module, _, name = kind.rpartition(".")
    return getattr(importlib.import_module(module), name)


#: Types whose objects the pickler sends by value anyway, where it must.
_BY_VALUE = (types.FunctionType, type, functools.partial)

#: type, or "module.name" of a type → function that gives a picklable form of an object of exactly this type
can_map: dict[Any, Can] = _CanMap(dict.fromkeys(_BY_VALUE, CannedFunction))
#: type of a canned object → function of that and a namespace, which gives the object again
uncan_map: dict[Any, Uncan] = {}


def can(obj: Any) -> Any:
    """A picklable form of an object; also of those inside lists, tuples, dicts and sets. Others stay as they are."""
    kind = type(obj)
    if kind in (list, tuple, set, frozenset):
        return kind(map(can, obj))
    if kind is dict:
        return {key: can(value) for key, value in obj.items()}
    for wanted, canned in can_map.items():
        if kind is wanted or f"{kind.__module__}.{kind.__qualname__}" == wanted:
            return canned(obj)
    return obj


def uncan(obj: Any, g: dict[str, Any] | None = None) -> Any:
    """The object that `can` was given.

    Parameters
    ----------
    g : dict, optional
        The global names of functions that come from a script or a notebook; default: those of `__main__`.
    """
    kind = type(obj)
    if kind in (list, tuple, set, frozenset):
        return kind([uncan(item, g) for item in obj])
    if kind is dict:
        return {key: uncan(value, g) for key, value in obj.items()}
    for cls, restore in uncan_map.items():
        if isinstance(obj, cls):
            return restore(obj, g)
    return obj.get_object(g) if isinstance(obj, CannedObject) else obj


def can_dict(obj: Any) -> Any:
    """A dict with its values canned; another object as it is."""
    return can(obj) if type(obj) is dict else obj


def uncan_dict(obj: Any, g: dict[str, Any] | None = None) -> Any:
    """The dict that `can_dict` was given."""
    return uncan(obj, g) if type(obj) is dict else obj


#: Types whose items `can` looks at.
sequence_types = (list, tuple, set)


def can_sequence(obj: Any) -> Any:
    """A list, tuple or set with its items canned; another object as it is."""
    return can(obj) if type(obj) in sequence_types else obj


def uncan_sequence(obj: Any, g: dict[str, Any] | None = None) -> Any:
    """What `can_sequence` was given."""
    return uncan(obj, g) if type(obj) in sequence_types else obj


def can_class(obj: Any) -> Any:
    """A class of `__main__` in picklable form; another object as it is."""
    return CannedClass(obj) if isinstance(obj, type) and obj.__module__ == "__main__" else obj


def istype(obj: Any, check: Any) -> bool:
    """Whether an object is of exactly this type, or of one of several."""
    return type(obj) in check if isinstance(check, tuple) else type(obj) is check


def use_cloudpickle() -> None:
    """Does nothing: functions always travel by cloudpickle, where pickle would send them by name only."""


def use_dill() -> None:
    """Does nothing: lambdas, closures and functions of scripts travel by cloudpickle. What dill alone can pickle
    does not travel."""


def use_pickle() -> None:
    """Does nothing: pickle is used wherever it can, and cloudpickle elsewhere."""


__all__ = [
    "CannedArray",
    "CannedBuffer",
    "CannedBytes",
    "CannedCell",
    "CannedClass",
    "CannedFunction",
    "CannedMemoryView",
    "CannedObject",
    "CannedPartial",
    "Reference",
    "can",
    "can_class",
    "can_dict",
    "can_map",
    "can_sequence",
    "istype",
    "sequence_types",
    "uncan",
    "uncan_dict",
    "uncan_map",
    "uncan_sequence",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
]
