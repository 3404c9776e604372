"""Text from other processes, made harmless for a terminal and a log.

Control characters steer a terminal: C0 and C1 codes move the cursor or begin escape sequences. Characters that change
the direction of writing show a text in another order than it has.
"""

from __future__ import annotations

import unicodedata
from typing import Any

#: What `clear_output` of IPython puts into the text that a task prints: all before it is to be cleared, now, or when
#: more is printed. A terminal erases its line, as it does at IPython's own mark; hardly a program prints just this.
CLEARED, CLEARED_BY_NEXT = "\033[2K\r\033[0K", "\033[2K\r\033[1K"

#: Joiners, which many scripts and emoji need: they are format characters, and steer nothing.
_JOINERS = "\u200c\u200d"


def one_line(value: Any) -> str:
    """Any value in one line; control and format characters become spaces or are left out."""
    text = value if isinstance(value, str) else str(value)
    return "".join(c for c in " ".join(text.split()) if c in _JOINERS or unicodedata.category(c)[0] != "C")


def printable(text: str) -> str:
    """Text of several lines without control and format characters other than newline and tab."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or c in _JOINERS or unicodedata.category(c)[0] != "C")


def last_cleared(text: str) -> int:
    """Where in the text of a task its last mark of a `clear_output` begins; -1: there is none."""
    return max(text.rfind(CLEARED), text.rfind(CLEARED_BY_NEXT))


def left_after_clearing(text: str) -> str:
    """What a notebook would show of the text of a task that calls `clear_output`."""
    while text.endswith(CLEARED_BY_NEXT):  # nothing came next
        text = text.removesuffix(CLEARED_BY_NEXT)
    at = last_cleared(text)
    return text if at < 0 else text[at + len(CLEARED) :]
