"""Text from other processes, made harmless for a terminal and a log.

Control characters steer a terminal: C0 and C1 codes move the cursor or begin escape sequences. Characters that change
the direction of writing show a text in another order than it has.
"""

from __future__ import annotations

import unicodedata
from typing import Any

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
