"""What is dropped from a database, and when."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.config import RetentionSettings, amount, retention_settings
from engineroom.errors import ConfigError
from engineroom.stores.maintenance.retention import steps

DAY = 86400.0


def due(now: float, **given: Any) -> list[tuple[str, dict[str, Any], float]]:
    return [(s.drops, s.query, now - s.before.timestamp()) for s in steps(retention_settings(given), now)]


def test_nothing_is_due_unless_it_is_said() -> None:
    assert due(1e9) == []
    assert not RetentionSettings(payload_bytes=None).drops
    assert not retention_settings({"payload_bytes": None, "rules": [{"state": "failed"}]}).drops


def test_large_buffers_are_bounded_unless_it_is_said() -> None:
    assert RetentionSettings().drops
    assert RetentionSettings().payload_bytes == 10 << 30


def test_buffers_may_go_before_records() -> None:
    assert due(1e9, age="30d", payload_age="1d") == [("records", {}, 30 * DAY), ("payloads", {}, DAY)]
    assert due(1e9, age="1d", payload_age="30d") == [("records", {}, DAY)], "a record that goes takes its buffers along"


def test_the_first_rule_that_fits_decides() -> None:
    rules = [{"state": "failed"}, {"label": "test-*", "age": "1h"}]
    test = {"label": {"$glob": "test-*"}}
    assert due(1e9, age="1d", rules=rules) == [
        ("records", {**test, "$nor": [{"state": "failed"}]}, 3600.0),
        ("records", {"$nor": [{"state": "failed"}, test]}, DAY),
    ]


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [("90", "seconds", 90), (1.5, "seconds", 1.5), ("12h", "seconds", 43200), (" 2 W ", "seconds", 14 * DAY),
     ("10GB", "bytes", 10**10), ("2 GiB", "bytes", 2 << 30), (0, "bytes", 0), ("1e9", "bytes", 10**9)],
)  # fmt: skip
def test_amounts(text: Any, kind: str, number: float) -> None:
    assert amount(text, kind) == number


@pytest.mark.parametrize(
    ("given", "named"),
    [({"age": "30 days"}, "age is a number of seconds"), ({"bytes": "-1"}, "bytes is a number"), ({"aeg": 3}, "aeg"),
     ({"rules": [{"count": 3}]}, "count"), ({"rules": [{"state": "pending"}]}, "completed, failed, aborted"),
     ({"rules": {"state": "failed"}}, "list of dicts"), ({"count": "many"}, "count"), ({"count": -1}, "count"),
     ({"interval": 0}, "interval"), ({"rules": [3]}, "retention"), ({"age": True}, "age")],
)  # fmt: skip
def test_what_makes_no_sense_is_named(given: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        retention_settings(given)
