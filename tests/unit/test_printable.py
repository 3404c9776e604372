"""Text from other processes does not steer a terminal."""

from __future__ import annotations

import logging

import pytest

from engineroom.cli.base import log_to_stderr
from engineroom.client.connection.channel import _notice
from engineroom.client.connection.requests import error_of
from engineroom.client.results.ending import task_error
from engineroom.controller.intake import _bad_id
from engineroom.controller.presence.membership import _cause_of_death
from engineroom.errors import ProtocolError
from engineroom.ids import Digest, EngineUuid, TaskId
from engineroom.messages import EngineDied, ErrorInfo, Hello, Refused, TaskSpec
from engineroom.printable import CLEARED, CLEARED_BY_NEXT, left_after_clearing, one_line, printable
from engineroom.wire import frames
from engineroom.wire.session import refusal_error

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


def test_a_log_line_cannot_look_like_two(capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log_to_stderr("INFO")
        logging.getLogger("engineroom").warning("engine 3 died: %s", "why\n2026-01-01 00:00:00,000 I all is well")
    finally:
        root.handlers[:], root.level = handlers, level
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("engine 3 died: why")
    assert second.startswith("    2026")


@pytest.mark.parametrize("evil", [*EVIL[:-1], "\n"], ids=ascii)
def test_the_name_of_a_peer_holds_nothing_that_steers(evil: str):
    hello = Hello(1, "client", "", "uuid", 1, f"host{evil}")
    with pytest.raises(ProtocolError):
        frames.decode_from_unknown(frames.encode(hello))


def test_names_of_hosts_in_any_script_are_taken():
    hello = Hello(1, "client", "", "uuid", 1, "naïve-漢字.example")
    assert frames.decode_from_unknown(frames.encode(hello)) == hello


@pytest.mark.parametrize("evil", EVIL[:-1], ids=ascii)
def test_errors_that_quote_other_processes_do_not_steer(evil: str):
    said = f"before{evil}after"
    errors = [
        refusal_error(Refused("authentication", said), "tcp://host"),
        refusal_error(Refused("protocol", said), "tcp://host"),
        error_of(ErrorInfo("UnknownTask", said)),
        error_of(ErrorInfo("KeyError", said)),
        error_of(ErrorInfo("Strange", said)),
        task_error(ErrorInfo("EngineError", said, stopped=True), made_by_engine=True),
        task_error(ErrorInfo("TaskAborted", said), made_by_engine=False),
    ]
    for error in errors:
        assert "before" in str(error)
        assert not set(evil) & set(str(error)) - set("[2J"), type(error)


@pytest.mark.parametrize("id", ["a\n1", "a\x1b[2J", "a\u202e", "é", "a" * 257], ids=ascii)
def test_the_id_of_a_task_is_plain(id: str):
    assert _bad_id([TaskSpec(TaskId(id), Digest(b""), b"", 0.0)]) is not None
    assert _bad_id([TaskSpec(TaskId("0f92b06ce33cc95e-3"), Digest(b""), b"", 0.0)]) is None


def test_the_reason_of_a_peer_is_one_short_line():
    died = EngineDied(EngineUuid("e"), 1, 0, None, False, "it\nwas\x9b \u202eme" + "!" * 10_000)
    cause = _cause_of_death(died)
    assert cause.startswith("it was me")
    assert len(cause) <= 1000


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        ("a\n", "a\n"),
        (f"a\n{CLEARED}b\n", "b\n"),
        (f"a\n{CLEARED_BY_NEXT}b\n", "b\n"),
        (f"a\n{CLEARED}", ""),
        (f"a\n{CLEARED_BY_NEXT}", "a\n"),
        (f"a\n{CLEARED}b\n{CLEARED_BY_NEXT}", "b\n"),
        (f"{CLEARED_BY_NEXT}{CLEARED_BY_NEXT}", ""),
        ("50 %\r\x1b[2K51 %", "50 %\r\x1b[2K51 %"),
        ("", ""),
    ],
)
def test_what_is_left_after_clearing(printed: str, left: str):
    assert left_after_clearing(printed) == left
