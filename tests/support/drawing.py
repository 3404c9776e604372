"""Random records and random queries: few values, so that they meet."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, CacheKey, ErrorInfo, TaskDone, TaskOptions, TaskSpec
from engineroom.records.entry import Entry
from engineroom.records.fields import KEYS, TIMES

NOW = 1_800_000_000.0

TEXTS = ["", "a", "b", "ünï", "ok", "error", "ValueError", "e1", "e2", "apply_request", "0f", "f", "日本", "a\nb", "Z"]
NUMBERS: list[Any] = [0, 1, 2, -1, 1.0, 1.5, -7, 4.0, float("inf"), float("-inf"), float("nan"), 1 << 40, 3, 0.25]
ZONES = [UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30)), None]
NAMES = ["x", "y", "0", "ename", "status", "msg_type"]
TYPES = ["string", "number", 3, "array", "null", "bool", "date", "int", "double", "long", "binData", "object", "regex"]
PATTERNS = ["a", "^a", "Err", "b$", "^$", "Ü", "a.b", "[ab]", "n|o", r"\w{2}", "^日"]
GLOBS = ["*", "a*", "?", "[ab]", "[!a]", "*r*r", "a?b", "日*"]
PATHS = [
    *[key for key in KEYS if key != "result_buffers"], *sorted(TIMES), "submitted", "state", "engine_id", "header.x",
    "header.msg_type", "header.label", "header.session", "metadata.x", "metadata.x.y", "metadata.x.0", "metadata.y",
    "metadata.x.0.y", "result_content.ename", "result_content.status", "result_content.x", "attempts.cause",
    "attempts.peak_memory", "attempts.traceback",
    "attempts.0", "attempts.0.x", "attempts.x.y", "attempts.host", "pyout.0", "pyout.x", "pyout.x.y", "pyin.1",
    "content.x.0.y", "error", "content.x", "content.y.x", "error.ename",
]  # fmt: skip


class Drawing:
    """Draws from a seed. `allowed(value)` tells which values a record may hold."""

    def __init__(self, seed: int, allowed: Callable[[Any], bool] = lambda value: True) -> None:
        self.random = Random(seed)
        self._allowed = allowed

    def moment(self, microseconds: int = 5000) -> datetime:
        """One of a few instants, in some zone or none; BSON holds whole milliseconds, so nested ones are such."""
        step = self.random.randrange(4) * microseconds
        at = datetime.fromtimestamp(NOW, UTC) + timedelta(microseconds=step)
        zone = self.random.choice(ZONES)
        return at.astimezone(zone) if zone else at.astimezone().replace(tzinfo=None)

    def scalar(self) -> Any:
        kind = self.random.randrange(12)
        if kind < 1:
            return None
        if kind < 2:
            return self.random.random() < 0.5
        if kind < 6:
            return self.random.choice(NUMBERS)
        if kind < 10:
            return self.random.choice(TEXTS)
        return self.moment() if kind < 11 else self.random.choice([b"", b"a", b"b", b"aa"])

    def value(self, depth: int = 2) -> Any:
        """Anything a record may hold."""
        for _ in range(20):
            found = self._value(depth)
            if self._allowed(found):
                return found
        return None

    def _value(self, depth: int) -> Any:
        kind = self.random.randrange(10) if depth else 0
        if kind < 6:
            return self.scalar()
        if kind < 8:
            return [self._value(depth - 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice(NAMES): self._value(depth - 1) for _ in range(self.random.randrange(3))}

    def dict(self) -> Any:
        return {self.random.choice(NAMES): self.value() for _ in range(self.random.randrange(4))}

    def record(self) -> dict[str, Any]:
        """A record as a dict, some keys missing."""
        choice = self.random.choice
        whole: dict[str, Callable[[], Any]] = {
            "state": lambda: choice(["pending", "completed", "failed", None]), "label": lambda: choice([None, *TEXTS]),
            "header": lambda: choice([None, self.dict()]), "content": self.dict, "metadata": self.dict,
            "result_content": lambda: choice([None, self.dict()]), "submitted": lambda: choice([None, self.moment(1)]),
            "started": lambda: self.moment(1), "completed": lambda: choice([None, self.moment(1)]),
            "code_digest": lambda: choice([None, "a"]), "arguments_digest": lambda: choice([None, "a", "b"]),
            "cached_from": lambda: choice([None, "a"]), "function_name": lambda: choice([None, *TEXTS]),
            "environment": lambda: choice([None, "a"]), "client_uuid": lambda: choice(TEXTS),
            "engine_uuid": lambda: choice(TEXTS), "pyin": self.value,
            "engine_id": lambda: choice([None, -1, 0, 1, 2]), "queue": lambda: choice(["mux", "task"]),
            "function": lambda: choice([None, *TEXTS]), "pyout": self.value, "pyerr": self.value,
            "attempts": lambda: [self.dict() for _ in range(self.random.randrange(3))],
            "stdout": lambda: choice(TEXTS), "buffers": lambda: choice([None, [], [b""], [b"x", b""]]),
        }  # fmt: skip
        return {key: make() for key, make in whole.items() if self.random.random() < 0.6}

    def seconds(self) -> float:
        """Not all of them whole microseconds."""
        return NOW + self.random.randrange(21) * 3e-7

    def entry(self, name: str) -> Entry:
        """A task as the controller writes it."""
        choice, some = self.random.choice, lambda make: make() if self.random.random() < 0.5 else None
        options = some(
            lambda: TaskOptions(
                label=choice([None, *TEXTS]),
                retries=choice([0, 1]),
                metadata=some(lambda: {"x": choice(TEXTS)}),
                cache=some(lambda: CacheKey(choice(["", "a"]), choice(["", "a", "b"]))),
            )
        )
        spec = TaskSpec(
            TaskId(name), Digest(choice([b"\x0f", b""])), b"a", self.seconds(), EngineId(choice([-1, 0, 1])), (),
            options, choice(["apply", "execute"]),
        )  # fmt: skip
        entry = Entry(spec, ClientId(choice(TEXTS)), choice([(), (b"1", b"22")]))
        engine = EngineUuid(choice(TEXTS))
        if self.random.random() < 0.6:
            status = choice(["ok", "error", "aborted"])
            entry.done = TaskDone(spec.id, 1, status, some(self.seconds), self.seconds(), b"r",
                                  EngineId(choice([-1, 0, 1])), stdout=choice(TEXTS),
                                  peak_memory=choice([None, 1, 1 << 40]),
                                  cached_from=choice([None, None, TaskId("a")]))  # fmt: skip
            if status == "error":
                entry.done.error = ErrorInfo(choice(TEXTS), "bad")
            entry.done.content = some(lambda: {choice(["ename", "status", "execute_result"]): choice(TEXTS)})
            entry.received, entry.engine_uuid = self.seconds(), engine
            entry.host = {"e1": "node1", "e2": "node2"}.get(engine)
        elif self.random.random() < 0.3:
            entry.started, entry.engine, entry.engine_uuid = self.seconds(), EngineId(choice([0, 1])), engine
        if self.random.random() < 0.4:
            entry.attempts = [Attempt(0, EngineId(0), engine, "host", None, self.seconds(), choice(TEXTS),
                                      choice([None, 2]), choice([None, "Traceback"]))]  # fmt: skip
        return entry

    # queries

    def operators(self, depth: int = 2) -> dict[str, Any]:
        """{operator: argument}"""
        random = self.random
        kind = random.randrange(20 if depth else 14)
        if kind < 5:
            return {random.choice(["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$ge", "$le"]): self.value()}
        if kind < 8:
            items = [self.value(1) for _ in range(random.randrange(4))]
            if random.random() < 0.15:
                items.append(re.compile(random.choice(PATTERNS)))
            return {random.choice(["$in", "$nin", "$all"]): items}
        if kind < 9:
            return {"$mod": [random.choice([1, 2, -2, 3, 2.7]), random.choice([-1, 0, 1])]}
        if kind < 10:
            return {"$exists": random.random() < 0.5}
        if kind < 11:
            return {"$regex": random.choice(PATTERNS), "$options": random.choice(["", "", "i", "s", "im"])}
        if kind < 12:
            return {"$glob": random.choice(GLOBS)}
        if kind < 13:
            return {"$size": random.randrange(3)}
        if kind < 14:
            kinds = random.choice(TYPES)
            return {"$type": [kinds, random.choice(TYPES)] if random.random() < 0.3 else kinds}
        if kind < 16:
            return {"$not": self.operators(depth - 1) if random.random() < 0.8 else re.compile(random.choice(PATTERNS))}
        if kind < 17:
            return {"$elemMatch": self.operators(depth - 1)}
        if kind < 18:
            inside = self.operators(depth - 1) if random.random() < 0.6 else self.value(1)
            return {"$elemMatch": {random.choice(NAMES): inside}}
        return {**self.operators(depth - 1), **self.operators(depth - 1)}

    def field(self) -> dict[str, Any]:
        """{key: condition, …}"""
        made: dict[str, Any] = {}
        for _ in range(self.random.choice([1, 1, 1, 2])):
            plain = self.random.random() < 0.3
            made[self.random.choice(PATHS)] = self.value() if plain else self.operators()
        return made

    def query(self, depth: int = 2) -> dict[str, Any]:
        """A whole query."""
        if depth and self.random.random() < 0.25:
            parts = [self.query(depth - 1) for _ in range(self.random.randrange(1, 4))]
            return {self.random.choice(["$and", "$or", "$nor"]): parts}
        return self.field()

    def sort(self) -> list[tuple[str, int]] | None:
        """Two keys at most; MongoDB does not sort by two arrays."""
        if self.random.random() < 0.5:
            return None
        return [(self.random.choice(PATHS), self.random.choice([1, -1])) for _ in range(self.random.randrange(1, 3))]
