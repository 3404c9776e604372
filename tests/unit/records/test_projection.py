"""Parts of records under dotted keys."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.records.projection import part_of, projected, whole_keys
from engineroom.records.record import TaskRecord

RECORD = TaskRecord(
    msg_id="a",
    label="x",
    metadata={"run": 7, "deep": {"er": [1, 2]}},
    attempts=[{"host": "n1", "peak_memory": 5}, {"host": "n2", "peak_memory": None}],
    result_content=None,
    pyin="1",
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label", "x"),
        ("metadata.run", 7),
        ("metadata.deep.er", [1, 2]),
        ("metadata.deep.er.1", 2),
        ("metadata.other", None),
        ("attempts.peak_memory", [5, None]),
        ("attempts.0.host", "n1"),
        ("attempts.5.host", None),
        ("result_content.ename", None),
        ("label.inside", None),
        ("execute_input", "1"),
    ],
)
def test_parts(key: str, value: Any):
    assert part_of(RECORD, key) == value


def test_records_have_the_keys_that_were_asked_for():
    assert whole_keys(["attempts.host", "label", "attempts.cause"]) == ["attempts", "label"]
    assert projected(RECORD, ["attempts.host", "label"]) == {"msg_id": "a", "attempts.host": ["n1", "n2"], "label": "x"}
