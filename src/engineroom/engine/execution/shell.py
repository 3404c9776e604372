"""Cells in IPython: magics, rich display, history. Imported only when a cell needs it."""

from __future__ import annotations

import contextlib
import sys
import types
from typing import Any, cast

from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ...printable import CLEARED, CLEARED_BY_NEXT
from .displays import INLINE_BACKEND, Displays, plain

#: Names without which IPython cannot show a value. A task may have deleted them.
NEEDED = frozenset({"In", "Out", "_ih", "_oh", "_dh", "get_ipython"})


class _Publisher(DisplayPublisher):
    """Collects what `display` shows."""

    displays: Displays

    def publish(
        self,
        data: Any,
        metadata: Any = None,
        source: Any = None,
        *,
        transient: Any = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        self.displays.add(data, metadata, transient, update=update)

    def clear_output(self, wait: bool = False) -> None:
        self.displays.clear(wait)
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "parts", None):  # the task has printed something
                stream.write(CLEARED_BY_NEXT if wait else CLEARED)


class _EngineShell(InteractiveShell):
    """IPython's shell without a terminal and without an event loop of a window system."""

    def enable_gui(self, gui: str | None = None) -> None:
        if gui not in (None, "inline", "agg"):
            raise UsageError(f"an engine has no windows, so no {gui!r}: use %matplotlib inline")


class Shell:
    """One IPython shell over the engine's namespace."""

    def __init__(self, module: types.ModuleType) -> None:
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        config.InteractiveShell.xmode = "Context"
        self._shell: Any = _make(_EngineShell, config=config, user_module=module, user_ns=module.__dict__)
        cast(Any, InteractiveShell)._instance = self._shell
        self._publisher = _make(_Publisher, parent=self._shell, shell=self._shell)
        self.begin()
        self._shell.display_pub = self._publisher
        self._shell._showtraceback = lambda *args: None  # the traceback travels with the error
        self._shell.ask_exit = _exit
        self._shell.show_usage_error = lambda *args: None
        if INLINE_BACKEND in sys.modules:  # a task has imported it before there was a shell: figures become pictures
            with contextlib.suppress(Exception):
                sys.modules[INLINE_BACKEND].configure_inline_support(self._shell, f"module://{INLINE_BACKEND}")

    def begin(self) -> None:
        """A task begins: nothing has been displayed."""
        self._publisher.displays = Displays()

    @property
    def displays(self) -> Displays:
        """What the task that runs has displayed so far."""
        return self._publisher.displays  # type: ignore[no-any-return]

    @displays.setter
    def displays(self, shown: Displays) -> None:
        self._publisher.displays = shown

    def run(self, source: str, *, silent: bool) -> tuple[dict[str, Any], BaseException | None]:
        """Run a cell: (reply, the exception it raised or None)."""
        shell = self._shell
        if not shell.user_ns.keys() >= NEEDED:
            shell.init_user_ns()
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
            "data": plain(data),
            "metadata": plain(metadata),
        }
        return reply, result.error_before_exec or result.error_in_exec


def _collector(shown: list[Any], original: Any) -> Any:
    class Collect:
        def __call__(self, value: Any = None) -> None:
            if value is not None:
                if not original.quiet():  # "4;" shows nothing
                    shown.append(value)
                original.update_user_ns(value)

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

    return Collect()


def _make(kind: Any, **kwargs: Any) -> Any:
    """Call a constructor that has no types."""
    return kind(**kwargs)


def _exit() -> None:
    """`exit` in a cell ends the cell, not the engine."""
    raise SystemExit
