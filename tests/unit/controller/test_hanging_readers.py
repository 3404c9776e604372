"""A thread that reads from the store and hangs is named, its question gets an error, and other readers go on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until

from engineroom.controller.storage.pending import Scope
from engineroom.controller.storage.question_lanes import DONE, QUICK_THREADS
from engineroom.controller.storage.store_reader import StoreReader
from engineroom.errors import StoreError
from engineroom.ids import ClientId
from engineroom.stores import DictDB, TaskStore
from engineroom.stores.query.deadline import Deadline

ALICE, BOB = ClientId("alice"), ClientId("bob")
HANG_SECONDS = 1.0
ERROR = "the task database does not answer: nothing has come of reading from it for 1 s"


class Desk:
    """A reader whose watch is short, a disk that does not answer, and the loop that takes the answers."""

    def __init__(self) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.reader = StoreReader(DictDB(), lambda: None, lambda scope: DONE, self._posted.put, HANG_SECONDS)
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.answers: list[tuple[ClientId | None, str]] = []

    def ask(self, client: ClientId | None, work: Callable[[TaskStore], Any], *, slow: bool = False) -> None:
        def answer(found: Any) -> None:
            self.answers.append((client, str(found)))

        self.reader.read(work, answer, answer, after=Scope(), client=client, slow=slow)

    def hang(self, client: ClientId | None, *, slow: bool = False) -> None:
        """Ask what a disk does not answer, and wait until a thread hangs in it."""
        self.ask(client, self._disk, slow=slow)
        assert self.begun.acquire(timeout=60)

    def _disk(self, store: TaskStore) -> str:
        self.begun.release()
        assert self.go_on.wait(60)
        return "late"

    def wait(self, number: int) -> list[tuple[ClientId | None, str]]:
        while len(self.answers) < number:
            self._posted.get(timeout=60)()
        return self.answers


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.go_on.set()
    wait_until(desk.reader.close)


@pytest.mark.fault(15)
@pytest.mark.parametrize("slow", [False, True])
def test_a_reader_that_hangs_is_named_and_the_others_go_on(
    desk: Desk, slow: bool, caplog: pytest.LogCaptureFixture
) -> None:
    desk.hang(ALICE, slow=slow)
    assert desk.wait(1) == [(ALICE, ERROR)]
    assert f"the thread {'slow-question' if slow else 'question'}-0 that reads from the task database" in caplog.text
    assert "test_hanging_readers.py" in caplog.text, "where it is"
    desk.ask(BOB, lambda store: "bob's")
    assert desk.wait(2)[1] == (BOB, "bob's")
    desk.ask(ALICE, lambda store: "alice's next")
    assert desk.wait(3)[2] == (ALICE, "alice's next")
    desk.go_on.set()
    wait_until(lambda: "turns again, after" in caplog.text)
    desk.ask(None, lambda store: "the controller's")
    assert desk.wait(4)[3] == (None, "the controller's"), "what came late is not an answer"


@pytest.mark.fault(15)
def test_while_all_readers_hang_questions_are_errors_at_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(QUICK_THREADS):
        desk.hang(ClientId(f"client-{number}"))
    for _ in range(1000):
        desk.ask(BOB, lambda store: "never")
    answers = desk.wait(QUICK_THREADS + 1000)
    assert {text for _, text in answers} == {ERROR}
    desk.ask(ALICE, lambda store: "never")
    assert desk.wait(len(answers) + 1)[-1] == (ALICE, ERROR)
    desk.go_on.set()
    wait_until(lambda: caplog.text.count("turns again, after") == QUICK_THREADS)
    count = len(desk.answers)
    desk.ask(BOB, lambda store: "bob's")
    assert desk.wait(count + 1)[-1] == (BOB, "bob's")


@pytest.mark.fault(15)
def test_what_the_controller_itself_reads_is_named_and_waits(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.hang(None)
    wait_until(lambda: "the thread lookup-0 that reads from the task database has not turned for" in caplog.text)
    desk.go_on.set()
    assert desk.wait(1) == [(None, "late")], "no task fails for it"


@pytest.mark.fault(15)
def test_the_end_does_not_wait_for_a_reader_that_hangs(desk: Desk) -> None:
    desk.hang(ALICE)
    assert desk.wait(1) == [(ALICE, ERROR)]
    assert not desk.reader.close()


def test_a_question_that_works_does_not_hang(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    def busy(store: TaskStore) -> str:
        began, until = time.monotonic(), time.thread_time() + 0.1
        while time.thread_time() < until or time.monotonic() < began + 2 * HANG_SECONDS:
            pass
        return "found"

    desk.ask(ALICE, busy)
    assert desk.wait(1) == [(ALICE, "found")]
    assert "has not turned" not in caplog.text


def test_a_server_has_its_time(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    waited = threading.Event()

    def elsewhere(store: TaskStore) -> str:
        assert Deadline(60).left_elsewhere() > 0
        assert not waited.wait(2 * HANG_SECONDS)
        return "found"

    desk.ask(ALICE, elsewhere, slow=True)
    assert desk.wait(1) == [(ALICE, "found")]
    assert "has not turned" not in caplog.text


def test_the_error_is_a_store_error(desk: Desk) -> None:
    failed: list[Exception] = []
    desk.reader.read(desk._disk, lambda found: None, failed.append, after=Scope(), client=ALICE)
    while not failed:
        desk._posted.get(timeout=60)()
    assert isinstance(failed[0], StoreError)
