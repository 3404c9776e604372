"""What tasks display: collected for the client that asked, as a notebook would show it.

`display` of IPython shows nothing without an IPython shell: it prints. An engine makes its shell late, as most tasks
need none. So `display` is watched: a function that calls it, from a cell or not, has the shell made first.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from .output import sendable

#: Characters that a task may display; what is more is left out, and a line says so.
MOST = 64 << 20
#: Dicts and lists in each other that travel; what is deeper is left out.
DEEPEST = 64

#: The module that has `display`, and its functions that need a shell.
_MODULE = "IPython.core.display_functions"
_FUNCTIONS = ("display", "publish_display_data", "clear_output")

#: The backend of matplotlib whose `show` displays pictures.
INLINE_BACKEND = "matplotlib_inline.backend_inline"


class Displays:
    """What one task displays: dicts of `output_type`, `data` (a mime bundle), `metadata` and `transient`."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._size = 0
        self._clear_first = False

    def add(self, data: Any, metadata: Any = None, transient: Any = None, *, update: bool = False) -> None:
        """Keep an output; with `update`, put it in the places of those with its display id."""
        if self._clear_first:
            self.clear()
        data, metadata, transient = plain(data), plain(metadata or {}), plain(transient or {})
        size = size_of(data)
        if self._size + size > MOST:
            text = f"[an output of {size / 1e6:.3g} MB was left out: the limit is {MOST >> 20} MiB per task]"
            data, metadata = {"text/plain": text}, {}
            size = len(text)
        self._size += size
        id = transient.get("display_id")
        if update:
            for output in self.outputs:
                if id is not None and output["transient"].get("display_id") == id:
                    output.update(data=data, metadata=metadata)
            return
        self.outputs.append(
            {"output_type": "display_data", "data": data, "metadata": metadata, "transient": transient}
        )

    def clear(self, wait: bool = False) -> None:
        """Forget what was displayed; with `wait`, once something new is displayed."""
        self._clear_first = wait
        if not wait:
            self.outputs = []
            self._size = 0


def plain(value: Any, depth: int = 0) -> Any:
    """A mime bundle as it can travel, and as JSON can say it: bytes (pictures) are in base64, as front ends expect."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return sendable(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if depth == DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {str(plain(key, depth + 1)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    try:
        return sendable(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def size_of(value: Any) -> int:
    """About how many characters a plain value has."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(size_of, value))
    return 8


def watch(make_shell: Callable[[], Any]) -> None:
    """Have `display` call `make_shell` before it shows anything. IPython is not imported for this."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _wrap(module, make_shell)
    else:
        sys.meta_path.insert(0, _Finder(make_shell))


class _Finder(MetaPathFinder):
    """Waits for the import of the module that has `display`, and changes its functions."""

    def __init__(self, make_shell: Callable[[], Any]) -> None:
        self._make_shell = make_shell

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._make_shell)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, make_shell: Callable[[], Any]) -> None:
        self._loader, self._make_shell = loader, make_shell

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        self._loader.exec_module(module)
        _wrap(module, self._make_shell)

    def __getattr__(self, name: str) -> Any:  # get_source and others
        return getattr(self._loader, name)


def _wrap(module: types.ModuleType, make_shell: Callable[[], Any]) -> None:
    for name in _FUNCTIONS:
        function = getattr(module, name, None)
        if function is not None:
            setattr(module, name, _with_shell(function, make_shell))


def _with_shell(function: Any, make_shell: Callable[[], Any]) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        make_shell()
        return function(*args, **kwargs)

    return call
