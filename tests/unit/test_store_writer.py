"""The thread that writes to the store: whoever asks it something gets an answer, also at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from engineroom.controller.writer import StoreWriter
from engineroom.errors import StoreError
from engineroom.ids import ClientId, TaskId
from engineroom.messages import TaskSpec
from engineroom.records import Entry
from engineroom.stores import DictDB

ENTRY = Entry(TaskSpec(TaskId("c-0"), None, b"", 0.0), ClientId("c"))


class Failing(DictDB):
    """Takes nothing, and says so once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def write(self, entries: Sequence[Entry]) -> None:
        self.asked.set()
        assert self.go_on.wait(20)
        raise StoreError("no room")


def test_questions_after_the_end_are_answered() -> None:
    writer = StoreWriter(DictDB(), lambda tokens: None)
    writer.flush()
    writer.close()
    with pytest.raises(StoreError, match="is stopping"):
        writer.call(lambda store: None).result(20)


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
