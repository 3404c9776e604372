"""Pickled functions, content-addressed: each is pickled once, and named by a digest of its pickle.

The pickle of a function that holds large arrays (a method of a large object, a partial, a closure) has no large buffers
in it: what arrives is a `Hollow`. The buffers travel as frames of each of its tasks, behind those of the arguments. So
they are copied once, handed over in shared memory, and recorded once. `fill` makes the function of both.

A function of an importable module is pickled by name. A function of `__main__` (a script, a notebook, a terminal) is
pickled by value, together with the globals it refers to. Where it is unpickled, it is bound to the *namespace* of
that process. A global name is looked up in the namespace first, and then among the globals that travelled with it:
`script_globals` sees to that.

This module knows nothing of messages and tasks. `payload` pickles arguments and results.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import io
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import cloudpickle

from .. import import_watch
from ..errors import SerializationError
from ..ids import Digest, digest_of
from ..messages import Function
from ..shared_memory.buffer import SHARED_FROM, own
from . import arrays, modules, script_globals, source_lines
from .identity import globals_of

_ATOMS = (int, float, complex, str, bytes, bool, type(None), range, frozenset)
_MISSING = object()
_NO_KEYWORDS: dict[str, Any] = {}


# ------------------------------------------------------------------------------------------ arriving: namespaces

#: The namespace of functions that came from another `__main__`; None: this process's own `__main__`.
_namespace: dict[str, Any] | None = None
#: Names that are in the namespace only while a task runs: globals that travelled with its function.
lent: set[str] = set()
#: Collects the globals that travel with functions, while unpickling. None: the namespace takes those it lacks.
_travelled: dict[str, Any] | None = None


def bind_namespace(namespace: dict[str, Any] | None) -> None:
    """Bind functions that come from another `__main__` to this namespace."""
    global _namespace
    _namespace = namespace


def main_namespace() -> dict[str, Any]:
    """The namespace that stands for `__main__` in this process."""
    return sys.modules["__main__"].__dict__ if _namespace is None else _namespace


@contextlib.contextmanager
def living_in(namespace: dict[str, Any]) -> Iterator[None]:
    """Inside the block, functions that come from another `__main__` are bound to this namespace when unpickled."""
    global _namespace
    before, _namespace = _namespace, namespace
    try:
        yield
    finally:
        _namespace = before


@contextlib.contextmanager
def collecting(travelled: dict[str, Any]) -> Iterator[None]:
    """Inside the block, globals that travel with unpickled functions go into `travelled`, not into the namespace."""
    global _travelled
    before, _travelled = _travelled, travelled
    try:
        yield
    finally:
        _travelled = before
        script_globals.restore(main_namespace())  # pickles of Engineroom 0.1 change it


class _MainNamespace:
    """Stands in a pickle for the namespace of the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return main_namespace, ()


_MAIN = _MainNamespace()


def restore_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give a rebuilt function its attributes, its closure, and the globals that travelled with it."""
    attributes, slots = state
    function.__dict__.update(attributes)
    travelled = slots.pop("__globals__")
    closure = slots.pop("__closure__")
    slots.pop("_cloudpickle_submodules", None)  # unpickling them has imported them
    if _travelled is not None:
        _travelled.update(travelled)
        script_globals.show(function, travelled)
    else:
        for name, value in travelled.items():
            function.__globals__.setdefault(name, value)
    for cell, sent in zip(function.__closure__ or (), closure or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell stays empty
            cell.cell_contents = sent.cell_contents
    for name, value in slots.items():
        setattr(function, name, value)


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: Any, defaults: Any, closure: Any
) -> types.FunctionType:
    """Rebuild a function with which globals travel."""
    if _travelled is None:  # they go into the namespace
        return make_plain_function(code, namespace, name, defaults, closure)
    return script_globals.make_function(code, namespace, name, defaults, closure)


def make_plain_function(
    code: types.CodeType, namespace: dict[str, Any], name: Any, defaults: Any, closure: Any
) -> types.FunctionType:
    """Rebuild a function with which no globals travel. cloudpickle's way changes the builtins of the namespace."""
    with script_globals.plain(namespace):
        return types.FunctionType(code, namespace, name, defaults, closure)


#: Every pickle that holds a function of a `__main__` contains these bytes.
MARK = restore_function.__name__.encode()


def _cached_property(function: Callable[..., Any], name: str | None) -> functools.cached_property[Any]:
    """That of a class. It has a lock in Python 3.11, which cannot be pickled."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _single_dispatch() -> Callable[..., Any]:
    """A function of `functools.singledispatch`, without implementations. It has a cache, which cannot be pickled."""
    return functools.singledispatch(repr)


def _restore_dispatch(function: Any, registry: Mapping[type, Callable[..., Any]]) -> None:
    for kind, implementation in registry.items():
        function.register(kind, implementation)
    functools.update_wrapper(function, registry[object])


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    """A function wrapped in `functools.lru_cache`, with an empty cache."""
    decorate: Callable[..., Callable[..., Any]] = functools.lru_cache(**parameters)
    return decorate(function)


#: Which argument of `types.CodeType` is the name of the file. In a pickle, it is the Python that made the code.
_FILE_ARGUMENT, _NAME_ARGUMENT = 10, 11
_PYTHON = "<Python {}.{}>".format(*sys.version_info)


def restore_code(arguments: tuple[Any, ...], file: str, source: str | None) -> types.CodeType:
    """Rebuild a code object. `source` is None for code inside other code, whose lines hold it.

    Raises
    ------
    SerializationError
        A Python of another minor version made it: its bytecode would do something else here, or crash the process.
    """
    made_by = arguments[_FILE_ARGUMENT]
    if made_by != _PYTHON and made_by.startswith("<Python "):  # pickles of Engineroom 0.2.0 do not say it
        raise SerializationError(
            f"the code of {arguments[_NAME_ARGUMENT]} was made by {made_by[1:-1]}, and {_PYTHON[1:-1]} cannot run it. "
            "Use the same Python everywhere, or put the function into a module that both have installed"
        )
    code = types.CodeType(*arguments).replace(co_filename=file)
    if source is not None:
        source_lines.remember(code, source)
    return code


def _attribute(module: str, name: str) -> Any:
    """A function of a module that draws from the module's own random state."""
    return getattr(importlib.import_module(module), name)


def module_with_state(function: Any) -> str | None:
    """The module whose own random state a function draws from, as `random.randint` does; None: there is none.

    Pickled as a method, it would take a copy of that state to each task, and draw the same numbers in all of them.
    """
    if isinstance(getattr(function, "__self__", None), types.ModuleType | type(None)):
        return None
    for home in ("random", "numpy.random"):
        if getattr(sys.modules.get(home), function.__name__, None) == function:
            return home
    return None


def _is_of_main(function: types.FunctionType) -> bool:
    """Whether a function is of the `__main__` of this process. A spawned process has a copy of the script's names."""
    space = function.__globals__
    return space is main_namespace() or space.get("__name__") == modules.SPAWNED_MAIN


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with three changes.

    Functions of `__main__` are bound to the receiver's namespace. Code keeps the name of its file, which cloudpickle
    3.1.3 drops. It takes along its source lines, and the version of the Python that made it. Functions that draw from
    their module's random state travel by name.
    """

    def __init__(
        self,
        file: Any,
        protocol: int | None = None,
        buffer_callback: Any = None,
        reducers: Mapping[type, arrays.Reducer] = types.MappingProxyType({}),
    ) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        spawned = sys.modules.get(modules.SPAWNED_MAIN)  # in other processes `multiprocessing` has it mean `__main__`
        if getattr(spawned, "__name__", "") == modules.SPAWNED_MAIN:
            cloudpickle.register_pickle_by_value(spawned)
        #: type → what takes the place of its `__reduce_ex__`
        self._reducers = reducers
        #: ids of the code objects inside one that is pickled: its lines are theirs, too
        self._inner: set[int] = set()
        #: one string for each file name, so that the pickle does not depend on which code objects share one
        self._files: dict[str, str] = {}

    def _code(self, code: types.CodeType) -> tuple[Any, ...]:
        _, (*arguments,) = self.dispatch_table[types.CodeType](code)
        arguments[_FILE_ARGUMENT] = _PYTHON
        self._inner.update(map(id, source_lines.inner_code(code)))
        source = None if id(code) in self._inner else source_lines.lines_of(code)
        return restore_code, (tuple(arguments), self._files.setdefault(code.co_filename, code.co_filename), source)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is types.CodeType:
            return self._code(obj)
        if type(obj) in (types.MethodType, types.BuiltinFunctionType):
            home = module_with_state(obj)
            if home:
                return _attribute, (home, obj.__name__)
        reducer = self._reducers.get(type(obj))
        if reducer is not None:
            return reducer(obj)
        if type(obj) is functools.cached_property:
            return _cached_property, (obj.func, obj.attrname)
        if type(obj) is functools._lru_cache_wrapper and modules.is_main(getattr(obj, "__module__", None)):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        reduced = super().reducer_override(obj)
        if type(obj) is types.FunctionType and isinstance(reduced, tuple) and "_clear_cache" in vars(obj):
            return _single_dispatch, (), dict(vars(obj)["registry"]), None, None, _restore_dispatch
        if type(obj) is types.FunctionType and isinstance(reduced, tuple) and _is_of_main(obj):
            _make, (code, _globals, *rest), state = reduced[:3]
            if modules.is_main(obj.__module__):
                state[1]["__module__"] = "__main__"
            make = make_function if state[1]["__globals__"] else make_plain_function
            return make, (code, _MAIN, *rest), state, None, None, restore_function
        if isinstance(obj, type) and isinstance(vars(obj).get("__slots__"), str | tuple | list | dict):
            return _with_slots(obj, reduced)
        return reduced


def _with_slots(kind: type, reduced: Any) -> Any:
    """How a class is made again, with its slots. cloudpickle 3.1.3 makes one whose objects have a `__dict__` instead.

    Objects of that could not be unpickled where the class has slots: at home.
    """
    if not isinstance(reduced, tuple) or reduced[0] is not cloudpickle.cloudpickle._make_skeleton_class:
        return reduced  # by name, or an enumeration
    if typing.NamedTuple in vars(kind).get("__orig_bases__", ()):
        return reduced  # it makes its slots itself
    metaclass, name, bases, attributes, *rest = reduced[1]
    attributes = {**attributes, "__slots__": vars(kind)["__slots__"]}
    return reduced[0], (metaclass, name, bases, attributes, *rest), *reduced[2:]


# ------------------------------------------------------------------------------------------ leaving: digests


class Hollow:
    """A function without its large buffers.

    Parameters
    ----------
    stream : bytes
        The pickle of the function.
    count : int
        How many buffers it takes.
    """

    def __init__(self, stream: bytes, count: int) -> None:
        self.stream, self.count = stream, count

    def buffers_of(self, frames: Sequence[Any]) -> Sequence[Any]:
        """Its buffers: they are the last frames of a task."""
        return frames[len(frames) - self.count :]

    def __reduce__(self) -> tuple[Any, ...]:
        return Hollow, (self.stream, self.count)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the large buffers of this function are missing")


class FunctionCache:
    """Pickles functions, each only once if possible.

    A pickle always holds the present state. So a function is pickled again if a name it refers to has been bound to
    another object (a global, a closure cell, its defaults), or if a user's module was loaded again. If it refers to an
    object that can change in place (a list, an array), it is pickled again at every use.
    """

    def __init__(self, look: Callable[[Any, modules.Needs], None] | None = None) -> None:
        """`look` is called with each function that is pickled, and the modules it depends on."""
        self._look = look
        self._known: weakref.WeakKeyDictionary[Any, tuple[Function, Callable[[], bool] | None]] = (
            weakref.WeakKeyDictionary()
        )
        #: the function asked for last, and its entry in `_known`: most calls are of one function, many times
        self._last: tuple[weakref.ref[Any], tuple[Function, Callable[[], bool] | None]] | None = None

    def get(self, function: Any, apart: list[memoryview] | None = None) -> Function:
        """The pickled function, with its digest, name and source.

        Parameters
        ----------
        apart : list, optional
            Takes the large buffers of the function, which its tasks then have as their last frames (see `Hollow`).
            None: they stay in the pickle.

        Raises
        ------
        SerializationError
            The function cannot be pickled.
        """
        last = self._last
        if last is not None and last[0]() is function:
            found: tuple[Function, Callable[[], bool] | None] | None = last[1]
        else:
            try:
                found = self._known.get(function)
            except TypeError:  # not hashable, or has no weak references
                return self._pickle(function, apart)[0]
            if found is not None:
                self._last = weakref.ref(function), found
        if found is not None and (found[1] is None or found[1]()):
            return found[0]
        pickled, by_name, needs = self._pickle(function, apart)
        if apart:
            return pickled  # arrays can change in place
        if by_name:
            if type(function) in (types.FunctionType, types.BuiltinFunctionType) or isinstance(function, type):
                if not isinstance(getattr(function, "__self__", None), (types.ModuleType, type(None))):
                    return pickled  # a method of an object: its state is in the pickle
                with contextlib.suppress(TypeError):
                    self._known[function] = (pickled, _same_modules() if needs else None)
        elif type(function) is types.FunctionType:
            seen: list[tuple[Any, Any, Any]] = []
            if _watch(function, seen, set()):
                self._known[function] = (pickled, _unchanged(weakref.ref(function), function, seen))
        return pickled


    def _pickle(self, function: Any, apart: list[memoryview] | None) -> tuple[Function, bool, modules.Needs]:
        pickled, by_name, needs = _pickle(function, apart)
        if self._look is not None:
            self._look(function, needs)
        return pickled, by_name, needs


#: Pickles with these bytes hold what `ByValuePickler` does better: names of `__main__`, states of random generators.
_BY_VALUE = (modules.NAMES_MAIN, b"__randomstate_ctor", b"\x8c\x06Random\x94")


def _pickle(function: Any, apart: list[memoryview] | None) -> tuple[Function, bool, modules.Needs]:
    """The pickled function, whether it was pickled by name, and the modules it depends on.

    Large buffers go into `apart`; None: they stay in the pickle.
    """
    needs = modules.needs_of(function)
    sent = modules.Needing(function, needs) if needs else function
    stays_inside = None if apart is None else arrays.taking_out(apart, SHARED_FROM)
    try:
        try:
            payload = arrays.dumps(sent, stays_inside)
            by_name = not any(mark in payload for mark in _BY_VALUE) and not _by_value_registered()
        except Exception:  # lambdas, closures, locals: by value
            by_name = False
        if not by_name:
            if apart:
                apart.clear()
            file = io.BytesIO()
            ByValuePickler(file, 5, stays_inside, arrays.reducers(files=False)).dump(sent)
            payload = file.getvalue()
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise SerializationError(
            f"the function {name} cannot be pickled, so nothing was sent ({type(error).__name__}: {error}). "
            f"{_suspects(function)}"
        ) from error
    if apart:
        hollow = Hollow(payload, len(apart))
        payload = pickle.dumps(modules.Needing(hollow, needs) if needs else hollow, 5)
    pickled = Function(digest_of(payload), payload, name_of(function), source_lines.source_of(function))
    return pickled, by_name, needs


def name_of(function: Any) -> str | None:
    """The name of a function in records: "module.name", or "name" for builtins and functions of `__main__`."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    found = name.replace("<locals>.", "") if module in (None, *modules.MAIN, "builtins") else f"{module}.{name}"
    return found.encode("utf-8", "replace").decode()[:200]


def _by_value_registered() -> bool:
    return bool(cloudpickle.list_registry_pickle_by_value() - {modules.SPAWNED_MAIN})


def _suspects(function: Any) -> str:
    """A sentence with the names that a function refers to and that cannot be pickled."""
    bad = []
    for name, value in references(function):
        try:
            cloudpickle.dumps(value)
        except Exception:
            bad.append(f"{name} (a {type(value).__qualname__})")
    return f"It refers to: {', '.join(bad)}." if bad else ""


def references(function: Any) -> Iterator[tuple[str, Any]]:
    """The globals and the closure of a function: (name, value)."""
    if not isinstance(function, types.FunctionType):
        return
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):
            yield name, cell.cell_contents


def _global_names(code: types.CodeType) -> set[str]:
    """Names that the code might look up as globals. Attribute names are among them, which does no harm."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _watch(function: types.FunctionType, seen: list[tuple[Any, Any, Any]], visited: set[int]) -> bool:
    """Add everything the pickle of a function depends on to `seen`. False: some of it can change in place."""
    if id(function) in visited:
        return True
    visited.add(id(function))
    if (
        function.__dict__
        or not _cannot_change(function.__defaults__, seen, visited)
        or not all(_cannot_change(v, seen, visited) for v in (function.__kwdefaults__ or {}).values())
    ):
        return False
    for name in _global_names(function.__code__):
        value = function.__globals__.get(name, _MISSING)
        seen.append((function.__globals__, name, value))
        if value is not _MISSING and not _cannot_change(value, seen, visited):
            return False
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            return False
        seen.append((cell, None, value))
        if not _cannot_change(value, seen, visited):
            return False
    return True


def _cannot_change(value: Any, seen: list[tuple[Any, Any, Any]], visited: set[int]) -> bool:
    if isinstance(value, tuple):
        return type(value) is tuple and all(_cannot_change(part, seen, visited) for part in value)
    if type(value) in _ATOMS or isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        return not isinstance(value, types.BuiltinFunctionType) or isinstance(
            value.__self__, (types.ModuleType, type(None))
        )
    if isinstance(value, type):
        return not modules.is_main(value.__module__) and "<locals>" not in value.__qualname__
    if type(value) is types.FunctionType:
        module = sys.modules.get(value.__module__)
        if not modules.is_main(value.__module__) and getattr(module, value.__qualname__, None) is value:
            return True  # travels by name
        return _watch(value, seen, visited)
    return False


def _same_modules() -> Callable[[], bool]:
    generation = import_watch.generation
    return lambda: import_watch.generation == generation


def _unchanged(
    reference: weakref.ref[types.FunctionType], function: types.FunctionType, seen: list[tuple[Any, Any, Any]]
) -> Callable[[], bool]:
    code, defaults, keywords = function.__code__, function.__defaults__, dict(function.__kwdefaults__ or {})
    cells = [(cell, value) for cell, name, value in seen if name is None]
    names: list[tuple[MutableMapping[str, Any], str, Any]] = [entry for entry in seen if entry[1] is not None]
    generation = import_watch.generation

    def unchanged() -> bool:
        now = reference()
        if (
            now is None
            or import_watch.generation != generation
            or now.__code__ is not code
            or now.__defaults__ is not defaults
            or (now.__kwdefaults__ or _NO_KEYWORDS) != keywords
            or now.__dict__
        ):
            return False
        for space, name, value in names:
            if space.get(name, _MISSING) is not value:
                return False
        for cell, value in cells:  # noqa: SIM110  # this runs for every task: no generator
            if cell.cell_contents is not value:
                return False
        return True

    return unchanged


# ------------------------------------------------------------------------------------------ arriving: loading


#: Stands in pickles of code that Engineroom 0.1 made: they hold no source lines.
_OLD_CODE = types.CodeType.__name__.encode()


class LoadedFunction:
    """An unpickled function, the globals that travelled with it, and the modules it needs."""

    __slots__ = ("call", "is_short_of_names", "needs", "travelled")

    def __init__(self, call: Callable[..., Any], travelled: dict[str, Any], needs: modules.Needs) -> None:
        self.call = call
        self.travelled = travelled
        self.needs = needs
        #: Functions inside it name globals that have not travelled: those of other functions must not stand in.
        self.is_short_of_names = _is_short_of_names(call, travelled)


def _is_short_of_names(call: Any, travelled: Mapping[str, Any]) -> bool:
    if type(call) is not types.FunctionType or call.__globals__ is not main_namespace():
        return False
    inner = set().union(*(globals_of(code) for code in source_lines.inner_code(call.__code__)))
    return any(name not in travelled and not hasattr(builtins, name) for name in inner)


def load_function(
    function: Function, needs: dict[str, str] | None = None, buffers: Iterable[Any] = ()
) -> LoadedFunction:
    """Unpickle a function. Raises what its imports raise; `needs` then holds the modules that it needs.

    `buffers` are those of a function that was pickled without them (see `Hollow`).
    """
    travelled: dict[str, Any] = {}
    needs = {} if needs is None else needs
    with collecting(travelled), modules.collecting(needs):
        call = pickle.loads(function.payload, buffers=buffers)
    code = getattr(call, "__code__", None)
    if isinstance(code, types.CodeType) and _OLD_CODE in function.payload and not source_lines.is_remembered(code):
        source_lines.remember(code, function.source)
    return LoadedFunction(call, travelled, needs)


def fill(hollow: Hollow, buffers: Iterable[Any]) -> LoadedFunction:
    """The function that a `Hollow` stands for. What is done to its buffers, nobody else sees."""
    return load_function(Function(Digest(b""), hollow.stream), buffers=map(own, buffers))
