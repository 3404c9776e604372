"""Functional dependencies: `@require`, `@depend`, and the `dependent` behind them.

The dependency is checked on the engine, before the function is called. If it is not met, the task goes to another
engine. A `dependent` is pickled like any function: by name if a module defines it, by value if a script does.
Dependencies between tasks are not here: see `client.views.dependency`.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, UnmetDependency
from ..wire.functions import main_namespace
from ..wire.modules import is_main
from .task_context import time_limit

#: Names of numpy's class of True and False.
_NUMPY_BOOLS = ("bool", "bool_")

#: How long a dependency function may take, in seconds.
DEPENDENCY_SECONDS = 60.0


class dependent:
    """A function that runs only on engines on which another function does not return False.

    Parameters
    ----------
    f : callable
        The function.
    g : callable
        The dependency function, called first, on the engine, as `g(*gargs, **gkwargs)`. If it returns False (exactly),
        the task is tried on another engine, never twice on one; when none is left it fails with
        `ImpossibleDependency`. If it raises, that is the task's error.

    Attributes
    ----------
    timeout : float
        Seconds `g` may take (60). Then it is interrupted, and the task fails with `DependencyTimeout`.

    Examples
    --------
    >>> view.apply_async(er.dependent(train, has_gpu, memory=8), data)   # doctest: +SKIP
    """

    timeout = DEPENDENCY_SECONDS

    def __init__(self, f: Callable[..., Any], g: Callable[..., Any], /, *gargs: Any, **gkwargs: Any) -> None:
        for what, function in (("function", f), ("dependency function", g)):
            if not callable(function):
                raise ConfigError(f"a {what} must be callable, got {function!r}")
        self.__name__ = self.__qualname__ = _name(f)
        functools.update_wrapper(self, f, updated=())
        self.f, self.g, self.gargs, self.gkwargs = f, g, gargs, gkwargs

    @property
    def func_name(self) -> str:
        """The function's name."""
        return self.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        late = f"the dependency function {_name(self.g)} of {self.__name__} took longer than {self.timeout:g} s"
        with time_limit(self.timeout, "DependencyTimeout", late):
            met = self.g(*self.gargs, **self.gkwargs)
        if met is False:
            raise UnmetDependency(f"{_name(self.g)} returned False on this engine, so {self.__name__} was not called")
        if type(met).__module__ == "numpy" and type(met).__name__ in _NUMPY_BOOLS and not met:
            warnings.warn(
                f"{_name(self.g)} returned numpy's False, which is not the False that keeps {self.__name__} from being "
                "called here: return bool(…)",
                stacklevel=2,
            )
        return self.f(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By name, if a module has it under its name. The inner function is not importable: this has its name."""
        found: Any = None if is_main(self.__module__) else sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        return self.__qualname__ if found is self else super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"<dependent {self.__name__}, if {_name(self.g)}>"


def depend(g: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], dependent]:
    """Decorator: run a function only on engines where `g(*args, **kwargs)` does not return False. See `dependent`.

    >>> @er.depend(os.path.exists, "/data/catalogue")   # doctest: +SKIP
    ... def look_up(name): ...
    """
    if not callable(g):
        raise ConfigError(f"a dependency function must be callable, got {g!r}")
    return lambda f: dependent(f, g, *args, **kwargs)


def require(*objects: Any, **mapping: Any) -> Callable[[Callable[..., Any]], dependent]:
    """Decorator: run a function only on engines that can import some modules, and define some names there.

    Parameters
    ----------
    *objects : str, module, function or class
        Modules, or their names, are imported on the engine, into its namespace. If a module cannot be imported, the
        task is tried on another engine. Functions and classes are put into the namespace under their names.
    **mapping
        Values put into the namespace under these names.

    Raises
    ------
    ConfigError
        An object is none of these.

    Examples
    --------
    >>> @er.require("numpy", "scipy.linalg", helper, tolerance=1e-6)   # doctest: +SKIP
    ... def solve(a, b): ...
    """
    modules = []
    for thing in objects:
        if isinstance(thing, types.ModuleType):
            modules.append(thing.__name__)
        elif isinstance(thing, str):
            if not all(part.isidentifier() for part in thing.split(".")):
                raise ConfigError(f"{thing!r} is not the name of a module; give one as in require('scipy.linalg')")
            modules.append(thing)
        elif callable(thing) and isinstance(getattr(thing, "__name__", None), str):
            mapping[thing.__name__] = thing
        else:
            raise ConfigError(
                f"require takes modules, their names, functions and classes, not a {type(thing).__name__}; "
                "give values a name: require(name=value)"
            )
    return depend(_fulfil, tuple(modules), mapping)


def _fulfil(modules: tuple[str, ...], values: dict[str, Any]) -> None:
    """Import the modules and define the names, on the engine.

    Raises
    ------
    UnmetDependency
        A module cannot be imported.
    """
    namespace = main_namespace()
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UnmetDependency(f"this engine cannot import {name} ({error})") from error
        top = name.partition(".")[0]
        namespace[top] = sys.modules[top]
    namespace.update(values)


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)
