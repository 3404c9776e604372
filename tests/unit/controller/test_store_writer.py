"""The thread that writes to the store: whoever asks it something gets an answer, also at the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import wait_until
from support.entries import finished

from engineroom.config import RetentionSettings
from engineroom.controller.storage import pending
from engineroom.controller.storage import store_writer as module
from engineroom.controller.storage.housekeeping import Housekeeping
from engineroom.controller.storage.pending import Scope
from engineroom.controller.storage.store_writer import StoreWriter
from engineroom.errors import StoreError, StoreFull, StoreRefused
from engineroom.ids import ClientId, Digest, TaskId
from engineroom.messages import Function, TaskDone, TaskSpec
from engineroom.records.entry import Entry
from engineroom.stores import DictDB, SQLiteDB, TaskStore

ENTRY = Entry(TaskSpec(TaskId("c-0"), None, b"", 0.0), ClientId("c"))


class Failing(DictDB):
    """Takes nothing, and says so once it is let; of a disk with 100 MB of room."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def write(self, entries: Sequence[Entry]) -> None:
        self.asked.set()
        assert self.go_on.wait(20)
        raise StoreError("no room")

    def room(self) -> int:
        return 100_000_000


def test_questions_after_the_end_are_answered() -> None:
    writer = StoreWriter(DictDB(), lambda tokens: None)
    writer.flush()
    writer.close()
    with pytest.raises(StoreError, match="is stopping"):
        writer.call(lambda store: None).result(20)
    with pytest.raises(StoreError, match="is stopping"):
        writer.recorded(Scope()).result(20)


@pytest.mark.fault(19)
def test_questions_are_answered_when_the_store_fails_at_the_end() -> None:
    store = Failing()
    writer = StoreWriter(store, lambda tokens: None)
    writer.put([ENTRY])
    assert store.asked.wait(20)
    late = writer.call(lambda store: None)  # comes while the last attempt to write is under way
    closing = threading.Thread(target=writer.close)
    closing.start()
    while not writer._closing:
        threading.Event().wait(0.001)
    store.go_on.set()
    closing.join(20)
    assert not closing.is_alive()
    with pytest.raises(StoreError):
        late.result(20)


def test_what_waits_to_be_written_takes_room() -> None:
    """Tasks come faster than a disk takes them; admitted they are only if all that waits fits, log and file."""
    store = Failing()
    writer = StoreWriter(store, lambda tokens: None, RetentionSettings(min_free=10_000_000))
    assert writer.refusal(40_000_000) is None
    assert "this would take 100.0 MB" in str(writer.refusal(50_000_000))
    writer.put([msgspec.structs.replace(ENTRY, frames=[bytes(20_000_000)])])
    assert store.asked.wait(20)
    assert writer.refusal(20_000_000) is None  # it is being written …
    assert isinstance(writer.refusal(30_000_000), StoreFull)
    writer.put([msgspec.structs.replace(ENTRY, result_frames=[bytes(20_000_000)])])
    assert isinstance(writer.refusal(20_000_000), StoreFull)  # … and more waits
    assert writer.refusal() is None
    store.go_on.set()
    writer.close()


def test_the_disk_is_asked_rarely_for_its_room_while_there_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk(DictDB):
        free, asked = 100 << 30, 0

        def room(self) -> int:
            self.asked += 1
            return self.free

    now = 1000.0
    monkeypatch.setattr("engineroom.controller.storage.housekeeping.time.monotonic", lambda: now)
    store = Disk()
    keeping = Housekeeping(store, RetentionSettings(min_free=10_000_000))
    for _ in range(100):
        assert keeping.refusal() is None
    assert store.asked == 1
    store.free = 1_000_000
    now += 1.0
    assert isinstance(keeping.refusal(), StoreFull)
    store.free = 100_000_000  # there is room again, and not plenty
    assert keeping.refusal() is None
    store.free = 1_000_000
    assert isinstance(keeping.refusal(), StoreFull)
    assert store.asked == 4


def test_others_are_written_between_the_pieces_of_a_change() -> None:
    store = DictDB()
    acknowledged: list[Any] = []
    writer = StoreWriter(store, acknowledged.extend)

    def pieces(store: TaskStore) -> Iterator[int]:
        yield 2
        writer.put([ENTRY], ["written"])
        while "written" not in acknowledged:
            yield 0
        yield 3

    changed = writer.change(pieces)
    assert changed.result(20) == 5
    assert acknowledged == ["written"]
    writer.close()


def test_a_change_that_fails_says_so_and_one_that_is_not_complete_at_the_end_too() -> None:
    writer = StoreWriter(DictDB(), lambda tokens: None)

    def fails(store: TaskStore) -> Iterator[int]:
        yield 1
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        writer.change(fails).result(20)

    def goes_on(store: TaskStore) -> Iterator[int]:
        while True:
            yield 0

    endless = writer.change(goes_on)
    writer.flush()
    writer.close()
    with pytest.raises(StoreError, match="is stopping; a part of the change was made"):
        endless.result(20)
    with pytest.raises(StoreError, match="is stopping"):
        writer.change(goes_on).result(20)


def test_space_that_an_earlier_life_left_is_given_back(tmp_path: Path) -> None:
    """A controller that is stopped after a purge leaves an empty file behind, of its full size."""
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(f"t{n}", buffers=(random.randbytes(200 << 10),)) for n in range(120)])
    store.drop_matching_records({})
    store.close()
    assert store.path.stat().st_size > 20 << 20
    store = SQLiteDB(tmp_path / "tasks.db")
    writer = StoreWriter(store, lambda tokens: None)
    wait_until(lambda: store.path.stat().st_size < 1 << 20)
    writer.close()
    store.close()


# ---------------------------------------------------------------------------------------- records that do not fit


class Choosy(DictDB):
    """Cannot hold some records, each for another reason."""

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.spec.engine == 2**63:
                raise StoreRefused("too large a number")
            if entry.done is not None and entry.done.status == "strange":
                raise KeyError("strange")
        super().write(entries)


def entry(number: int, **changes: object) -> Entry:
    id = TaskId(f"c-{number}")
    return Entry(msgspec.structs.replace(ENTRY.spec, id=id, function=b"", **changes), ClientId("c"))


def test_a_record_that_does_not_fit_ends_its_task_and_no_other() -> None:
    refused: list[tuple[Entry, StoreRefused]] = []
    tokens: list[object] = []
    writer = StoreWriter(Choosy(), tokens.extend, on_refused=refused.extend)
    strange = entry(70)
    strange.done = TaskDone(strange.spec.id, 1, "strange", 1.0, 2.0)  # type: ignore[arg-type]
    writer.put([*map(entry, range(50)), entry(60, engine=2**63), strange, *map(entry, range(100, 150))], ["token"])
    writer.flush()
    assert {entry.spec.id: type(error) for entry, error in refused} == {"c-60": StoreRefused, "c-70": StoreRefused}
    assert tokens == ["token"], "the others are acknowledged"
    assert writer.refusal() is None
    assert writer.store.count({}) == 102
    records = writer.store.find_records({"state": "failed"})
    assert {record["msg_id"] for record in records} == {"c-60", "c-70"}
    assert {record["result_content"]["ename"] for record in records} == {"StoreRefused"}
    writer.close()


@pytest.mark.fault(15)
def test_a_store_with_a_bug_ends_no_task() -> None:
    class Broken(DictDB):
        works = False

        def write(self, entries: Sequence[Entry]) -> None:
            if not self.works:
                raise ZeroDivisionError
            super().write(entries)

    refused: list[tuple[Entry, StoreRefused]] = []
    store = Broken()
    writer = StoreWriter(store, lambda tokens: None, on_refused=refused.extend)
    writer.put([entry(1), entry(2)])
    with pytest.raises(StoreError, match="ZeroDivisionError"):
        writer.flush()
    store.works = True
    while store.count({}) < 2:
        threading.Event().wait(0.001)
    assert refused == []
    writer.close()


def test_a_function_that_does_not_fit_keeps_nobody_waiting() -> None:
    class Choosy(DictDB):
        def add_functions(self, functions: Sequence[Function]) -> None:
            if any(function.name == "bad" for function in functions):
                raise StoreRefused("no such name")
            super().add_functions(functions)

    writer = StoreWriter(Choosy(), lambda tokens: None)
    writer.put([entry(1)], functions=[Function(Digest(b"1"), b"p", "bad"), Function(Digest(b"2"), b"p", "good")])
    writer.flush()
    assert writer.store.get_function(Digest(b"2")).name == "good"
    writer.close()


@pytest.mark.fault(15)
def test_a_bug_in_the_writers_thread_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    told = threading.Event()

    def once(tokens: list[object]) -> None:
        if not told.is_set():
            told.set()
            raise ZeroDivisionError

    writer = StoreWriter(DictDB(), once)
    writer.put([entry(1)], ["token"])
    assert told.wait(20)
    writer.put([entry(2)])
    writer.flush()
    assert writer.store.count({}) == 2
    writer.close()


# ---------------------------------------------------------------------------------------- questions during a flood


class Gate(DictDB):
    """Writes a group each time it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Semaphore(0)
        self.written: list[int] = []

    def write(self, entries: Sequence[Entry]) -> None:
        assert self.go_on.acquire(timeout=30)
        self.written.append(len(entries))
        super().write(entries)


def of_client(client: str, number: int) -> list[Entry]:
    return [
        Entry(msgspec.structs.replace(ENTRY.spec, id=TaskId(f"{client}-{n}"), function=b""), ClientId(client))
        for n in range(number)
    ]


def test_a_question_waits_for_its_own_clients_tasks_and_not_for_the_flood_of_another() -> None:
    store = Gate()
    writer = StoreWriter(store, lambda tokens: None)
    writer.put(of_client("flood", 100_000))
    wait_until(lambda: bool(writer._under_way))
    writer.put(of_client("asker", 3))
    recorded = writer.recorded(Scope(ClientId("asker")))
    store.go_on.release(2)  # what was under way, and the question's group
    assert recorded.result(30) is None
    assert store.count({"msg_id": {"$regex": "^asker-"}}) == 3
    assert sum(store.written) < 10_000
    store.go_on.release(1000)
    writer.close()
    assert store.count({}) == 100_003


def test_a_question_about_recorded_tasks_does_not_wait_at_all() -> None:
    store = Gate()
    writer = StoreWriter(store, lambda tokens: None)
    writer.put(of_client("asker", 1))
    store.go_on.release()
    writer.flush()
    writer.put(of_client("flood", 10_000))
    wait_until(lambda: bool(writer._under_way))
    assert writer.recorded(Scope(tasks=[TaskId("asker-0")])).done()
    assert store.written == [1]
    waiting = writer.recorded(Scope(tasks=[TaskId("flood-9999")]))
    assert not waiting.done(), "this one is not recorded yet"
    store.go_on.release(1000)
    assert waiting.result(30) is None
    writer.close()


def test_a_task_that_is_held_back_is_written_for_a_question_about_it() -> None:
    class Holding(DictDB):
        hold_seconds = 1000.0

    store = Holding()
    writer = StoreWriter(store, lambda tokens: None)
    writer.put(of_client("a", 1))
    wait_until(lambda: writer._backlog.holds([TaskId("a-0")]))
    writer.recorded(Scope(tasks=[TaskId("a-0")])).result(30)
    assert store.count({}) == 1
    writer.put(of_client("b", 1))
    wait_until(lambda: writer._backlog.holds([TaskId("b-0")]))
    writer.recorded(Scope(ClientId("b"))).result(30)
    assert store.count({}) == 2
    writer.close()


def test_a_task_that_has_ended_meanwhile_is_written_once_however_many_wait_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writer has taken them over as pending; then their outcomes come, more of them than a group may hold."""

    class Holding(DictDB):
        hold_seconds = 1000.0
        written: list[bool] = []

        def write(self, entries: Sequence[Entry]) -> None:
            self.written += [entry.done is not None for entry in entries]
            super().write(entries)

    monkeypatch.setattr(pending, "FEW", 10)
    store = Holding()
    writer = StoreWriter(store, lambda tokens: None)
    tasks = of_client("a", 35)
    writer.put(tasks)
    wait_until(lambda: len(writer._backlog) == 35)
    done = [TaskDone(entry.spec.id, 1, "ok", 1.0, 2.0) for entry in tasks[:30]]
    with writer._condition:  # all of it has come before the writer looks
        writer.put([msgspec.structs.replace(entry, done=one) for entry, one in zip(tasks, done, strict=False)])
        asked = writer.recorded(Scope(ClientId("a")))
    asked.result(30)
    assert (store.count({}), store.count({"completed": None})) == (35, 5)
    assert (store.written.count(True), store.written.count(False)) == (30, 5)
    writer.close()


def test_nothing_gathers_while_more_is_left_than_one_group_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these entries fills a group: the writer writes them one after the other, at once."""
    monkeypatch.setattr(pending, "GROUP_MOST", 1)
    monkeypatch.setattr(module, "GATHER_SECONDS", 600.0)
    writer = StoreWriter(DictDB(), lambda tokens: None)
    writer.put(of_client("c", 20))
    written = writer.call(lambda store: store.count({}))  # this hurries the first group alone
    assert written.result(30) == 20
    writer.close()


def test_a_buffer_that_many_tasks_share_takes_room_once() -> None:
    store = Failing()
    writer = StoreWriter(store, lambda tokens: None, RetentionSettings(min_free=10_000_000))
    shared = bytes(10_000_000)
    writer.put([Entry(one.spec, one.client, (shared,)) for one in of_client("c", 30)])
    assert store.asked.wait(20)
    assert writer.refusal(20_000_000) is None
    store.go_on.set()
    writer.close()


# ---------------------------------------------------------------------------------------------- a store that hangs


class Hanging(DictDB):
    """Does not come back from a write until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def write(self, entries: Sequence[Entry]) -> None:
        self.asked.set()
        assert self.go_on.wait(60)
        super().write(entries)


@pytest.mark.fault(15)
def test_a_store_that_hangs_is_named_and_who_waits_for_records_gets_an_error(caplog: pytest.LogCaptureFixture) -> None:
    store, committed = Hanging(), list[object]()
    writer = StoreWriter(store, committed.extend, hang_seconds=0.2)
    writer.put([ENTRY], ["token"])
    assert store.asked.wait(20)
    writer.put([finished("late")], ["late token"])
    waits = writer.recorded(Scope(ClientId("c")))  # as a query does
    for future in (waits, writer.call(lambda store: None)):
        with pytest.raises(StoreError, match="does not answer: nothing has been written for"):
            future.result(20)
    assert writer.hangs
    assert "the thread that writes to the task database has not turned for" in caplog.text
    assert "test_store_writer.py" in caplog.text, "where it is"
    for future in (writer.recorded(Scope(ClientId("c"))), writer.call(lambda store: None)):
        with pytest.raises(StoreError, match="does not answer"):
            future.result(0)
    with pytest.raises(StoreError, match="does not answer"):
        writer.flush()
    assert committed == []
    store.go_on.set()
    wait_until(lambda: not writer.hangs)
    writer.flush()
    assert committed == ["token", "late token"], "nothing is lost"
    assert writer.close()
    assert "turns again, after" in caplog.text


@pytest.mark.fault(15)
def test_the_end_does_not_wait_for_a_store_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    store = Hanging()
    writer = StoreWriter(store, lambda tokens: None, hang_seconds=0.2)
    writer.put([ENTRY])
    assert store.asked.wait(20)
    writer.put([finished("late")])
    assert not writer.close()
    assert "what is not written is lost: 1 records" in caplog.text
    store.go_on.set()
    writer._thread.join()


def test_a_writer_that_has_nothing_to_do_does_not_hang() -> None:
    writer = StoreWriter(DictDB(), lambda tokens: None, hang_seconds=0.05)
    writer.flush()  # the thread serves, and its watchdog looks
    watchdog = next(thread for thread in threading.enumerate() if thread.name == "watchdog")
    for _ in range(5):
        watchdog.join(0.05)
        assert not writer.hangs
    writer.close()
