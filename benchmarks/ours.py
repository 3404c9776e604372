"""What the subjects share: the tasks, and a cluster that leaves nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import engineroom as er

T = TypeVar("T")

WORKERS = 2


def noop() -> None:
    """The least a task can do."""


def same(value: T) -> T:
    """What comes goes back."""
    return value


@contextmanager
def cluster(database: str = "sqlite", n: int = WORKERS) -> Iterator[Any]:
    """A client of a fresh cluster with `n` engines, in a profile of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="engineroom-bench-") as folder,
        er.Cluster(n=n, profile_dir=folder, database=database) as rc,
    ):
        yield rc
