"""The names of functions, read from the database once for each."""

from __future__ import annotations

import pickle

import pytest

from engineroom.errors import StoreError
from engineroom.ids import Digest
from engineroom.messages import Function
from engineroom.reading import records as module
from engineroom.reading.records import Records


class Store:
    """A database with two functions; it counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_function(self, digest: Digest) -> Function:
        self.asked.append(digest.hex())
        if digest.hex() == "ff":
            raise StoreError("no such function")
        return Function(digest, pickle.dumps(pow), "named" if digest.hex() == "01" else "")


def test_a_name_is_read_once_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NAMES_KEPT", 2)
    store = Store()
    records = Records(store=store)  # type: ignore[arg-type]
    assert [records.function_name(digest) for digest in ("01", "02", "01")] == ["named", "pow", "named"]
    assert store.asked == ["01", "02"]
    assert records.function_name("ff") == "function ff"
    assert records.function_name("01") == "named"
    assert store.asked == ["01", "02", "ff", "01"]
