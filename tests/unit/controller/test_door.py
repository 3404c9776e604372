"""Which messages each key allows: the whole table; and what a client that may only submit sees of other sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from engineroom import _version, messages
from engineroom.controller import loop
from engineroom.controller.loop import Controller
from engineroom.controller.requests import door
from engineroom.ids import EngineId, digest_of
from engineroom.messages import (
    Abort,
    Accepted,
    CacheKey,
    CountRecords,
    DistinctValues,
    Explain,
    FindRecords,
    Function,
    GraphDependency,
    GroupRecords,
    Hello,
    History,
    Message,
    PageRecords,
    Purge,
    QueueStatus,
    Refused,
    Rejected,
    Reply,
    Request,
    RequestBody,
    Resubmit,
    Results,
    ResultStatus,
    ResultsUnavailable,
    Run,
    Submit,
    TaskDone,
    TaskOptions,
    TaskSpec,
    Watch,
    Welcome,
)
from engineroom.messages.requests import AnyRequestBody
from engineroom.messages.rights import RIGHTS, ROLES, Rights, key_with_rights
from engineroom.stores import SQLiteDB
from engineroom.testing.network import MemoryLink, MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.session import prove

SECONDS = 30.0
FUNCTION = Function(digest_of(b"pickled"), b"pickled", "f")

#: What each key allows a client to say; "own": of its own session only. A new message or request must be added here.
TABLE = {
    # message or request    readonly  submit
    "Hello":              ("yes",    "yes"),
    "Ping":               ("yes",    "yes"),
    "Goodbye":            ("yes",    "yes"),
    "Request":            ("yes",    "yes"),
    "Watch":              ("yes",    "own"),
    "Submit":             ("no",     "own"),
    "Sync":               ("yes",    "yes"),
    "Withdraw":           ("yes",    "yes"),
    "FindRecords":        ("yes",    "own"),
    "CountRecords":       ("yes",    "own"),
    "PageRecords":        ("yes",    "own"),
    "DistinctValues":     ("yes",    "own"),
    "GroupRecords":       ("yes",    "own"),
    "History":            ("yes",    "no"),
    "ResultStatus":       ("yes",    "own"),
    "TasksOnEngines":     ("yes",    "yes"),
    "QueueStatus":        ("yes",    "no"),
    "Explain":            ("yes",    "own"),
    "GetFunction":        ("yes",    "yes"),
    "GetEnvironment":     ("yes",    "yes"),
    "Resubmit":           ("no",     "own"),
    "Abort":              ("no",     "own"),
    "RecheckProperties":  ("no",     "no"),
    "Purge":              ("no",     "no"),
    "Pin":                ("no",     "no"),
    "StopEngines":        ("no",     "no"),
    "StopController":     ("no",     "no"),
    "SignalEngines":      ("no",     "no"),
}  # fmt: skip


def test_the_table_is_complete_and_true():
    kinds = [*get_args(messages.FromClient), *get_args(AnyRequestBody)]
    assert {kind.__name__ for kind in kinds} == set(TABLE)
    for column, rights in enumerate(("readonly", "submit")):
        allowed = {kind.__name__ for kind in door.MAY_SAY[rights]}  # type: ignore[index]
        assert allowed == {name for name, row in TABLE.items() if row[column] != "no"}, rights
    assert {kind.__name__ for kind in door.NARROWED} == {name for name, row in TABLE.items() if row[1] == "own"}
    assert set(door.MAY_SAY) == {"readonly", "submit"}, "the full key allows everything, engines have no requests"


def test_what_engines_and_nannies_may_say_has_no_question_and_no_task():
    """A stolen engine file cannot submit, read results or records, or change anything."""
    for union in (messages.FromEngine, messages.FromNanny):
        assert not {Submit, Watch, Request} & set(get_args(union))
        assert not [kind for kind in get_args(union) if issubclass(kind, RequestBody)]


def test_keys_differ_and_tell_nothing_of_each_other():
    keys = {rights: key_with_rights("the cluster's key", rights) for rights in RIGHTS}
    assert len(set(keys.values())) == len(RIGHTS)
    assert keys["full"] == "the cluster's key"
    assert all(len(keys[rights]) == 64 for rights in RIGHTS if rights != "full")


class Cluster:
    """A controller, and peers with any key."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.number = 0

    def join(self, rights: Rights, uuid: str, role: str = "client") -> Peer:
        peer = Peer(self.network.link(uuid.encode()), role)
        hello = Hello(_version.PROTOCOL_VERSION, role, "", uuid, 1, "elsewhere", number=1)
        peer.say(prove(hello, key_with_rights("key", rights).encode()))
        return peer


DECODERS: dict[str, Any] = {
    "client": frames.decode_to_client,
    "engine": frames.decode_to_engine,
    "nanny": frames.decode_to_nanny,
}


class Peer:
    def __init__(self, link: MemoryLink, role: str) -> None:
        self.link, self.decode, self.number = link, DECODERS[role], 0
        self.heard: list[Message] = []
        self.columns: list[dict[str, list[Any]]] = []

    def say(self, message: Message) -> None:
        self.link.send([frames.encode(message)])

    def hear(self, kind: type, test: Any = lambda message: True) -> Any:
        deadline = time.monotonic() + SECONDS
        while True:
            for message in self.heard:
                if isinstance(message, kind) and test(message):
                    self.heard.remove(message)
                    return message
            assert time.monotonic() < deadline, f"no {kind.__name__}, only {self.heard}"
            for parts in self.link.receive(64, timeout=0.05):
                self.heard.append(self.decode(bytes(parts[0])))
                if isinstance(self.heard[-1], Reply):
                    self.columns = [frames.decode_columns(part) for part in parts[1:]]

    def ask(self, body: Any) -> Any:
        """The value of the answer, or the name of its error."""
        self.number += 1
        self.say(Request(self.number, body))
        reply = self.hear(Reply, lambda reply: reply.number == self.number)
        return reply.value if reply.error is None else reply.error.ename

    def found(self) -> list[str]:
        return [id for piece in self.columns for id in piece["msg_id"]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(loop, "STOP_SECONDS", 0.0)  # nobody here says goodbye
    network = MemoryNetwork()
    controller = Controller(network.listener, SQLiteDB(tmp_path / "tasks.db"), "key")
    thread = threading.Thread(target=controller.run)
    thread.start()
    yield Cluster(network)
    controller.stop()
    for link in list(network.links.values()):
        link.close()
    thread.join(SECONDS)
    assert not thread.is_alive()


def spec(id: str, **options: Any) -> TaskSpec:
    return TaskSpec(id, FUNCTION.digest, b"", 1e9, options=TaskOptions(**options) if options else None)


def with_tasks(cluster: Cluster) -> tuple[Peer, Peer]:
    """A client with all rights, and one that may only submit; each has one task that has ended."""
    full, own = cluster.join("full", "full"), cluster.join("submit", "own")
    engine = cluster.join("engine", "engine", "engine")
    for number, (client, id) in enumerate([(full, "full-1"), (own, "own-1")], start=1):
        client.say(Submit(1, [spec(id)], [FUNCTION]))
        run = engine.hear(Run)
        assert [task.id for task in run.tasks] == [id]
        engine.say(Results([TaskDone(id, 1, "ok", 1e9, 2e9, b"result")], number))
        client.hear(Results)
        client.hear(Accepted)
    return full, own


@pytest.mark.parametrize("rights", RIGHTS)
@pytest.mark.parametrize("role", ["client", "engine", "nanny"])
def test_each_key_lets_in_its_roles_only(cluster: Cluster, rights: Rights, role: str):
    peer = cluster.join(rights, "peer", role)
    if role in ROLES[rights]:
        assert peer.hear(Welcome).proof
    else:
        assert rights in peer.hear(Refused).reason


def anything(kind: type[RequestBody]) -> RequestBody:
    """A request of this kind."""
    given = {
        field.name: ({} if field.name == "query" else ["full-1"] if field.name in ("tasks", "new") else "state")
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    given |= {"limit": 5, "keys": None} if kind is PageRecords else {}
    given |= {"signal": 0} if kind.__name__ == "SignalEngines" else {}
    given |= {"digest": "00" * 16} if "digest" in given else {}
    given |= {"requests": [1]} if "requests" in given else {}
    return kind(**given)


def test_each_request_is_answered_as_the_table_says(cluster: Cluster):
    with_tasks(cluster)
    readers: dict[str, Peer] = {rights: cluster.join(rights, rights) for rights in ("readonly", "submit")}  # type: ignore[arg-type]
    for kind in get_args(AnyRequestBody):
        for column, (rights, peer) in enumerate(readers.items()):
            refused = peer.ask(anything(kind)) == "NotAllowed"
            names_tasks = "tasks" in {field.name for field in msgspec.structs.fields(kind) if field.required}
            expected = TABLE[kind.__name__][column]
            assert refused == (expected == "no" or (expected == "own" and names_tasks)), (kind, rights)


def test_a_reader_sees_everything_and_changes_nothing(cluster: Cluster):
    full, _ = with_tasks(cluster)
    reader = cluster.join("readonly", "reader")
    reader.ask(FindRecords({}, ["msg_id"]))
    assert set(reader.found()) == {"full-1", "own-1"}
    reader.say(Watch(["full-1"]))
    assert reader.hear(Results).tasks[0].payload == b"result"
    reader.say(Submit(5, [spec("reader-1")], [FUNCTION]))
    refused = reader.hear(Rejected)
    assert (refused.number, refused.error.ename) == (5, "NotAllowed")
    for body in (Purge(everything=True), Resubmit(["full-1"], ["reader-1"]), Abort(["full-1"])):
        assert reader.ask(body) == "NotAllowed"
    assert full.ask(CountRecords({})) == 2


def test_who_may_only_submit_sees_its_own_session(cluster: Cluster):
    full, own = with_tasks(cluster)
    own.ask(FindRecords({}, ["msg_id"]))
    assert own.found() == ["own-1"]
    own.ask(FindRecords({"$or": [{"client_uuid": "full"}, {"msg_id": "full-1"}, {}]}, ["msg_id"]))
    assert own.found() == ["own-1"], "no query leads out of it"
    assert own.ask(CountRecords({"client_uuid": "full"})) == 0
    own.ask(PageRecords({}, ["msg_id"], 10))
    assert own.found() == ["own-1"]
    assert own.ask(DistinctValues("client_uuid", {})) == ["own"]
    assert [group["count"] for group in own.ask(GroupRecords("client_uuid", {}))] == [1]
    for body in (History(), QueueStatus(None, True)):
        assert own.ask(body) == "NotAllowed"
    for body in (ResultStatus(["own-1", "full-1"]), Explain(["full-1"]), Abort(["full-1"]), Abort(None, [EngineId(0)])):
        assert own.ask(body) == "NotAllowed"
    assert own.ask(ResultStatus(["own-1"])) == {"pending": [], "completed": ["own-1"]}
    own.say(Watch(["full-1"]))
    assert own.hear(ResultsUnavailable).tasks == ["full-1"]
    own.say(Watch(["own-1"]))
    assert own.hear(Results).tasks[0].id == "own-1"
    assert own.ask(Abort()) == 0
    assert full.ask(CountRecords({})) == 2


@pytest.mark.parametrize(
    "stolen",
    [
        spec("full-2"),
        spec("own-2", inputs=("full-1",)),
        spec("own-2", after=GraphDependency(("full-1",))),
        spec("own-2", follow=GraphDependency(("full-1",))),
    ],
    ids=["id", "inputs", "after", "follow"],
)
def test_who_may_only_submit_names_no_task_of_another_session(cluster: Cluster, stolen: TaskSpec):
    _, own = with_tasks(cluster)
    own.say(Submit(2, [spec("own-3"), stolen], [FUNCTION]))
    assert own.hear(Rejected).error.ename == "NotAllowed"
    assert own.ask(CountRecords({})) == 1


def test_who_may_only_submit_gets_no_result_of_an_equal_call(cluster: Cluster):
    full, own = cluster.join("full", "full"), cluster.join("submit", "own")
    engine = cluster.join("engine", "engine", "engine")
    key = CacheKey("function", "arguments")
    for number, (client, id) in enumerate([(full, "full-1"), (own, "own-1")], start=1):
        client.say(Submit(1, [spec(id, cache=key)], [FUNCTION], cached=True))
        assert [task.id for task in engine.hear(Run).tasks] == [id], "it runs"
        engine.say(Results([TaskDone(id, 1, "ok", 1e9, 2e9, id.encode())], number))
        assert client.hear(Results).tasks[0].payload == id.encode()
        client.hear(Accepted)


def test_refusals_are_logged_but_do_not_fill_the_log(cluster: Cluster, caplog: pytest.LogCaptureFixture):
    reader = cluster.join("readonly", "reader")
    for _ in range(50):
        assert reader.ask(Purge(everything=True)) == "NotAllowed"
    assert caplog.text.count("refused Purge of client reader") == 1

