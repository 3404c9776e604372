"""The magics themselves: they execute code through a direct view, and show what comes of it."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from ...messages import signal_number
from ...system.held_signals import HeldSignals

#: Seconds after which a blocking %px shows a progress bar.
PROGRESS_AFTER = 2.0


def _options(function: Any) -> Any:
    """Decorator: the options of `%%px` and `%pxconfig`."""
    for made in (
        argument("-b", "--block", action="store_const", const=True, dest="block", help="wait for the results"),
        argument("-a", "--noblock", action="store_const", const=False, dest="block", help="do not wait"),
        argument("-t", "--targets", type=str, help="the engines: all, 1, 1,3 or a slice of the ids as ::2"),
        argument("--stream", action="store_const", const=True, dest="stream", help="show output while it comes"),
        argument("--no-stream", action="store_const", const=False, dest="stream", help="show output at the end"),
        argument("--verbose", action="store_const", const=True, dest="verbose", help="say where the code runs"),
        argument("--no-verbose", action="store_const", const=False, dest="verbose", help="do not say it"),
        argument("--progress-after", type=float, help="seconds until a progress bar is shown; -1: none"),
        argument("--signal-on-interrupt", type=str, help="signal for the engines on Ctrl-C; 0: none"),
    ):
        function = made(function)
    return function


def _output_options(function: Any) -> Any:
    """Decorator: the options of `%%px` and `%pxresult`."""
    for made in (
        argument("-r", action="store_const", const="order", dest="groupby", help="all first outputs, then all second"),
        argument("-e", action="store_const", const="engine", dest="groupby", help="group outputs by engine"),
        argument("--group-outputs", dest="groupby", choices=["type", "engine", "order"], help="how to group outputs"),
        argument("-o", "--out", dest="save_name", type=str, help="bind the AsyncResult to this name"),
    ):
        function = made(function)
    return function


class ParallelMagics:
    """Magics of one view, with one suffix.

    Attributes
    ----------
    view : DirectView
        Where code runs. Its flag `block` says whether `%px` waits.
    last_result : AsyncResult or None
        Of the last `%px`.
    """

    def __init__(self, shell: Any, view: Any, suffix: str = "") -> None:
        self.shell, self.view, self.suffix = shell, view, suffix
        self.last_result: Any = None
        self.verbose = False
        self.stream = os.environ.get("IPP_NONINTERACTIVE", "0") in ("0", "")
        self.progress_after = PROGRESS_AFTER if self.stream else -1.0
        self.signal: int | str = "SIGINT"
        self._is_local = False  # while `--local` runs its cell here

    @property
    def is_closed(self) -> bool:
        """Whether the view's client has been closed."""
        return bool(self.view.client.closed)

    def register(self) -> None:
        """Make the shell know these magics; those of another view with this suffix are replaced."""
        before = getattr(self.shell.magics_manager.magics["line"].get(f"px{self.suffix}"), "__self__", None)
        if isinstance(before, ParallelMagics):
            before.stop_autopx()
        line = {
            f"px{self.suffix}": self.px,
            f"pxconfig{self.suffix}": self.pxconfig,
            f"pxresult{self.suffix}": self.pxresult,
            f"autopx{self.suffix}": self.autopx,
        }
        if not self.suffix:
            line["result"] = self.pxresult
        for name, function in line.items():
            self.shell.register_magic_function(function, "line", name)
        self.shell.register_magic_function(self.cell_px, "cell", f"px{self.suffix}")

    # ------------------------------------------------------------------------------------------ the magics

    @no_var_expand
    def px(self, line: str = "") -> Any:
        """Execute a line on the engines of the view: `%px a = 5`."""
        first = re.match(r"--[\w-]+", line)
        if first and first[0] in self.cell_px.parser._option_string_actions:
            px = f"px{self.suffix}"
            raise UsageError(
                f"%{px} takes code alone: {first[0]} is an option of a cell (%%{px} {first[0]} …). "
                f"%pxconfig{self.suffix} sets options for all that follow"
            )
        return self._execute(line)

    @magic_arguments()
    @_options
    @_output_options
    @argument("--local", action="store_true", help="run the cell here, too, while the engines run it")
    def cell_px(self, line: str = "", cell: str | None = None) -> Any:
        """Execute a cell on the engines of the view: `%%px --targets 1,3 --noblock`."""
        given = parse_argstring(self.cell_px, line)
        if given.save_name and not given.save_name.isidentifier():
            raise UsageError(f"-o binds a name, got {given.save_name!r}")
        signal = None if given.signal_on_interrupt is None else _signal(given.signal_on_interrupt)
        targets = {} if given.targets is None else {"targets": self._targets(given.targets)}
        with self.view.temp_flags(**targets):
            return self._execute(
                cell or "",
                block=given.block,
                groupby=given.groupby or "type",
                save_name=given.save_name,
                stream=given.stream,
                verbose=given.verbose,
                progress_after=given.progress_after,
                signal=signal,
                meanwhile=(lambda: self._run_here(cell or "")) if given.local else None,
            )

    @magic_arguments()
    @_options
    def pxconfig(self, line: str = "") -> None:
        """Change what `%px` does from now on: `%pxconfig --targets 1,3 --noblock`."""
        given = parse_argstring(self.pxconfig, line)
        if given.targets is not None:
            self.view.targets = self._targets(given.targets)
        if given.block is not None:
            self.view.block = given.block
        if given.stream is not None:
            self.stream = given.stream
        if given.verbose is not None:
            self.verbose = given.verbose
        if given.progress_after is not None:
            self.progress_after = given.progress_after
        if given.signal_on_interrupt is not None:
            self.signal = _signal(given.signal_on_interrupt)

    @magic_arguments()
    @_output_options
    def pxresult(self, line: str = "") -> None:
        """Wait for the last `%px`, and show what came of it."""
        given = parse_argstring(self.pxresult, line)
        if self.last_result is None:
            raise UsageError(f"there is no result yet: %px{self.suffix} makes one")
        if given.save_name:
            self.shell.user_ns[given.save_name] = self.last_result
            return
        try:
            self.last_result.wait()
        finally:
            self.last_result.display_outputs(groupby=given.groupby or "type")
        self.last_result.get()

    def autopx(self, line: str = "") -> None:
        """From now on all cells run on the engines, until this magic is used again."""
        if self.stop_autopx():
            print(f"%autopx{self.suffix} disabled")
        else:
            self.shell.input_transformers_cleanup.append(self._to_engines)
            print(f"%autopx{self.suffix} enabled")

    def stop_autopx(self) -> bool:
        """Let cells run here again; returns whether they did not."""
        transformers = self.shell.input_transformers_cleanup
        if self._to_engines not in transformers:
            return False
        transformers.remove(self._to_engines)
        return True

    # ------------------------------------------------------------------------------------------ what they do

    def _to_engines(self, lines: list[str]) -> list[str]:
        """The lines of a cell as those of `%%px`. Cells with one of our own magics stay as they are."""
        text = "".join(lines)
        own = rf"\s*%{{1,2}}(autopx|px|pxconfig|pxresult){re.escape(self.suffix)}\b"
        if self._is_local or not text.strip() or re.match(own, text):
            return lines
        return [f"%%px{self.suffix}\n", *lines]

    # A terminal asks whether a line is complete, and must not take it for the begin of a cell.
    _to_engines.has_side_effects = True  # type: ignore[attr-defined]

    def _run_here(self, cell: str) -> None:
        """Run a cell in this shell, which shows what comes of it, also an error."""
        self._is_local = True
        try:
            self.shell.run_cell(cell)
        finally:
            self._is_local = False

    def _targets(self, text: str) -> Any:
        """What a text as "all", "1", "1,3" or "::2" names."""
        text = text.strip()
        if text.strip("'\"") == "all":
            return "all"
        try:
            if ":" in text:
                bounds = [int(part) if part.strip() else None for part in text.strip("[]").split(":")]
                ids = self.view.client.ids
                if not (chosen := ids[slice(*bounds)]):
                    there = ", ".join(map(str, ids)) or "none"
                    raise UsageError(f"--targets: {text} names no engine; there are {there}")
                return chosen
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            raise UsageError(f"--targets is all, a number, numbers as 1,3 or a slice as ::2; got {text!r}") from None
        found = list(found) if isinstance(found, tuple) else found
        try:
            self.view.client.direct_view(found)
        except (IndexError, TypeError) as error:
            raise UsageError(f"--targets: {error}") from None
        return found

    def _execute(
        self,
        code: str,
        *,
        block: bool | None = None,
        groupby: str = "type",
        save_name: str | None = None,
        stream: bool | None = None,
        verbose: bool | None = None,
        progress_after: float | None = None,
        signal: int | str | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Execute code. Waits and shows outputs if `block`; else returns the AsyncResult.

        `meanwhile` is called while the engines work.
        """
        block = self.view.block if block is None else block
        stream = self.stream if stream is None else stream
        if self.verbose if verbose is None else verbose:
            kind = "Parallel" if block else "Async parallel"
            print(f"{kind} execution on engine(s): {_shown(self.view.targets)}")
        result: Any = None
        with contextlib.ExitStack() as shown:
            is_shown = False
            try:  # an interrupt that comes while the code is on its way is meant for the engines, too
                held = HeldSignals(lambda: None)  # … and comes once we know which tasks these are
                try:
                    result = self.view.execute(code, silent=False, block=False)
                finally:
                    held.end()
                result._name = "%px"
                self.last_result = result
                if save_name:
                    self.shell.user_ns[save_name] = result
                if meanwhile is not None:
                    meanwhile()
                if not block:
                    return result
                if stream:
                    shown.enter_context(result.stream_output())
                    is_shown = True
                self._wait(result, self.progress_after if progress_after is None else progress_after)
            except KeyboardInterrupt:
                if result is None or not block:
                    raise
                self._interrupt(result, self.signal if signal is None else signal)
        if not is_shown:
            result.display_outputs(groupby=groupby)
        result.get()
        return None

    def _wait(self, result: Any, progress_after: float) -> None:
        """Wait for a result. After `progress_after` seconds a progress bar is shown; -1: none."""
        done = result.wait(progress_after) if progress_after > 0 else False
        if not done and progress_after >= 0:
            result.wait_interactive()
        result.wait()

    def _interrupt(self, result: Any, signal: int | str) -> None:
        """Ctrl-C: signal the engines, and wait for the tasks. Another Ctrl-C ends this wait."""
        if signal == 0:
            raise KeyboardInterrupt
        print(f"Received Keyboard Interrupt. Sending signal {signal} to engines...", file=sys.stderr)
        self.view.client.send_signal(signal, targets=self.view.targets, block=True)
        result.wait()


def _signal(text: str) -> int | str:
    """The signal that an option names; 0: none."""
    given = int(text) if text.isdigit() else text
    try:
        return given if given == 0 or signal_number(given) else 0
    except ValueError as error:
        raise UsageError(f"--signal-on-interrupt: {error}") from None


def _shown(targets: Any) -> str:
    if isinstance(targets, list) and len(targets) > 10:
        return f"{str(targets[:4])[:-1]}, ..., {str(targets[-4:])[1:]}"
    return str(targets)
