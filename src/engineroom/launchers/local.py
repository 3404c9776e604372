"""Processes of this host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ..errors import ConfigError

#: Seconds between the polite signal and the rude one.
STOP_SECONDS = 8.0


class LocalProcess:
    """A process started here.

    Parameters
    ----------
    args : sequence of str
        The command.
    log_file : Path
        Where its output goes.
    environment : dict
        Added to this process's.
    lifeline : bool
        Let it hold the end of a pipe from us: it ends when this process does, however that happens.
    """

    def __init__(
        self,
        args: Sequence[str],
        log_file: Path,
        *,
        environment: Mapping[str, str] | None = None,
        lifeline: bool = False,
    ) -> None:
        self.args = list(args)
        self.log_file = log_file
        self._environment = dict(environment or {})
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._callbacks: list[Callable[[int], None]] = []
        self._waiter: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that killed it), once it has ended."""
        return self._process.poll() if self._process is not None else None

    @property
    def state(self) -> str:
        """before, running or after."""
        if self._process is None:
            return "before"
        return "running" if self.running else "after"

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in our terminal is not for it."""
        if self.running:
            raise ConfigError(f"already running: {' '.join(self.args)}")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.args,
                stdin=subprocess.PIPE if self._lifeline else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        if self._callbacks:
            self._watch()

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._waiter is not None and self._waiter is not threading.current_thread():
            self._waiter.join()

    def signal(self, number: int) -> None:
        if self.running:
            assert self._process is not None
            self._process.send_signal(number)

    def join(self, timeout: float | None = None) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def on_stop(self, callback: Callable[[int], None]) -> None:
        self._callbacks.append(callback)
        if self._process is not None and self._waiter is None:
            self._watch()

    def _watch(self) -> None:
        process = self._process
        assert process is not None

        def wait() -> None:
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            for callback in self._callbacks:
                callback(code)

        self._waiter = threading.Thread(target=wait, name="launcher", daemon=True)
        self._waiter.start()

    def get_output(self) -> str:
        """The last 4 kB of its log."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - 4096))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def to_dict(self) -> dict[str, Any]:
        return {"class": "local", "pid": self.pid, "log_file": str(self.log_file), "args": self.args}


class FoundProcess:
    """A process that another one of ours started: known by its pid."""

    def __init__(self, pid: int, marker: str, log_file: Path | None = None) -> None:
        self._pid = pid
        self.log_file = log_file
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if any(marker in argument for argument in process.cmdline()):  # pids are used again
                self._process = process

    @property
    def running(self) -> bool:
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False

    @property
    def pid(self) -> int | None:
        return self._pid if self._process is not None else None

    def start(self) -> None:
        raise ConfigError("this process was started elsewhere")

    def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                self._process.kill()

    def signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    def join(self, timeout: float | None = None) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except psutil.TimeoutExpired:
            return False
        except psutil.NoSuchProcess:
            return True
        return True

    def on_stop(self, callback: Callable[[int], None]) -> None:
        def wait() -> None:
            self.join()
            callback(0)

        threading.Thread(target=wait, daemon=True).start()

    def get_output(self) -> str:
        return self.log_file.read_text(errors="replace")[-4096:] if self.log_file and self.log_file.exists() else ""

    def to_dict(self) -> dict[str, Any]:
        return {"class": "local", "pid": self._pid, "log_file": str(self.log_file or ""), "args": []}
