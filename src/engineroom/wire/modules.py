"""Which versions of users' modules this process has loaded, and which ones a function needs.

A user's module is one whose file is not among the standard library, installed packages, or Engineroom. Its *version*
is the digest of the source that was loaded, which may be older than the file is now. A pickled function names the
versions of the modules it depends on (its *needs*), and an engine compares them with its own before it calls it.

The versions are known without reading files at import: `import_watch` notes when each import begins. If the file has
not changed since then, the module was loaded from what the file holds.

This module does not pickle, and says nothing to the user. `functions` pickles needs, the engine's executor compares.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import import_watch

#: The script in a process that `multiprocessing` has spawned.
SPAWNED_MAIN = "__mp_main__"
#: What the script, notebook or terminal of a process is called.
MAIN = ("__main__", SPAWNED_MAIN)
#: Every pickle that names one of them contains these bytes.
NAMES_MAIN = b"_main__"

#: Containers with more items are data, and are not looked into.
_LARGEST = 1000

#: module → version
Needs = Mapping[str, str]

#: module → (its spec when we looked, its version then)
_known: dict[str, tuple[Any, str | None]] = {}
#: module → (its spec, the number of its names, the modules it uses)
_uses: dict[str, tuple[Any, int, set[str]]] = {}
#: Collects the needs of functions while they are unpickled.
_collected: dict[str, str] | None = None


# ------------------------------------------------------------------------------------------ versions


def version_of(name: str) -> str | None:
    """The version of a user's module that is loaded; "": it is not known; None: it is not a user's module."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    known = _known.get(name)
    if known is None or known[0] is not spec:
        import_watch.asked.add(name)
        known = _known[name] = spec, _look(name, getattr(module, "__file__", None))
    return known[1]


def _look(name: str, path: str | None) -> str | None:
    if not path or is_main(name) or is_installed(path):
        return None
    begun = import_watch.begin_of(name)
    try:
        found = os.stat(path)
        if max(found.st_mtime_ns, found.st_ctime_ns) > begun:
            return ""
        return _digest_of_file(path, found.st_mtime_ns, found.st_size)
    except OSError:
        return ""


def _version_of_file(name: str) -> str | None:
    """The version that an import would load now: of a module that is not loaded, or was loaded some time ago."""
    path = getattr(sys.modules.get(name), "__file__", None) or _path_of(name)
    with contextlib.suppress(OSError):
        if path and not is_installed(path):
            found = os.stat(path)
            return _digest_of_file(path, found.st_mtime_ns, found.st_size)
    return None


def _path_of(name: str) -> str | None:
    """Where an import would find a module that is not loaded."""
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return None  # to look for it would import its package
    try:
        with import_watch.paused():
            spec = importlib.util.find_spec(name)
        return spec.origin if spec is not None and spec.has_location else None
    except Exception:  # whatever finders may raise
        return None


@functools.lru_cache(1024)
def _digest_of_file(path: str, changed: int, size: int) -> str:
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def is_installed(path: str) -> bool:
    """Whether a file is of the standard library, of an installed package, or of Engineroom."""
    whole = os.path.abspath(path)
    return whole.startswith(_installed()) or "/site-packages/" in whole or "/dist-packages/" in whole


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    ours = Path(__file__).parent.parent
    return tuple(os.path.join(p, "") for p in (*(paths[key] for key in ("stdlib", "purelib", "platlib")), str(ours)))


# ------------------------------------------------------------------------------------------ needs


def needs_of(*values: Any) -> dict[str, str]:
    """The user's modules that these functions, classes and objects depend on, with their versions.

    Modules count that the code names, and those that these use in their turn; also those that a function imports.
    """
    names: set[str] = set()
    met: set[int] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) not in met:
            met.add(id(value))
            _add_names(value, names, waiting)
    found: dict[str, str] = {}
    modules = sorted(names)
    while modules:
        name = modules.pop()
        if name in found:
            continue
        version = version_of(name) if name in sys.modules else _version_of_file(name)
        if name not in sys.modules:
            import_watch.asked.add(name)  # its import will change the generation
            _known[name] = None, version
        if version is not None:
            found[name] = version
            if name in sys.modules:
                modules += _used_by(name)
            modules += _parents(name)
    return found


def _add_names(value: Any, names: set[str], waiting: list[Any]) -> None:
    """Add the modules that a value names itself; have the values that it holds looked at, too."""
    if isinstance(value, types.ModuleType):
        names.add(value.__name__)
    elif isinstance(value, types.FunctionType):
        if is_importable(value):
            names.add(value.__module__)
            return
        space = value.__globals__
        words = _words(value.__code__)  # names of attributes are among them, which does no harm
        waiting += [space[word] for word in words if word in space]
        names.update(_imports_in(value.__code__))
        waiting += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):
                waiting.append(cell.cell_contents)
    elif isinstance(value, type):
        if is_importable(value):
            names.add(value.__module__)
            return
        waiting += [*value.__bases__, *vars(value).values()]
    elif isinstance(value, staticmethod | classmethod):
        waiting.append(value.__func__)
    elif isinstance(value, property):
        waiting += [value.fget, value.fset, value.fdel]
    elif isinstance(value, types.MethodType):
        waiting += [value.__self__, value.__func__]
    elif isinstance(value, functools.partial):
        waiting += [value.func, *value.args, *value.keywords.values()]
    elif type(value) in (list, tuple, set, frozenset, dict):
        if len(value) <= _LARGEST:
            waiting += value.values() if type(value) is dict else value
    elif type(value).__module__ != "builtins":
        kind = type(value)
        waiting.append(kind)
        attributes = getattr(value, "__dict__", None)
        is_of_user = is_main(kind.__module__) or version_of(kind.__module__) is not None
        holds_functions = kind.__module__.startswith("engineroom.on_engine.")  # Seeded, dependent
        if (is_of_user or holds_functions) and type(attributes) is dict:
            waiting += attributes.values()


def _used_by(name: str) -> set[str]:
    """The user's modules that a loaded module uses itself."""
    module = sys.modules[name]
    spec, size = getattr(module, "__spec__", None), len(vars(module))
    known = _uses.get(name)
    if known is None or known[0] is not spec or known[1] != size:
        known = _uses[name] = spec, size, _look_for_uses(name, module)
    return known[2]


def _look_for_uses(name: str, module: types.ModuleType) -> set[str]:
    names: set[str] = set()
    words: set[str] = set()
    for value in list(vars(module).values()):
        if isinstance(value, types.ModuleType):
            names.add(value.__name__)
            continue
        kind = value if isinstance(value, type | types.FunctionType) else type(value)
        names.add(getattr(kind, "__module__", None) or name)
        if kind is value and value.__module__ == name:
            for function in (value, *vars(value).values()) if isinstance(value, type) else (value,):
                if isinstance(function, types.FunctionType):
                    words |= _words(function.__code__)
    package = getattr(module, "__package__", None)
    names |= {word for word in words if word in sys.modules}
    names |= {f"{package}.{word}" for word in words if package and f"{package}.{word}" in sys.modules}
    return {found for found in names if found != name and found in sys.modules and version_of(found) is not None}


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts)) if ".".join(parts[:end]) in sys.modules]


def _words(code: types.CodeType) -> set[str]:
    words = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            words |= _words(constant)
    return words


def _imports_in(code: types.CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _imports_in(constant)
    return {name for name in names if name}


def is_main(name: Any) -> bool:
    """Whether a module is the script, notebook or terminal of this process: no other process can import it."""
    return name in MAIN


def is_importable(value: Any) -> bool:
    """Whether any process can import it by its name."""
    if value.__module__ is None or is_main(value.__module__):
        return False
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


class Needing:
    """Pickled in place of a value: its needs come first, and are known also if the value cannot be unpickled."""

    def __init__(self, value: Any, needs: Needs) -> None:
        self._value, self._needs = value, needs

    def __reduce__(self) -> tuple[Any, ...]:
        return second, (_Noted(self._needs), self._value)


class _Noted:
    def __init__(self, needs: Needs) -> None:
        self._needs = needs

    def __reduce__(self) -> tuple[Any, ...]:
        return note_needs, (tuple(sorted(self._needs.items())),)


def second(_first: Any, value: Any) -> Any:
    """The value of a `Needing`."""
    return value


def note_needs(needs: Iterable[tuple[str, str]]) -> None:
    """The needs of what is unpickled next."""
    if _collected is not None:
        _collected.update(needs)


#: Pickles with needs contain these bytes.
MARK = note_needs.__name__.encode()


@contextlib.contextmanager
def collecting(needs: dict[str, str]) -> Iterator[None]:
    """Inside the block, the needs of what is unpickled go into `needs`."""
    global _collected
    before, _collected = _collected, needs
    try:
        yield
    finally:
        _collected = before


def differing(needs: Needs) -> dict[str, str]:
    """The modules that are loaded here in another version than is needed: name → what that means, as a text."""
    found = {}
    for name, wanted in needs.items():
        loaded = version_of(name) if name in sys.modules else None
        if wanted and loaded is not None and loaded != wanted:
            here = _version_of_file(name)
            path = getattr(sys.modules[name], "__file__", "?")
            if here == wanted:
                found[name] = f"it loaded an older version of {path}"
            elif here == loaded:
                found[name] = f"the client has another version than {path} (reload it in the client)"
            else:
                found[name] = f"neither it nor the client has loaded {path} as it is now"
    return found


# ------------------------------------------------------------------------------------------ loading again


def reload(names: Iterable[str] | None = None) -> list[str]:
    """Load modules again, and the user's modules that use them, in the order of their dependence.

    Parameters
    ----------
    names : iterable of str, optional
        Modules; those that are not loaded are left out. Default: the user's modules whose files have changed.

    Returns
    -------
    list of str
        The modules that were loaded again, in this order.

    Raises
    ------
    ModuleNotFoundError
        An import does not find a module any more. No module was loaded again.
    """
    importlib.invalidate_caches()
    users = {name: _used_by(name) for name in list(sys.modules) if version_of(name) is not None}
    chosen = {name for name in users if version_of(name) != _version_of_file(name)} if names is None else set(names)
    order: list[str] = []
    for name in sorted(users):
        _after_those_it_uses(name, users, order, set())
    for name in order:
        if users[name] & chosen:  # those it uses come before it, but for circles
            chosen.add(name)
    wanted = [name for name in (*sorted(chosen - set(order)), *order) if name in chosen and name in sys.modules]
    gone = [name for name in wanted if _is_gone(name)]
    if gone:
        files = ", ".join(f"{name} ({getattr(sys.modules[name], '__file__', None)})" for name in gone)
        raise ModuleNotFoundError(
            f"these modules cannot be loaded again, because an import does not find them any more: {files}. No module "
            "was loaded again. Put their files back, or name the modules to load: rc.reload_modules(names=[…])",
            name=gone[0],
        )
    for name in wanted:
        module = sys.modules[name]
        cached = getattr(module.__spec__, "cached", None)
        if cached:  # it may be of an edit in the same second
            with contextlib.suppress(OSError):
                os.unlink(cached)
        try:
            importlib.reload(module)
        except Exception as error:
            error.add_note(f"(while {name} was loaded again)")
            raise
    return wanted


def _is_gone(name: str) -> bool:
    """Whether an import would not find a loaded module any more: its file is gone, or its folder is not on the path."""
    parent = name.rpartition(".")[0]
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    try:
        with import_watch.paused():
            return all(finder.find_spec(name, folders, sys.modules[name]) is None for finder in sys.meta_path)
    except Exception:  # whatever finders may raise: the import raises it again
        return False


def _after_those_it_uses(name: str, users: Mapping[str, set[str]], order: list[str], on_the_way: set[str]) -> None:
    if name in order or name in on_the_way:
        return
    on_the_way.add(name)
    for used in sorted(users[name]):
        if used in users:
            _after_those_it_uses(used, users, order, on_the_way)
    order.append(name)


def renewed(space: dict[str, Any], load: Callable[[], list[str]]) -> list[str]:
    """Load modules again with `load`; names of `space` that were bound to what they define are bound anew."""
    before = {name: dict(vars(sys.modules[name])) for name in list(sys.modules) if version_of(name) is not None}
    done = load()
    for key, value in list(space.items()):
        home = getattr(value, "__module__", None)
        if home not in done or not isinstance(value, type | types.FunctionType):
            continue
        name = value.__qualname__
        if before.get(home, {}).get(name) is value and hasattr(sys.modules[home], name):
            space[key] = getattr(sys.modules[home], name)
    return done
