"""Records are dropped in pieces: other work comes in between, and what was dropped stays dropped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.entries import NOW, failed, finished, pending

from engineroom.errors import QueryError, StoreFull
from engineroom.ids import TaskId
from engineroom.stores import SQLiteDB, TaskStore
from engineroom.stores.sqlite import dropping, file, write_ahead_log

COUNT = 1200
FINISHED: dict[str, Any] = {"completed": {"$ne": None}}


def fill(store: TaskStore, count: int = COUNT) -> None:
    store.write([failed(f"t{n:04}", NOW + n) if n % 3 else finished(f"t{n:04}", NOW + n) for n in range(count)])
    store.write([pending("waits")])


@pytest.fixture(params=[0, 5000], ids=["walked", "looked up"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How SQLite finds the rows: it walks through all, or looks them up first."""
    monkeypatch.setattr(dropping, "FEW", request.param)


@pytest.mark.parametrize(
    ("query", "dropped"),
    [(FINISHED, 120), ({"state": "failed"}, 80), ({"result_content.ename": "ValueError"}, 80),
     ({"label": {"$glob": "none*"}}, 0), ({"msg_id": {"$in": ["t0000", "t0007", "nobody"]}}, 2)],
)  # fmt: skip
def test_in_pieces_the_same_records_go(
    store: TaskStore, few: None, query: dict[str, Any], dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "FIRST_ROWS", 20)
    fill(store, 120)
    matched = store.count(query)
    before = store.dropped
    pieces = list(store.drop_in_pieces(query))
    assert (sum(pieces), store.dropped - before) == (matched, matched) == (dropped, dropped)
    assert store.count(query) == 0
    assert store.count({}) == 121 - dropped
    assert sum(store.drop_in_pieces(query)) == 0


def test_what_is_written_in_between_stays_and_the_rest_can_follow_later(tmp_path: Path, few: None) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    fill(store)
    pieces = store.drop_in_pieces(FINISHED)
    first = next(pieces)
    assert 0 < first < COUNT
    store.write([finished("new", NOW)])
    assert store.count({}) == COUNT + 2 - first
    pieces.close()  # type: ignore[attr-defined]
    assert sum(store.drop_in_pieces(FINISHED)) == COUNT + 1 - first
    assert store.get_history() == ["waits"]
    store.close()


def test_a_number_that_another_record_has_taken_is_asked_again(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    fill(store)
    pieces = store.drop_in_pieces({"state": "failed"})
    next(pieces)
    store.drop_matching_records({})
    store.write([finished(f"new{n}", NOW) for n in range(COUNT)])  # they have the numbers of the dropped ones
    assert sum(pieces) == 0
    assert store.count({}) == COUNT
    store.close()


def test_a_purge_of_everything_has_no_time_limit(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db", query_seconds=0)
    fill(store)
    with pytest.raises(QueryError, match="name an indexed key"):
        store.drop_matching_records({"stdout": {"$regex": "x*"}})
    store.close()
    store = SQLiteDB(tmp_path / "tasks.db", query_seconds=0.05)
    assert sum(store.drop_in_pieces(FINISHED)) == COUNT
    store.close()


def test_a_pattern_that_takes_for_ever_ends_a_purge(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db", query_seconds=0.2)
    store.add_record(TaskId("a"), {"stdout": "a" * 5000})
    with pytest.raises(QueryError, match="takes too long on some text"):
        list(store.drop_in_pieces({"stdout": {"$regex": "(a|aa)+$b"}}))
    store.close()


# ---------------------------------------------------------------------------------------------- space


def log_of(store: SQLiteDB) -> int:
    return write_ahead_log.log_bytes(store.path)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[SQLiteDB]:
    """A database with 30 MB of buffers, and nothing in its log."""
    store = SQLiteDB(tmp_path / "tasks.db")
    noise = random.Random(0)
    for n in range(60):
        store.write([finished(f"t{n:02}", NOW + n, buffers=(noise.randbytes(500_000),))])
    store.close()
    store = SQLiteDB(tmp_path / "tasks.db")
    yield store
    store.close()


def test_what_is_deleted_is_not_overwritten_with_zeros(large: SQLiteDB) -> None:
    with large._writing("look", whole=False) as connection:
        assert connection.execute("PRAGMA secure_delete").fetchone() == (0,)
    large.drop_matching_records(FINISHED)
    assert log_of(large) < 6_000_000, "the log holds a part of what is freed"


def test_all_space_is_given_back_and_the_log_stays_short(large: SQLiteDB) -> None:
    longest = 0
    for _ in large.drop_in_pieces(FINISHED):
        longest = max(longest, log_of(large))
    while large.give_back(1 << 20):
        longest = max(longest, log_of(large))
    assert large.path.stat().st_size < 500_000
    assert log_of(large) == 0
    assert longest < 12_000_000


def test_a_reader_that_needs_the_log_is_not_waited_for(large: SQLiteDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BUSY_SECONDS", 1000.0)  # of the connections from here on
    other = SQLiteDB.open_readonly(large.path)
    connection = other._connections.reader()
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM tasks").fetchone()
    large.write([finished("x", NOW, buffers=tuple(random.Random(n).randbytes(200_000) for n in range(5)))])
    with large._writing("shorten", whole=False) as writer:
        assert not write_ahead_log.shorten_log(writer, large.path, 500_000), "the reader needs it"
        assert write_ahead_log.shorten_log(writer, large.path), "it is short enough"
    monkeypatch.setattr(
        dropping, "shorten_log", lambda writer, path, most=500_000: write_ahead_log.shorten_log(writer, path, most)
    )
    pieces = large.drop_in_pieces(FINISHED)
    assert [next(pieces) for _ in range(3)] == [0, 0, 0], "nothing is written until the log can be emptied"
    connection.execute("COMMIT")
    assert sum(pieces) == 61
    other.close()


@pytest.mark.fault(18)
def test_a_piece_for_which_there_is_no_room_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    fill(store)
    sizes: list[int] = []
    drop = dropping.Dropping._drop_where

    def on_a_full_disk(self: dropping.Dropping, where: Any) -> int:
        sizes.append(self._rows)
        if self._rows > 40:
            raise StoreFull("the disk is full")
        return drop(self, where)

    monkeypatch.setattr(dropping.Dropping, "_drop_where", on_a_full_disk)
    assert sum(store.drop_in_pieces(FINISHED)) == COUNT
    assert min(sizes) <= 40
    store.close()
