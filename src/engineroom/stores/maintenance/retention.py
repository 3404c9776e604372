"""Which records are dropped, and when: by age, rules, count and size, a little at a time.

`steps` decides, given the time. `Retention.apply` does it, in pieces small enough to come between two commits. Records
of unfinished tasks and pinned records are in no step. Functions that records refer to are `references.py`'s matter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from ...config import RetentionRule, RetentionSettings
from ...ids import TaskId
from ..base import Cursor, TaskStore

#: Records in one piece of work.
BATCH = 500
#: Bytes given back to the system in one piece of work.
GIVE_BYTES = 4 << 20
#: Unused bytes that stay in a file for new records: at least this, or a tenth of the used bytes.
SPARE_BYTES = 8 << 20
#: Seconds after which all records are scanned again, from the oldest on.
RESCAN_SECONDS = 3600.0
#: Seconds that may pass between the submission of a task and the writing of its record.
LATE_SECONDS = 5.0

_NOT_PINNED: dict[str, Any] = {"pinned": {"$ne": True}}


class Step(msgspec.Struct, frozen=True):
    """What is due by age: the records that match, or their buffers, are dropped."""

    drops: Literal["records", "payloads"]
    #: which records, of any age
    query: dict[str, Any]
    #: … that ended before this moment
    before: datetime


def steps(settings: RetentionSettings, now: float) -> list[Step]:
    """What is due at a moment. The first rule that fits a record decides; if none fits, the general ages do."""
    found: list[Step] = []
    others: list[dict[str, Any]] = []
    for rule in (*settings.rules, RetentionRule(age=settings.age, payload_age=settings.payload_age)):
        query: dict[str, Any] = {**_matching(rule), **({"$nor": list(others)} if others else {})}
        if rule.age is not None:
            found.append(Step("records", query, _moment(now - rule.age)))
        if rule.payload_age is not None and (rule.age is None or rule.payload_age < rule.age):
            found.append(Step("payloads", query, _moment(now - rule.payload_age)))
        others.append(_matching(rule))
    return found


def _matching(rule: RetentionRule) -> dict[str, Any]:
    query: dict[str, Any] = {}
    if rule.state is not None:
        query["state"] = rule.state
    if rule.label is not None:
        query["label"] = {"$glob": rule.label}
    return query


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(seconds, 0.0), UTC)


class Retention:
    """Keeps a database within its limits."""

    def __init__(self, store: TaskStore, settings: RetentionSettings) -> None:
        self.settings = settings
        self._store = store
        #: number of a step → all records submitted before this moment are done
        self._floors: dict[int, datetime] = {}
        self._rescan_at = 0.0

    def rescan(self) -> None:
        """Records have been unpinned: scan again from the oldest on, because some of them may be due."""
        self._floors.clear()

    def apply(self, now: float) -> Iterator[int]:
        """One scan, in pieces: each `next` does one, and gives how many records lost their buffers or were dropped."""
        if time.monotonic() >= self._rescan_at:
            self._rescan_at = time.monotonic() + RESCAN_SECONDS
            self.rescan()
        for number, step in enumerate(steps(self.settings, now)):
            yield from self._do(number, step, _moment(now - LATE_SECONDS))
        if self.settings.count is not None:
            yield from self._drop_more_than(self.settings.count)
        if self.settings.bytes is not None:
            yield from self._shrink(self.settings.bytes)
        if self.settings.payload_bytes is not None:
            yield from self._lighten(self.settings.payload_bytes)

    def _do(self, number: int, step: Step, written: datetime) -> Iterator[int]:
        # No task ends before it is submitted, so only the older part of the database is scanned.
        floor = self._floors.get(number)
        since = {} if floor is None else {"submitted": {"$gte": floor}}
        by_age = {"submitted": {"$lt": step.before, **since.get("submitted", {})}, "completed": {"$lt": step.before}}
        after: Cursor | None = None
        while True:
            page = self._store.page({"$and": [by_age, step.query, _NOT_PINNED]}, "msg_id", after=after, limit=BATCH)
            ids = [TaskId(record["msg_id"]) for record in page.records]
            if ids:
                yield self._drop(ids) if step.drops == "records" else self._store.drop_buffers(ids)
            after = page.next
            if after is None:
                break
        # The next scan begins with the first record that had not ended before the moment of this step.
        late = {"$and": [since, {"$or": [{"completed": None}, {"completed": {"$gte": step.before}}]}]}
        first = self._store.page(late, "submitted", limit=1).records
        floor = first[0]["submitted"] or _moment(0) if first else step.before
        self._floors[number] = min(floor, written)

    def _drop_more_than(self, limit: int) -> Iterator[int]:
        excess = self._store.count({}) - limit
        while excess > 0 and (oldest := self._oldest(min(excess, BATCH))):
            dropped = self._drop(oldest)
            excess -= dropped
            yield dropped

    def _shrink(self, limit: int) -> Iterator[int]:
        while self._store.usage().used > limit and (oldest := self._oldest(BATCH // 5)):
            yield self._drop(oldest)

    def _oldest(self, most: int) -> list[TaskId]:
        """The oldest records that may go; none if all are pinned, or have not finished."""
        page = self._store.page({"completed": {"$ne": None}, **_NOT_PINNED}, "msg_id", limit=most)
        return [TaskId(record["msg_id"]) for record in page.records]

    def _lighten(self, limit: int) -> Iterator[int]:
        """Drop the oldest large buffers. Two records may share one, which goes with the second of them."""
        while (excess := self._store.usage().large - limit) > 0:
            ids = []
            for id, size in self._store.large_buffers(BATCH // 5):
                ids.append(id)
                excess -= size
                if excess <= 0:
                    break
            dropped = self._store.drop_buffers(ids) if ids else 0
            if not dropped:
                return  # all others are of pinned records, or of tasks that have not finished
            yield dropped

    def _drop(self, ids: list[TaskId]) -> int:
        return self._store.drop_matching_records({"msg_id": {"$in": ids}})
