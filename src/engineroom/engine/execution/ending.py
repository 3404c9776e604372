"""How processes end: an engine that leaves in order, and a process that a task has forked."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import traceback
import types
from typing import Any, NoReturn

#: Exit code of an engine that cannot go on, because a task has closed its file descriptors.
LINK_CLOSED = 75
#: Seconds that exit functions and finalizers of an engine may take.
EXIT_SECONDS = 5


def run_exit_functions(namespace: dict[str, Any]) -> None:
    """Run `atexit` functions and the finalizers of the user's objects. The kernel ends this process if they take long.

    Threads are not waited for: one that never ends would keep the exit functions from running.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(EXIT_SECONDS)
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    # Modules, functions and classes stay: finalizers may use them.
    lasting = types.ModuleType | types.FunctionType | type
    for name in [name for name, value in namespace.items() if not isinstance(value, lasting) and name[:2] != "__"]:
        with contextlib.suppress(BaseException):
            del namespace[name]
    with contextlib.suppress(BaseException):
        gc.collect()


def end_forked(raised: BaseException | None) -> NoReturn:
    """End a process that a task has forked, and that has come to the end of the task: it is no engine.

    Its exit code is that of a Python script that ends in this way. Exit functions are not run: they are the engine's.
    """
    code = 0
    try:
        if isinstance(raised, SystemExit):
            code = _exit_code(raised)
        elif raised is not None:
            code = 1
            traceback.print_exception(raised)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(raised: SystemExit) -> int:
    if raised.code is None or isinstance(raised.code, int):
        return (raised.code or 0) & 0xFF
    print(raised.code, file=sys.stderr)
    return 1
