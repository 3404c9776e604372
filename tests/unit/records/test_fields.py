"""The table of a record's keys, and what is derived from it."""

from __future__ import annotations

from datetime import datetime

import pytest
from support.entries import failed, finished, pending

from engineroom.messages import TaskOptions
from engineroom.records.entry import Entry
from engineroom.records.fields import ALIASES, BULKY, DEFAULT_KEYS, FIELD, FIELDS, KEYS, NESTED, NUMBERS, TEXTS, TIMES
from engineroom.records.record import document
from engineroom.records.states import ENDED_STATES, STATE_OF_STATUS, STATES, STATUS_OF_STATE


def cell() -> Entry:
    entry = finished("cell", payload=b"")
    entry.spec.kind, entry.spec.payload = "execute", b"1 + 1"
    entry.spec.options = TaskOptions(label="sum", metadata={"run": 1})
    assert entry.done is not None
    entry.done.content = {"execute_result": {"text/plain": "2"}}
    return entry


@pytest.mark.parametrize("entry", [pending(), finished(), failed(), cell()], ids=["pending", "ok", "error", "cell"])
def test_every_value_is_of_the_type_that_its_row_says(entry: Entry) -> None:
    record = document(entry)
    assert list(record) == list(KEYS)
    for field in FIELDS:
        assert record[field.name] is None or isinstance(record[field.name], field.type), field.name


def test_times_have_seconds_and_nothing_else_has() -> None:
    entry, record = finished(), document(finished())
    assert {field.name for field in FIELDS if field.seconds} == TIMES
    for field in FIELDS:
        if field.seconds:
            seconds, moment = field.seconds(entry), record[field.name]
            assert isinstance(moment, datetime)
            assert seconds == pytest.approx(moment.timestamp(), abs=1e-6)


def test_each_key_belongs_to_one_group() -> None:
    groups = [TIMES, NESTED, TEXTS, NUMBERS, BULKY, {"pinned"}]
    assert sorted(name for group in groups for name in group) == sorted(KEYS)
    assert set(DEFAULT_KEYS) == set(KEYS) - BULKY


def test_an_alias_is_no_key_and_names_one() -> None:
    assert not ALIASES.keys() & KEYS.keys()
    assert set(ALIASES.values()) <= set(KEYS)
    assert document(cell())["execute_input"] == "1 + 1"


def test_what_is_known_at_submission_stays_when_the_task_ends() -> None:
    before, after = document(pending()), document(finished())
    assert {key for key in KEYS if before[key] != after[key]} <= {f.name for f in FIELDS if f.outcome}
    assert FIELD["state"].outcome
    assert not FIELD["label"].outcome


def test_states_and_statuses_are_each_others_inverse() -> None:
    assert set(STATES) == {"pending", "running", *ENDED_STATES}
    assert set(STATE_OF_STATUS.values()) == set(STATUS_OF_STATE) == set(ENDED_STATES)
    assert all(STATUS_OF_STATE[STATE_OF_STATUS[status]] == status for status in STATE_OF_STATUS)
