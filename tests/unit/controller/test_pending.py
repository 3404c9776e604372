"""What the writer takes next: little at a time, and first what somebody asks about."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from engineroom.controller.storage import pending as module
from engineroom.controller.storage.pending import Group, Pending, Scope
from engineroom.ids import ClientId, Digest, EngineId, TaskId
from engineroom.messages import TaskDone, TaskSpec
from engineroom.records.entry import Entry


def entry(id: str, *, ended: bool = False, size: int = 0) -> Entry:
    """A task of the client that its id begins with."""
    spec = TaskSpec(TaskId(id), Digest(b"f"), b"", 1.0)
    done = TaskDone(spec.id, 1, "ok", 1.0, 2.0) if ended else None
    return Entry(spec, ClientId(id.partition("-")[0]), (bytes(size),) if size else (), done)


def many(client: str, number: int, start: int = 0) -> list[Entry]:
    return [entry(f"{client}-{n}") for n in range(start, start + number)]


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> Pending:
    monkeypatch.setattr(module, "GROUP_MOST", 10)
    monkeypatch.setattr(module, "FEW", 4)
    return Pending()


def ids(group: Group) -> list[str]:
    return list(group.entries)


def test_a_group_is_limited_and_tokens_come_with_the_last_entry_before_them(pending: Pending) -> None:
    pending.add(many("a", 8), ["eight"])
    pending.add(many("a", 8, 8), ["sixteen"])
    first, second = pending.take(), pending.take()
    assert (len(first.entries), first.tokens, first.is_all) == (10, ["eight"], False)
    assert (len(second.entries), second.tokens, second.is_all) == (6, ["sixteen"], True)
    assert not pending


def test_a_call_comes_after_everything_before_it(pending: Pending) -> None:
    future: Future[Any] = Future()
    pending.add(many("a", 15), ())
    pending.call((lambda store: None, future))
    pending.add(many("a", 1, 15), ())
    assert pending.take().calls == []
    assert [call[1] for call in pending.take().calls] == [future]


def test_a_later_entry_takes_the_place_of_an_earlier_one(pending: Pending) -> None:
    pending.add(many("a", 12), ["submitted"])
    pending.add([entry("a-0", ended=True)], ["ended"])
    first = pending.take()
    assert first.entries[TaskId("a-0")].done is not None
    assert first.tokens == []
    assert pending.take().tokens == ["submitted", "ended"]


def test_a_question_does_not_wait_for_what_others_have_pending(pending: Pending) -> None:
    """Of 1,000 entries a handful is written before the question of another client is answered."""
    pending.add(many("flood", 1000), ())
    pending.add(many("asker", 2), ["asked"])
    question = pending.ask(Scope(ClientId("asker")))
    pending.add(many("asker", 1, 2), ())  # this came later
    group = pending.take()
    assert group.questions == [question]
    assert ids(group) == ["asker-0", "asker-1", "flood-0", "flood-1"]
    assert group.tokens == [], "the tokens wait for all that came before them"


def test_a_question_sees_everything_that_came_before_it_while_that_is_little(pending: Pending) -> None:
    pending.add(many("other", 3), ["t"])
    question = pending.ask(Scope(ClientId("asker")))
    group = pending.take()
    assert ids(group) == ["other-0", "other-1", "other-2"]
    assert (group.questions, group.tokens, group.is_all) == ([question], ["t"], True)
    assert not pending


def test_a_question_waits_for_all_of_its_own_client(pending: Pending) -> None:
    pending.add([*many("other", 100), *many("asker", 10)], ())
    question = pending.ask(Scope(ClientId("asker")))
    answered: list[str] = []
    for _ in range(20):
        group = pending.take()
        answered += ids(group)
        if group.questions:
            break
    assert group.questions == [question]
    assert {f"asker-{n}" for n in range(10)} <= set(answered)
    assert len(answered) < 30


def test_questions_of_two_clients_share_a_group(pending: Pending) -> None:
    pending.add([*many("a", 50), *many("b", 2)], ())
    pending.ask(Scope(ClientId("a")))
    of_b = pending.ask(Scope(ClientId("b")))
    group = pending.take()
    assert group.questions == [of_b]
    assert ids(group) == ["a-0", "a-1", "b-0", "b-1"]


def test_a_question_about_tasks_takes_these_alone_before_the_oldest(pending: Pending) -> None:
    pending.add(many("a", 100), ())
    question = pending.ask(Scope(tasks=[TaskId("a-70"), TaskId("a-80"), TaskId("gone-1")]))
    group = pending.take()
    assert ids(group) == ["a-70", "a-80", "a-0", "a-1"]
    assert group.questions == [question]
    assert pending.has([TaskId("a-99")])
    assert not pending.has([TaskId("a-70")])


def test_what_the_store_did_not_take_is_the_first_again_and_later_entries_win(pending: Pending) -> None:
    pending.add(many("a", 12), ["t"])
    group = pending.take()
    pending.add([entry("a-0", ended=True)], ())
    pending.give_back(group.entries, ["given back"])
    again = pending.take()
    assert ids(again) == [f"a-{n}" for n in range(10)]
    assert again.entries[TaskId("a-0")].done is not None
    assert again.tokens == ["given back"]
    assert pending.take().tokens == ["t"]


def test_nobody_who_waits_is_forgotten(pending: Pending) -> None:
    future: Future[Any] = Future()
    pending.add(many("a", 100), ())
    pending.call((lambda store: None, future))
    question = pending.ask(Scope(ClientId("a")))
    pending.take()
    assert set(pending.drop_futures()) == {future, question.future}
    assert pending.drop_futures() == []


def test_a_group_of_large_buffers_ends_sooner(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 100)
    pending.add([entry(f"a-{n}", size=60) for n in range(4)], ())
    assert ids(pending.take()) == ["a-0", "a-1"]


def test_a_buffer_that_many_tasks_share_is_counted_once(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map over one large array: each task has it, and it is written once."""
    monkeypatch.setattr(module, "GROUP_BYTES", 1000)
    shared = bytes(600)
    pending.add([Entry(one.spec, one.client, (shared,)) for one in many("a", 5)], ())
    pending.add([entry("a-5", size=600), entry("a-6", size=600)], ())
    assert ids(pending.take()) == ["a-0", "a-1", "a-2", "a-3", "a-4", "a-5"]
    assert ids(pending.take()) == ["a-6"]


def test_direct_tasks_that_come_before_the_one_asked_about_are_taken_with_it(pending: Pending) -> None:
    def direct(id: str, engine: int = 0) -> Entry:
        made = entry(id)
        made.spec.engine = EngineId(engine)
        return made

    pending.add([direct("a-1"), direct("a-2", 1), direct("b-1"), direct("a-3"), direct("a-4")], ())
    pending.add(many("z", 20), ())
    pending.ask(Scope(tasks={TaskId("a-3"), TaskId("z-7")}))
    taken = ids(pending.take())
    assert taken[:3] == ["a-1", "a-3", "z-7"]
