"""Digests for `cache=True`: two calls with equal digests of function and arguments are equal calls.

These are not the digests in `functions`. Those are of pickles, and pickles depend on line numbers, file names and the
order of sets. The digests here stay the same in another session, on another line, and in a cell that is run again.

Equal digests mean equal calls, as far as a client can see. The reverse may fail: equal calls may have different
digests, and then run again.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import operator
import struct
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from .modules import is_importable, needs_of, version_of

#: Values nested more deeply than this have no digest.
DEPTH = 200

_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), range})
_GLOBAL_OPERATIONS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})
#: Attributes of a class that its author did not write.
_OF_EVERY_CLASS = frozenset({
    "__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__abstractmethods__", "_abc_impl", "__slotnames__",
})  # fmt: skip


class Incomparable(Exception):
    """This value has no reliable digest."""


def code_digest(function: Any) -> str:
    """Digest of what a function does; "" if there is no reliable one.

    For a function of `__main__`, or one without an importable name, it covers the code, the defaults, the closure, and
    the globals that the code names. Functions and classes among these count by their code.

    For an importable function it covers the name. The modules that the code depends on count by the source that this
    process has loaded, unless they are installed, as packages and the standard library are.

    The version of Python counts. Versions of packages do not.
    """
    needs = needs_of(function)
    if "" in needs.values():
        return ""
    return _Digester().digest_of((sys.implementation.name, sys.version_info[:2], sorted(needs.items()), function))


def arguments_digest(kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Digest of the arguments of a call; "" if there is no reliable one."""
    return _Digester().digest_of((kind, args, dict(kwargs)))


class _Digester:
    """Feeds values to a hash, part by part, down to numbers and texts."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        #: id of an object met so far → its number, and the object (kept alive, so that the id stays valid)
        self._met: dict[int, tuple[int, Any]] = {}
        self._depth = 0

    def digest_of(self, value: Any) -> str:
        try:
            self.feed(value)
        except Exception:  # whatever an object's own methods may raise
            return ""
        return self._hash.hexdigest()

    def feed(self, value: Any) -> None:
        kind = type(value)
        if kind in _ATOMS:
            self._text(kind.__name__, repr(value).encode("utf-8", "surrogatepass") if kind is not bytes else value)
            return
        if self._depth > DEPTH:
            raise Incomparable("it is nested too deeply")
        self._depth += 1
        if kind is tuple:
            self._all("tuple", value)
        elif kind is frozenset:
            self._unordered("frozenset", value)
        elif not self._again(value):
            self._compound(kind, value)
        self._depth -= 1

    def _compound(self, kind: type, value: Any) -> None:
        if kind is list:
            self._all("list", value)
        elif kind is dict:  # a function may care for the order
            self._all("dict", [part for item in value.items() for part in item])
        elif kind is set:
            self._unordered("set", value)
        elif kind is bytearray:
            self._text("bytearray", value)
        elif kind is types.FunctionType:
            self._function(value)
        elif kind is types.CodeType:
            self._code(value)
        elif isinstance(value, types.ModuleType):
            self._module(value.__name__)
        elif isinstance(value, type):
            self._class(value)
        elif kind in (types.BuiltinFunctionType, types.MethodType):
            owner = getattr(value, "__self__", None)
            self._text("builtin", f"{value.__module__}.{value.__qualname__}".encode())
            self._all("method", [None if isinstance(owner, types.ModuleType) else owner])
            if kind is types.MethodType:
                self.feed(value.__func__)
        elif kind in (staticmethod, classmethod):
            self._all(kind.__name__, [value.__func__])
        elif kind is property:
            self._all("property", [value.fget, value.fset, value.fdel])
        elif kind is functools._lru_cache_wrapper:
            self._all("lru_cache", [value.__wrapped__])
        elif kind in (operator.itemgetter, operator.attrgetter, operator.methodcaller):
            self._all(kind.__name__, value.__reduce__())
        else:
            self._object(value)

    def _text(self, kind: str, text: bytes | bytearray | memoryview) -> None:
        name = kind.encode()
        self._hash.update(struct.pack("<IQ", len(name), len(text)))
        self._hash.update(name)
        self._hash.update(text)

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        parts = list(values)
        self._text(kind, str(len(parts)).encode())
        for part in parts:
            self.feed(part)

    def _unordered(self, kind: str, values: Iterable[Any]) -> None:
        digests = []
        for value in values:
            inside = _Digester()
            inside._depth = self._depth
            inside.feed(value)
            digests.append(inside._hash.hexdigest())
        self._all(kind, sorted(digests))

    def _again(self, value: Any) -> bool:
        """Whether this object was met before. If so, feed its number: one object twice is not two equal ones."""
        met = self._met.get(id(value))
        if met is not None:
            self._text("again", str(met[0]).encode())
            return True
        self._met[id(value)] = len(self._met), value
        return False

    def _function(self, function: types.FunctionType) -> None:
        if is_importable(function):
            self._named("function", function)
            return
        cells: list[tuple[Any, ...]] = []
        for cell in function.__closure__ or ():
            try:
                cells.append((cell.cell_contents,))
            except ValueError:
                cells.append(())
        self._all("function", [function.__code__, function.__defaults__, function.__kwdefaults__, cells])
        self._all("attributes", [part for item in sorted(function.__dict__.items()) for part in item])
        space = function.__globals__
        for name in sorted(globals_of(function.__code__)):
            if name in space:
                self._text("global", name.encode())
                self.feed(space[name])

    def _code(self, code: types.CodeType) -> None:
        self._all("code", [
            code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_name,
            code.co_exceptiontable,
        ])  # fmt: skip

    def _class(self, cls: type) -> None:
        if is_importable(cls):
            self._named("class", cls)
            return
        written = sorted((name, value) for name, value in vars(cls).items() if name not in _OF_EVERY_CLASS)
        self._all("class", [cls.__qualname__, type(cls), cls.__bases__, [name for name, _ in written]])
        for _, value in written:
            if not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
                self.feed(value)

    def _named(self, kind: str, value: Any) -> None:
        self._text(kind, value.__qualname__.encode())
        self._module(value.__module__)

    def _module(self, name: str) -> None:
        self._text("module", name.encode())
        version = version_of(name)
        if version == "":
            raise Incomparable(f"which version of {name} was loaded is not known")
        if version is not None:
            self._text("file", version.encode())

    def _object(self, value: Any) -> None:
        """Any other object: feed what pickle would rebuild it from."""
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self._text("object", reduced.encode())
            self._module(getattr(value, "__module__", None) or type(value).__module__)
            return
        make, args, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        self._all("object", [make, args, state, [*(items or ())], [part for pair in pairs or () for part in pair]])


def globals_of(code: types.CodeType) -> set[str]:
    """The globals that code names, also in the functions inside it."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL_OPERATIONS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= globals_of(constant)
    return names
