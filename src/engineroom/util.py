"""Helpers that users import: `interactive`."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any


def interactive(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: treat a function of a module as if it were defined in `__main__`.

    On an engine, it then looks up global names in the engine's namespace.
    """
    if not isinstance(f, types.FunctionType):
        return f
    typed = types.FunctionType(f.__code__, sys.modules["__main__"].__dict__, f.__name__, f.__defaults__, f.__closure__)
    typed.__kwdefaults__ = f.__kwdefaults__
    typed.__doc__ = f.__doc__
    typed.__module__ = "__main__"
    return typed
