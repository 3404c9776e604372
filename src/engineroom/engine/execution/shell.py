"""Cells in IPython: magics, rich display, history. Imported only when a cell needs it."""

from __future__ import annotations

import base64
import sys
import types
from typing import Any, cast

from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from .output import sendable

#: Names without which IPython cannot show a value. A task may have deleted them.
NEEDED = frozenset({"In", "Out", "_ih", "_oh", "_dh", "get_ipython"})


class _Publisher(DisplayPublisher):
    """Collects what `display` shows."""

    outputs: list[dict[str, Any]]

    def publish(self, data: Any, metadata: Any = None, *args: Any, **kwargs: Any) -> None:
        self.outputs.append({"output_type": "display_data", "data": _plain(data), "metadata": _plain(metadata or {})})

    def clear_output(self, wait: bool = False) -> None:
        self.outputs.clear()


class Shell:
    """One IPython shell over the engine's namespace."""

    def __init__(self, module: types.ModuleType) -> None:
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        config.InteractiveShell.xmode = "Context"
        self._shell: Any = _make(InteractiveShell, config=config, user_module=module, user_ns=module.__dict__)
        cast(Any, InteractiveShell)._instance = self._shell
        self._publisher = _make(_Publisher, parent=self._shell, shell=self._shell)
        self._shell.display_pub = self._publisher
        self._shell._showtraceback = lambda *args: None  # the traceback travels with the error
        self._shell.ask_exit = _exit
        self._shell.show_usage_error = lambda *args: None

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What the cell that runs has shown so far."""
        return self._publisher.outputs  # type: ignore[no-any-return]

    @outputs.setter
    def outputs(self, shown: list[dict[str, Any]]) -> None:
        self._publisher.outputs = shown

    def run(self, source: str, *, silent: bool) -> tuple[dict[str, Any], BaseException | None]:
        """Run a cell: (reply, the exception it raised or None)."""
        shell = self._shell
        if not shell.user_ns.keys() >= NEEDED:
            shell.init_user_ns()
        self._publisher.outputs = []
        count = shell.execution_count
        shown: list[Any] = []
        original = shell.displayhook
        shell.displayhook = _collector(shown, original)
        hook, sys.displayhook = sys.displayhook, shell.displayhook
        trap = shell.display_trap
        trap.hook = shell.displayhook
        try:
            result = shell.run_cell(source, store_history=not silent, silent=silent)
        finally:
            shell.displayhook = original
            trap.hook = original
            sys.displayhook = hook
        data, metadata = {}, {}
        if shown and not silent:
            data, metadata = shell.display_formatter.format(shown[-1])
        reply = {
            "source": source,
            "execution_count": None if silent else count,
            "data": _plain(data),
            "metadata": _plain(metadata),
            "outputs": self._publisher.outputs,
        }
        return reply, result.error_before_exec or result.error_in_exec


def _collector(shown: list[Any], original: Any) -> Any:
    class Collect:
        def __call__(self, value: Any = None) -> None:
            if value is not None:
                shown.append(value)
                original.update_user_ns(value)

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

    return Collect()


def _make(kind: Any, **kwargs: Any) -> Any:
    """Call a constructor that has no types."""
    return kind(**kwargs)


def _plain(value: Any) -> Any:
    """A mime bundle as it can travel: bytes (pictures) in base64, as front ends expect; text that can be encoded."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return sendable(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _exit() -> None:
    """`exit` in a cell ends the cell, not the engine."""
    raise SystemExit
