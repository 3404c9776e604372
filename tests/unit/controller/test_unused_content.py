"""Content that no record refers to is dropped, unless it is used again meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until
from support.entries import finished

from engineroom.config import RetentionSettings
from engineroom.controller.storage.store_writer import StoreWriter
from engineroom.controller.storage.unused_content import UnusedContent
from engineroom.controller.supplies.function_library import FunctionLibrary
from engineroom.errors import StoreError
from engineroom.ids import ClientId, TaskId, digest_of
from engineroom.messages import Environment, Function
from engineroom.stores import DictDB
from engineroom.stores.base import References

CODE = Function(digest_of(b"code"), b"code", "f")


class Controller:
    """As much of one as is needed; the test takes the turns of its loop."""

    def __init__(self) -> None:
        self.store = DictDB()
        self.now = 0.0
        self.library = FunctionLibrary(lambda: self.now)
        self.posted: list[Callable[[], None]] = []
        self.environment_of: dict[ClientId, str] = {}
        self.writer = StoreWriter(self.store, lambda tokens: None, RetentionSettings())
        self.unused = UnusedContent(
            self.store,
            self.library,
            self.writer.call,
            self.writer.scan,
            self.writer.purged,
            self.posted.append,
            self.environment_of,
            0.0,
            lambda: self.now,
        )

    def sweep(self) -> None:
        """Some time later the loop looks whether there is something to do."""
        self.now += 1
        self.unused.sweep(self.now)
        self.now += 1

    def turn(self) -> None:
        """Call the next function that was posted, once there is one."""
        wait_until(lambda: self.posted)
        self.posted.pop(0)()

    def submit(self) -> bool:
        """A task that calls the function, of a client that believes it is known; whether it is."""
        entry = finished("again")
        entry.spec.function = CODE.digest
        if self.library.use([entry.spec]):
            return False
        self.writer.put([entry])
        return True

    def is_kept(self) -> bool:
        self.writer.flush()
        return CODE.digest in self.store._functions


@pytest.fixture
def controller() -> Iterator[Controller]:
    made = Controller()
    made.writer.put([finished()], functions=made.library.add([CODE]))
    made.writer.call(lambda store: store.drop_record(TaskId("a"))).result()
    yield made
    made.writer.close()


def test_what_nobody_uses_goes(controller: Controller) -> None:
    controller.sweep()
    controller.turn()  # found
    assert controller.library.get(CODE.digest) is None
    wait_until(lambda: not controller.is_kept())
    assert not controller.submit(), "the client is asked to send it again"
    assert controller.library.add([CODE]) == [CODE]


def test_what_was_used_since_the_scan_began_stays(controller: Controller) -> None:
    controller.sweep()
    entry = finished("later")
    entry.spec.function = CODE.digest
    assert controller.library.use([entry.spec]) == [], "for a task that is looked up before it is recorded"
    controller.turn()  # found
    controller.turn()  # the end
    assert controller.is_kept()
    assert controller.submit()


def test_what_is_sent_again_before_it_is_dropped_stays(controller: Controller) -> None:
    controller.sweep()
    wait_until(lambda: controller.posted)
    late = threading.Event()
    controller.writer.call(lambda store: late.wait(10))
    controller.turn()
    assert not controller.submit()
    new = controller.library.add([CODE])
    assert new == [CODE]
    assert controller.submit()
    controller.writer.put([], functions=new)
    late.set()
    assert controller.is_kept()


def test_what_is_sent_again_while_it_is_dropped_stays(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, late, drop = threading.Event(), threading.Event(), controller.store.drop_references

    def slowly(unused: References) -> int:
        under_way.set()
        late.wait(10)
        return drop(unused)

    monkeypatch.setattr(controller.store, "drop_references", slowly)
    controller.sweep()
    controller.turn()
    assert under_way.wait(10)
    controller.writer.put([], functions=controller.library.add([CODE]))
    assert controller.submit()
    late.set()
    assert controller.is_kept()


def test_environments_of_clients_that_were_here_stay(controller: Controller) -> None:
    told = [(ClientId(name), Environment(f"e-{name}", b"3.11")) for name in ("alice", "bob")]
    controller.writer.put([], environments=told)
    controller.writer.flush()
    controller.environment_of[ClientId("alice")] = "e-alice"
    controller.sweep()
    for _ in range(3):
        controller.turn()
    wait_until(lambda: "e-bob" not in controller.store._environments)
    assert controller.store.get_environment("e-alice") == b"3.11"


def test_the_environment_of_a_client_that_goes_during_the_scan_stays(controller: Controller) -> None:
    """Its records may have come after the scan."""
    alice = ClientId("alice")
    controller.writer.put([], environments=[(alice, Environment("e-alice", b"3.11"))])
    controller.writer.flush()
    controller.environment_of[alice] = "e-alice"
    controller.sweep()
    del controller.environment_of[alice]
    controller.turn()  # found
    controller.writer.flush()
    assert controller.store.get_environment("e-alice") == b"3.11"


def test_a_store_that_fails_is_looked_at_again(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise StoreError("no")

    with monkeypatch.context() as failing:
        failing.setattr(controller.store, "used_references", fail)
        controller.sweep()
        controller.turn()  # the end
    assert controller.is_kept()
    controller.sweep()
    controller.turn()
    wait_until(lambda: not controller.is_kept())


def test_what_an_earlier_life_left_is_looked_for_once() -> None:
    """A controller that ended between a purge and its scan leaves functions to the next one."""
    made = Controller()
    made.store.add_functions([CODE])
    made.sweep()
    made.turn()  # found
    made.turn()  # the end
    assert not made.is_kept()
    began: list[Any] = []
    made.writer.scan = lambda *scan: began.append(scan)  # type: ignore[method-assign]
    made.sweep()
    made.writer.flush()
    made.writer.close()
    assert began == []


def test_the_space_of_dropped_functions_is_given_back(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = threading.Event()
    monkeypatch.setattr(controller.store, "give_back", lambda most: given.set() or 0)
    controller.sweep()
    while not given.wait(0.01):
        assert controller.posted or controller.writer._thread.is_alive()
        if controller.posted:
            controller.posted.pop(0)()
    assert not controller.is_kept()
