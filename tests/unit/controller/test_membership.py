"""Engines that fall silent without a nanny that would tell why: they are lost, and let in again when they come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from peers_and_time import CODE, SILENCE, World, task

from engineroom.config import SchedulerSettings
from engineroom.controller.presence import membership, peers
from engineroom.controller.presence.roster import Listed, Roster
from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, NannyId, TaskId
from engineroom.messages import (
    AttemptKey,
    Cancel,
    EngineDied,
    Engines,
    Function,
    Goodbye,
    Ping,
    Pong,
    Recall,
    Results,
    Run,
    Starting,
    Submit,
    TaskDone,
    TaskSpec,
    Welcome,
)
from engineroom.records.entry import Entry
from engineroom.stores import DictDB
from engineroom.wire.functions import digest_of


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_a_silent_engine_without_a_nanny_is_lost_and_its_tasks_go_to_others(world: World) -> None:
    client, silent = world.peer("client", "me"), world.peer("engine", "silent")
    world.turns(lambda: world.engines)
    client.say(Submit(1, [task(0)], [CODE]))
    world.turns(lambda: silent.all(Run))
    other = world.peer("engine", "other")
    world.turns(lambda: len(world.engines) == 2)
    world.pass_time(SILENCE - 1, client, other)
    assert len(world.engines) == 2
    world.pass_time(3, client, other)
    assert world.engines == [1]
    world.turns(lambda: other.all(Run))
    assert other.all(Run)[0].attempts == [2]

    # It comes back, with a result of the attempt that was given away.
    silent.heard.clear()
    silent.say(Ping(1))
    world.turns(lambda: silent.all(Pong))
    assert not silent.all(Pong)[0].known
    silent.hello(wish=EngineId(0), held=[AttemptKey(TaskId("me-0"), 1)])
    world.turns(lambda: silent.all(Cancel))
    assert silent.all(Welcome)[0].engine == 0, "it has its number again"
    assert silent.all(Cancel)[0].tasks == ["me-0"]
    silent.say(Results([TaskDone(TaskId("me-0"), 1, "ok", 1.0, 2.0, b"late")], 1))
    world.turns()
    assert not client.all(Results)
    other.say(Results([TaskDone(TaskId("me-0"), 2, "ok", 1.0, 2.0, b"in time")], 1))
    world.turns(lambda: client.all(Results))
    assert [done.payload for message in client.all(Results) for done in message.tasks] == [b"in time"]
    client.say(Submit(2, [task(1), task(2)]))
    silent.heard.clear()
    world.turns(lambda: silent.all(Run))


def test_so_many_functions_are_known_to_be_with_an_engine_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "MOST_FUNCTIONS", 2)
    codes = [Function(digest_of(b"%d" % number), b"%d" % number, "f") for number in range(3)]
    client, engine = world.peer("client", "me"), world.peer("engine", "engine")
    world.turns(lambda: world.engines)

    def sent_with(number: int, code: Function) -> list[bytes]:
        spec = TaskSpec(TaskId(f"me-{number}"), Digest(code.digest), b"", 0.0)
        engine.heard.clear()
        client.say(Submit(number + 1, [spec], [code]))
        world.turns(lambda: engine.all(Run))
        engine.say(Results([TaskDone(spec.id, 1, "ok", 1.0, 2.0, b"")], number + 1))
        return [function.payload for run in engine.all(Run) for function in run.functions]

    assert [sent_with(number, code) for number, code in enumerate(codes)] == [[code.payload] for code in codes]
    assert sent_with(3, codes[2]) == []
    codes.append(Function(digest_of(b"another"), b"another", "f"))
    assert sent_with(4, codes[3]) == [b"another"]
    assert sent_with(5, codes[0]) == [b"0"], "all were forgotten"


def test_an_engine_with_a_nanny_may_be_silent(world: World) -> None:
    nanny = world.peer("nanny", "nanny")
    world.peer("engine", "engine", nanny="nanny")
    world.turns(lambda: world.engines)
    world.pass_time(5 * SILENCE, nanny)
    assert world.engines == [0], "its task may hold the GIL"


def test_an_engine_of_this_host_without_a_nanny_may_be_silent_while_its_process_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership.socket, "gethostname", lambda: "here")
    world.peer("engine", "engine", host="here", pid=42)
    world.turns(lambda: world.engines)
    assert world.processes.watched == {"engine": 42}, "its death is seen at once"
    world.processes.running.add(42)
    world.pass_time(5 * SILENCE)
    assert world.engines == [0]
    world.processes.running.clear()  # it is stopped
    world.pass_time(2)
    assert not world.engines


def test_the_death_of_a_process_is_told_by_its_nanny_once_it_is_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership.socket, "gethostname", lambda: "here")
    world.peer("engine", "engine", nanny="nanny", host="here", pid=42)
    world.turns(lambda: world.engines)
    assert set(world.processes.watched) == {"engine"}
    world.peer("nanny", "nanny", host="here", pid=43)
    world.turns(lambda: "nanny" in world.controller._peers.by_uuid)
    assert set(world.processes.watched) == {"nanny"}


def test_engines_of_a_killed_nanny_are_expected_for_a_while_as_it_may_be_started_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership.socket, "gethostname", lambda: "here")
    client = world.peer("client", "me")

    def told() -> tuple[int, int]:
        news = client.all(Engines)[-1]
        return len(news.engines), news.starting

    def start(name: str) -> None:
        nanny = world.peer("nanny", name, host="here", pid=43)
        nanny.say(Starting(2))
        for number in range(2):
            world.peer("engine", f"{name}-{number}", nanny=name, host="here")

    start("first")
    world.turns(lambda: client.all(Engines) and told() == (2, 0))
    world.controller._process_ended("first")
    world.turns(lambda: told() == (0, 2))
    start("second")
    world.turns(lambda: told() == (2, 0))
    world.controller._process_ended("second")
    world.turns(lambda: told() == (0, 2))
    world.pass_time(4, client)
    world.turns(lambda: told() == (0, 0))


def test_nobody_is_lost_because_the_controller_itself_did_not_run(world: World) -> None:
    client = world.peer("client", "me")
    world.peer("engine", "engine")
    world.turns(lambda: world.engines)
    world.now += 100.0  # it was stopped
    world.turns()
    assert world.engines == [0]
    assert "me" in world.controller._peers.by_uuid
    world.pass_time(SILENCE + 2, client)
    assert not world.engines, "the engine is still silent"


def test_what_engines_have_sent_while_the_controller_did_not_run_comes_before_what_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.closing(World(SchedulerSettings(hwm=4))) as world:
        client, busy = world.peer("client", "me"), world.peer("engine", "busy")
        world.turns(lambda: world.engines)
        client.say(Submit(1, [task(number) for number in range(4)], [CODE]))
        world.turns(lambda: sum(len(run.tasks) for run in busy.all(Run)) == 4)
        idle = world.peer("engine", "idle")
        world.turns(lambda: len(world.engines) == 2)
        world.now += 0.02
        world.turns(lambda: busy.all(Recall))

        # It has run all of them when the question arrives. The controller is stopped meanwhile, and the wait that it
        # was stopped in ends without a message.
        ran = [TaskDone(TaskId(f"me-{number}"), 1, "ok", 1.0, 2.0, b"") for number in range(4)]
        busy.say(Results(ran, 1))
        world.now += 5.0
        receive, waits = world.controller._listener.receive, iter([[]])
        monkeypatch.setattr(
            world.controller._listener,
            "receive",
            lambda *args, **more: next(waits) if waits.__length_hint__() else receive(*args, **more),
        )
        world.turns(lambda: len([done for told in client.all(Results) for done in told.tasks]) == 4)
        assert not idle.all(Run)


def test_a_nanny_that_has_closed_its_connection_and_does_not_come_back_is_lost_soon(world: World):
    nanny, engine = world.peer("nanny", "n"), world.peer("engine", "e-0", nanny="n")
    alone = world.peer("engine", "e-1")
    world.turns(lambda: len(world.engines) == 2)
    world.network.listener.gone.add(b"n")
    world.pass_time(2, engine)
    assert len(world.engines) == 2, "it may connect again"
    world.network.listener.gone.clear()
    world.pass_time(4, engine, nanny)
    assert len(world.engines) == 2, "it has done so"
    world.network.listener.gone |= {b"n", b"e-1"}
    world.pass_time(5, engine, alone)
    assert world.engines == [1], "an engine without a nanny may be kept from connecting again by its task"
    nanny.hello()
    engine.hello()
    world.network.listener.gone.clear()
    world.turns(lambda: len(world.engines) == 2)


@pytest.mark.parametrize(
    ("engines", "silence", "expected"),
    [(0, 15.0, 2.0), (2000, 15.0, 2.0), (3000, 15.0, 3.0), (10_000, 15.0, 5.0), (10_000, 9.0, 3.0), (10_000, 1.0, 2.0)],
)
def test_very_many_engines_give_fewer_signs_of_life(engines: int, silence: float, expected: float):
    assert membership.ping_seconds(engines, silence) == expected


def test_engines_of_many_are_silent_a_little_later(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(membership, "PINGS_A_SECOND", 0.2)  # one engine stands for five thousand
    nanny, engine = world.peer("nanny", "n"), world.peer("engine", "e-0", nanny="n")
    world.turns(lambda: len(world.engines) == 1)
    engine.say(Ping(0))
    world.turns(lambda: [each.ping_seconds for each in engine.heard if isinstance(each, Pong)] == [5.0])
    core = world.controller.scheduler
    world.pass_time(8)
    assert core.engines[EngineId(0)].silent_since is None, "its next sign of life may be three seconds late"
    world.pass_time(2)
    assert core.engines[EngineId(0)].silent_since is not None
    world.pass_time(2, nanny)
    assert core.engines[EngineId(0)].silent_since is None


def test_a_host_of_which_nothing_is_heard_gets_no_more_tasks(world: World):
    nanny, other = world.peer("nanny", "n"), world.peer("nanny", "o")
    engine, second = world.peer("engine", "e-0", nanny="n"), world.peer("engine", "e-1", nanny="o")
    world.turns(lambda: len(world.engines) == 2)
    world.pass_time(8, nanny, second)
    core = world.controller.scheduler
    assert [each.silent_since for each in core.engines.values()] == [None, None], "of each host somebody is heard"
    world.pass_time(8, other)
    assert core.engines[EngineId(0)].silent_since is not None
    assert core.engines[EngineId(1)].silent_since is None
    world.pass_time(2, other, engine)
    assert core.engines[EngineId(0)].silent_since is None


# -------------------------------------------------------------------------------------------- after a restart


def listed(number: int, nanny: str = "nanny") -> Listed:
    return Listed(EngineUuid(f"e-{number}"), EngineId(number), NannyId(nanny), "far away", 7)


@pytest.fixture
def again() -> Iterator[World]:
    """A controller that was started again: engines 0 and 1 were connected before, and a task is unfinished."""
    store = DictDB()
    store.durable = True  # as if it were a database of an earlier life
    store.add_functions([CODE])
    store.write([Entry(task(0), ClientId("me"))])
    roster = Roster(former={each.uuid: each for each in map(listed, (0, 1))})
    made = World(store=store, roster=roster, restarted=True)
    made.controller.recover()
    yield made
    made.close()


def test_clients_hear_that_all_engines_are_back_and_queued_tasks_run_at_once(again: World):
    client = again.peer("client", "me-too")
    again.turns(lambda: client.all(Welcome))
    assert client.all(Welcome)[0].returning
    first, second = (again.peer("engine", f"e-{n}", nanny="nanny", wish=EngineId(n)) for n in range(2))
    again.turns(lambda: first.all(Run) or second.all(Run))
    assert again.now == 1000.0
    again.turns(lambda: client.all(Engines))
    last = client.all(Engines)[-1]
    assert ([engine.id for engine in last.engines], last.returning) == ([0, 1], False)
    assert set(again.roster.listed) == {"e-0", "e-1"}


def test_a_nanny_tells_that_an_engine_died_while_the_controller_was_away(again: World):
    engine = again.peer("engine", "e-0", nanny="nanny", wish=EngineId(0))
    stranger, nanny = again.peer("nanny", "stranger"), again.peer("nanny", "nanny")
    stranger.say(EngineDied(EngineUuid("e-1"), -9, 0, None, False))
    again.turns()
    assert not engine.all(Run), "only its own nanny knows"
    nanny.say(EngineDied(EngineUuid("e-1"), -9, 0, None, False))
    again.turns(lambda: engine.all(Run))
    assert set(again.roster.listed) == {"e-0"}


def test_a_process_of_this_host_that_has_ended_is_not_waited_for(again: World, monkeypatch: pytest.MonkeyPatch):
    engine = again.peer("engine", "e-0", nanny="nanny", wish=EngineId(0))
    again.turns(lambda: engine.all(Welcome))
    monkeypatch.setattr(Listed, "has_ended", property(lambda self: self.number == 1))
    again.pass_time(2, engine)
    again.turns(lambda: engine.all(Run))


def test_engines_that_did_not_come_back_are_forgotten(again: World):
    engine = again.peer("engine", "e-0", nanny="nanny", wish=EngineId(0))
    again.turns(lambda: engine.all(Welcome))
    again.pass_time(4, engine)
    assert set(again.roster.listed) == {"e-0", "e-1"}
    assert not engine.all(Run)
    again.pass_time(3, engine)
    again.turns(lambda: engine.all(Run))
    assert set(again.roster.listed) == {"e-0"}


def test_engines_that_leave_die_or_are_lost_are_off_the_roster(world: World):
    nanny = world.peer("nanny", "nanny")
    for n in range(3):
        world.peer("engine", f"e-{n}", nanny="nanny")
    world.turns(lambda: len(world.engines) == 3)
    assert set(world.roster.listed) == {"e-0", "e-1", "e-2"}
    nanny.say(EngineDied(EngineUuid("e-0"), -9, 0, None, False))
    world.peers[2].say(Goodbye())
    world.turns(lambda: len(world.engines) == 1)
    assert set(world.roster.listed) == {"e-2"}
    world.pass_time(2 * SILENCE)
    assert set(world.roster.listed) == set()


# -------------------------------------------------------------------------------------------- many engines


def test_a_new_engine_has_the_lowest_free_number(world: World):
    def come(name: str, **more: Any) -> EngineId:
        peer = world.peer("engine", name, **more)
        world.turns(lambda: peer.all(Welcome))
        return peer.all(Welcome)[-1].engine

    assert [come(f"e-{n}") for n in range(4)] == [0, 1, 2, 3]
    for gone in (2, 1):
        world.peers[gone].say(Goodbye())
    world.turns(lambda: len(world.engines) == 2)
    assert [come("wishes", wish=EngineId(2)), come("a"), come("b")] == [2, 1, 4]
    world.peers[0].say(Goodbye())
    world.turns(lambda: len(world.engines) == 4)
    assert come("c") == 0


def test_clients_are_not_sent_a_long_list_with_each_change(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(membership, "SHORT_LIST", 3)
    monkeypatch.setattr(membership, "NEWS_REST", 1.0)
    client = world.peer("client", "me")
    for n in range(5):
        world.peer("engine", f"e-{n}")
        world.turns(lambda n=n: len(world.engines) == n + 1)  # type: ignore[misc]
    told = [len(news.engines) for news in client.all(Engines)]
    assert told == [1, 2, 3, 4], "the list of four is long: the next one has to wait for four seconds"
    assert world.controller._members.news_due == 1004.0
    world.now = 1004.0
    world.turns(lambda: len(client.all(Engines)) == 5)
    assert len(client.all(Engines)[-1].engines) == 5


def test_nannies_are_not_told_which_engines_there_are(world: World):
    world.peer("engine", "e-0")
    world.turns(lambda: len(world.engines) == 1)
    nanny = world.peer("nanny", "n")
    world.turns(lambda: nanny.all(Welcome))
    assert nanny.all(Welcome)[0].engines == []


def test_the_family_of_a_nanny_is_known_also_after_another_hello(world: World):
    nanny, other = world.peer("nanny", "n"), world.peer("nanny", "o")
    engine = world.peer("engine", "e-0", nanny="n")
    world.turns(lambda: len(world.engines) == 1)
    peers = world.controller._peers
    assert [each.uuid for each in peers.engines_of(peers.by_uuid["n"])] == ["e-0"]
    engine.hello(nanny="o")
    world.turns(lambda: peers.engines_of(peers.by_uuid["o"]))
    assert peers.engines_of(peers.by_uuid["n"]) == []
    assert [len(peers.role(role)) for role in ("client", "engine", "nanny")] == [0, 1, 2]
    world.pass_time(2 * SILENCE, nanny)
    assert not world.engines
    assert [len(peers.role(role)) for role in ("client", "engine", "nanny")] == [0, 0, 1]
    assert peers.engines_of(peers.by_uuid["n"]) == []
    assert other.uuid not in peers.by_uuid
