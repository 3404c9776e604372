"""An exception as an `ErrorInfo`: the text that a client gets."""

from __future__ import annotations

import logging

import msgspec

from ..errors import EngineroomError, RemoteError
from ..messages import ErrorInfo

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
