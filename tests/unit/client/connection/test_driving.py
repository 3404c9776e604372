"""Which thread drives a client's connection."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engineroom.client.connection.driving import Driver
from engineroom.client.connection.waiters import IOThread, is_delivering
from engineroom.testing import MemoryNetwork


class Driven:
    """Notes which thread takes which message in, and which thread sends what is queued."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.link = self.network.link(b"client")
        self.is_closing = False
        self.queued: list[str] = []
        self.came: list[tuple[str, bytes]] = []
        self.sent: list[tuple[str, str]] = []
        self.turns: list[str] = []
        self.raises: BaseException | None = None
        self.bugs: list[Exception] = []
        self.tears = 0

    def say(self, text: bytes) -> None:
        """As the controller."""
        self.network.listener.send(b"client", [text])

    def has_work(self) -> bool:
        return bool(self.queued)

    def turn(self) -> int:
        assert is_delivering()
        self.turns.append(me())
        arrived = self.link.receive()
        if arrived and self.raises is not None:
            raised, self.raises = self.raises, None
            raise raised
        self.came += [(me(), bytes(frames[0])) for frames in arrived]
        self.flush()
        return len(arrived)

    def flush(self) -> None:
        assert is_delivering()
        while self.queued:
            self.sent.append((me(), self.queued.pop(0)))

    def pause(self) -> tuple[float, bool]:
        return 20.0, True

    def next_sign(self) -> float:
        return time.monotonic() + 20.0

    def broken(self, error: Exception) -> None:
        self.bugs.append(error)

    def cut_off(self) -> None:
        self.tears += 1


def me() -> str:
    return threading.current_thread().name


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def driven() -> Driven:
    return Driven()


@pytest.fixture
def driver(driven: Driven) -> Iterator[Driver]:
    """With an I/O thread that sleeps."""
    driver = Driver(driven, driven.link)

    def run() -> None:
        while not driven.is_closing:
            driver.turn()
        driver.stop_sharing()

    thread = IOThread(target=run, name="I/O")
    thread.start()
    until(lambda: driver.is_asleep)
    yield driver
    driven.is_closing = True
    driver.wake()
    thread.join(20)
    assert not thread.is_alive()
    driver.close()
    driven.link.close()
    driven.network.listener.close()


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, name="other")
    thread.start()
    return thread, found


def test_a_thread_that_waits_takes_in_the_result_itself_and_the_io_thread_sleeps_on(driven: Driven, driver: Driver):
    thread, found = in_thread(lambda: driver.drive(lambda: len(driven.came) == 2, 20))
    until(lambda: driver._is_taken)
    turns = len(driven.turns)
    driven.say(b"a")
    driven.say(b"b")
    thread.join()
    assert found == [True]
    assert driven.came == [("other", b"a"), ("other", b"b")]
    assert set(driven.turns[turns:]) == {"other"}
    driven.say(b"c")
    until(lambda: driven.came[2:] == [("I/O", b"c")])


def test_the_time_limit_holds(driven: Driven, driver: Driver):
    assert driver.drive(lambda: False, 0.01) is True
    assert driver.drive(lambda: False, 0.0) is True
    assert not is_delivering()


def test_one_thread_at_a_time_and_it_sends_what_others_queue(driven: Driven, driver: Driver):
    thread, found = in_thread(lambda: driver.drive(lambda: bool(driven.came), 20))
    until(lambda: driver._is_taken)
    driven.queued.append("a question")
    assert driver.send_now() is False
    driver.wake()
    until(lambda: driven.sent == [("other", "a question")])
    driven.queued.append("another")
    assert driver.drive(lambda: True, 20) is False, "and it wakes the other for what is queued"
    until(lambda: driven.sent[1:] == [("other", "another")])
    driven.say(b"answer")
    thread.join()
    assert found == [True]


def test_what_is_queued_is_sent_by_the_thread_that_asks(driven: Driven, driver: Driver):
    driven.queued.append("task")
    assert driver.send_now() is True
    assert driven.sent == [(me(), "task")]
    assert not is_delivering()


def test_a_thread_that_takes_in_results_does_not_drive_a_second_time(driven: Driven, driver: Driver):
    inner: list[bool] = []

    def ready() -> bool:
        if is_delivering():
            inner.append(driver.drive(lambda: True, 20))
            inner.append(driver.send_now())
        return True

    assert driver.drive(ready, 20) is True
    assert inner
    assert set(inner) == {False}


def test_a_bug_is_told_and_the_io_thread_goes_on(driven: Driven, driver: Driver):
    driven.raises = ZeroDivisionError()
    thread, found = in_thread(lambda: driver.drive(lambda: False, 20))
    until(lambda: driver._is_taken)
    driven.say(b"x")
    thread.join()
    assert found == [False]
    assert [type(bug) for bug in driven.bugs] == [ZeroDivisionError]
    driven.say(b"y")
    until(lambda: driven.came == [("I/O", b"y")])


def test_an_exception_from_outside_is_told_and_goes_on(driven: Driven, driver: Driver):
    driven.raises = SystemExit()
    thread, found = in_thread(lambda: driver.drive(lambda: False, 20))
    until(lambda: driver._is_taken)
    driven.say(b"x")
    thread.join()
    assert [type(error) for error in found] == [SystemExit]
    assert (driven.tears, driven.bugs) == (1, [])
    driven.say(b"y")
    until(lambda: driven.came == [("I/O", b"y")])


def test_closing_ends_the_drive(driven: Driven, driver: Driver):
    thread, found = in_thread(lambda: driver.drive(lambda: False, None))
    until(lambda: driver._is_taken)
    driven.is_closing = True
    driver.wake()
    thread.join(20)
    assert found == [False]
    assert driver.drive(lambda: True, 20) is False


# ---------------------------------------------------------------------------------------------- signals


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.fault(3)
def test_ctrl_c_cuts_nothing_off_and_then_raises(driven: Driven, driver: Driver):
    seen: list[bool] = []

    def interrupt() -> None:
        until(lambda: driver._is_taken)
        os.kill(os.getpid(), signal.SIGINT)

    def ready() -> bool:
        seen.append(True)
        return False

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        driver.drive(ready, 20)
    thread.join()
    assert seen
    assert driven.tears == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not is_delivering()
    driven.say(b"y")
    until(lambda: driven.came == [("I/O", b"y")])


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1])
def test_other_handlers_are_called_in_between_and_the_wait_goes_on(driven: Driven, driver: Driver, number: int):
    called: list[int] = []
    before = signal.signal(number, lambda number, frame: called.append(number))
    handler = signal.getsignal(number)

    def interrupt() -> None:
        for count in (1, 2):
            until(lambda: driver._is_taken)
            os.kill(os.getpid(), number)
            until(lambda count=count: len(called) == count)  # type: ignore[misc]
        until(lambda: driver._is_taken)
        driven.say(b"x")

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        assert driver.drive(lambda: bool(driven.came), 20) is True
        thread.join()
        assert signal.getsignal(number) is handler
        assert driven.came == [(me(), b"x")]
    finally:
        signal.signal(number, before)


def test_other_threads_hold_no_signals_back(driven: Driven, driver: Driver):
    handler = signal.getsignal(signal.SIGINT)
    thread, found = in_thread(lambda: driver.drive(lambda: signal.getsignal(signal.SIGINT) is handler, 20))
    thread.join()
    assert found == [True]
