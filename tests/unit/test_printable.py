"""Text from other processes does not steer a terminal."""

from __future__ import annotations

import logging

import pytest

from engineroom.cli.base import log_to_stderr
from engineroom.client.connection.channel import _notice
from engineroom.printable import one_line, printable

EVIL = ("\x1b[2J", "\x9b2J", "\x85", "\x07", "\u202e", "\u202d", "\u2066", "\u2067", "\u200f", "\u061c", "\ud800")


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
@pytest.mark.parametrize("sanitised", [one_line, printable])
def test_nothing_steers_the_terminal(sanitised, evil: str):
    shown = sanitised(f"before{evil}after")
    assert shown.startswith("before")
    assert shown.endswith("after")
    assert not set(evil) & set(shown) - set("[2J")


def test_what_people_write_stays():
    text = "naïve 漢字 👩\u200d👩 ‏".rstrip("\u200f")
    assert printable(text) == text
    assert printable("two\n\tlines") == "two\n\tlines"
    assert one_line(" two\n\tlines ") == "two lines"


def test_notices_of_a_client_are_sanitised(capsys: pytest.CaptureFixture[str]):
    _notice("the controller says \x1b[2J\u202e")
    assert capsys.readouterr().err == "engineroom: the controller says [2J\n"


def test_log_lines_are_sanitised(capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log_to_stderr("INFO")
        logging.getLogger("engineroom.test").warning("engine died: %s", "\x9b2J\u202e\x1b]0;title")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert capsys.readouterr().err.endswith("engine died: 2J]0;title\n")
