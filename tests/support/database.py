"""Fixtures: stores of each kind, a MongoDB-protocol server for them, and a loud line where there is none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engineroom.stores import DictDB, MongoDB, SQLiteDB, TaskStore

from . import mongodb

_skipped: list[str] = []


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of a running server; skips where none can be had."""
    given = os.environ.get("MONGODB_URI")
    if given:
        yield given
        return
    require_binary()
    server = mongodb.Server(tmp_path_factory.mktemp("ferretdb"))
    yield server.url
    server.stop()


def require_binary() -> None:
    """Skip where FerretDB is not built."""
    if not mongodb.binary().exists():
        _skipped.append("")
        pytest.skip(f"no MongoDB-protocol server: {mongodb.HOW}")


@pytest.fixture
def open_mongodb(server_url: str) -> Iterator[Callable[..., MongoDB]]:
    """Open stores on one fresh database, which goes at the end."""
    import pymongo

    name = f"engineroom_test_{uuid.uuid4().hex[:12]}"
    base, _, options = server_url.partition("?")
    url = f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")
    opened: list[MongoDB] = []

    def open_one(**options: Any) -> MongoDB:
        opened.append(MongoDB(url, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
    with pymongo.MongoClient(server_url) as client:
        client.drop_database(name)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[mongodb.Server]:
    """A server that a test may stop and start."""
    require_binary()
    server = mongodb.Server(tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    """An empty store of each kind."""
    if request.param == "mongodb":
        made: TaskStore = request.getfixturevalue("open_mongodb")()
    else:
        made = DictDB() if request.param == "memory" else SQLiteDB(tmp_path / "tasks.db")
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _skipped:
        terminalreporter.write_line(
            f"*** NO MONGODB-PROTOCOL SERVER: the tests that need one were SKIPPED. To run them, {mongodb.HOW}. ***",
            red=True,
            bold=True,
        )
