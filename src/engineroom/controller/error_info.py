"""What clients are told: an exception as an `ErrorInfo`, and why tasks may be unknown."""

from __future__ import annotations

import logging
import time

import msgspec

from ..errors import EngineroomError, RemoteError
from ..messages import ErrorInfo
from ..stores import TaskStore

log = logging.getLogger(__name__)

#: Errors that tell a user something. Any other one is a bug of the controller, and is logged.
_MEANT = (EngineroomError, IndexError, KeyError, msgspec.ValidationError)


def error_info(error: BaseException, doing: str = "a question could not be answered") -> ErrorInfo:
    """The error as text. An error that no user is meant to see is logged, with what was being done."""
    if not isinstance(error, _MEANT):
        log.error("a bug: %s", doing, exc_info=error)
    if isinstance(error, RemoteError):
        return ErrorInfo(error.ename, error.evalue)
    # `str` of a KeyError shows the repr of its text.
    text = error.args[0] if type(error) is KeyError and error.args else error
    return ErrorInfo(type(error).__name__, str(text))


def forgotten_at_restart(store: TaskStore, began: float | None) -> str:
    """What else to say of an unknown task: that a restart of the controller has cost all records."""
    if began is None or store.durable:
        return ""
    return (
        f". The controller was restarted at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began))}, and its "
        f"database ({store.url}) kept nothing across that: what was submitted before is lost. Submit it "
        "again; in SQLite, the default database, tasks outlive a restart"
    )
