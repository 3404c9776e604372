"""Results until the controller has stored them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engineroom.engine import result_buffer
from engineroom.engine.result_buffer import RESULT_BYTES, ResultBuffer
from engineroom.ids import TaskId
from engineroom.messages import AttemptKey, FromEngine, Results, TaskDone
from engineroom.wire import frames


def done(id: str) -> TaskDone:
    return TaskDone(TaskId(id), 1, "ok", 0.0, 1.0, b"result")


def decoded(parts: list[object] | None) -> Results:
    assert parts is not None
    message: FromEngine = frames.decode_from_engine(parts[0])  # type: ignore[arg-type]
    assert isinstance(message, Results)
    return message


def test_results_gather_and_leave_together():
    buffer = ResultBuffer()
    assert buffer.pack() is None
    large = b"x" * 1000
    buffer.add(done("a"), [large])
    buffer.add(done("b"), [large])
    parts = buffer.pack()
    message = decoded(parts)
    assert ([d.id for d in message.tasks], message.number) == (["a", "b"], 1)
    assert parts is not None
    assert parts[1:] == [large], "a buffer of two results travels once"
    assert [d.frames for d in message.tasks] == [(0,), (0,)]
    assert message.peak_memory is not None
    assert message.peak_memory > 1 << 20
    assert buffer.pack() is None


def test_results_are_kept_until_they_are_stored():
    buffer = ResultBuffer()
    for id in "abc":
        buffer.add(done(id), [b"x" * 100])
        buffer.pack()
    buffer.add(done("d"), ())
    assert list(buffer.held()) == [AttemptKey(id, 1) for id in "dabc"]
    assert [decoded(parts).number for parts in buffer.sent()] == [1, 2, 3]
    assert buffer.bytes > 300
    assert buffer.last_stored == 0
    buffer.stored(2)
    assert [decoded(parts).number for parts in buffer.sent()] == [3]
    assert buffer.last_stored == 2
    buffer.stored(1)  # late
    assert buffer.is_awaiting
    buffer.stored(3)
    assert not buffer.is_awaiting
    assert buffer.last_stored == 3
    assert buffer.bytes == 0
    assert list(buffer.held()) == [AttemptKey("d", 1)]


def test_the_peak_memory_is_looked_at_when_tasks_may_have_taken_some(monkeypatch: pytest.MonkeyPatch):
    looks = iter(range(1, 10))
    monkeypatch.setattr(result_buffer.rusage, "getrusage", lambda who: SimpleNamespace(ru_maxrss=next(looks)))
    buffer = ResultBuffer()

    def peak(started: float | None, completed: float) -> int | None:
        buffer.add(TaskDone(TaskId("a"), 1, "ok", started, completed, b""), ())
        message = decoded(buffer.pack())
        return message.peak_memory and message.peak_memory >> 10

    assert peak(5.0, 5.0) == 1
    assert peak(5.01, 5.0105) == 1, "a short task, a moment after the last look"
    assert peak(5.02, 5.03) == 2, "a longer one"
    assert peak(5.2, 5.2) == 3, "some time after the last look"
    assert peak(4.0, 4.0) == 4, "the clock was set back"
    assert peak(None, 4.0) == 5, "it never began"


def full_after(buffer: ResultBuffer) -> int:
    """How many results of 100 bytes make a buffer full."""
    for count in range(1, 1000):
        buffer.add(done(f"t{count}"), [b"x" * 100])
        buffer.pack()
        if buffer.is_full:
            return count
    raise AssertionError("it is never full")


def test_it_is_full_when_its_share_is_used_up():
    buffer = ResultBuffer()
    buffer.limit = 20 * RESULT_BYTES
    assert full_after(buffer) < 20, "a small result weighs more than its bytes"
    buffer.stored(buffer._number)
    assert not buffer.is_full
    buffer.share = 4 * RESULT_BYTES
    assert full_after(buffer) == 4
    buffer.share = 40 * RESULT_BYTES
    assert not buffer.is_full
    buffer.stored(buffer._number)
    assert full_after(buffer) < 20, "a large share does not lift the engine's own limit"
    buffer.stored(buffer._number)
    assert buffer.bytes == 0
