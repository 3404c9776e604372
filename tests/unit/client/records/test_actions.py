"""Which tasks an action by query takes. No cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from engineroom.client.records.actions import checked, select, select_or_none, taken
from engineroom.client.records.selection import FIRST


class FakeRecords:
    """12 finished tasks, 3 pending ones; it understands only what an action asks."""

    def count(self, query: Mapping[str, Any]) -> int:
        if "'client_uuid'" in str(query):
            return 0  # all tasks are ours
        return {"finished": 12, "pending": 3, "all": 15}[self._meant(query)]

    def find(self, query: Mapping[str, Any], keys: Sequence[str], *, limit: int) -> list[Any]:
        assert list(keys) == ["msg_id"]
        return [{"msg_id": f"{self._meant(query)}-{number}"} for number in range(min(limit, self.count(query)))]

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        return []

    @property
    def session(self) -> str:
        return "mine"

    def _meant(self, query: Mapping[str, Any]) -> str:
        for condition in query.get("$and", [query]):
            if "completed" in condition:
                return "pending" if condition["completed"] is None else "finished"
        return "all"


@pytest.mark.parametrize(
    ("action", "count", "left_out", "kind"),
    [("resubmit", 12, 3, "finished"), ("purge", 12, 3, "finished"), ("abort", 3, 12, "pending"),
     ("cancel", 3, 12, "pending"), ("wait for", 3, 12, "pending"), ("export", 15, 0, "all")],
)  # fmt: skip
def test_an_action_takes_finished_tasks_or_pending_ones(action: str, count: int, left_out: int, kind: str):
    chosen = select(FakeRecords(), {"label": "mine"}, action, dry_run=True)
    assert (chosen.count, chosen.left_out, chosen.dry_run) == (count, left_out, True)
    assert chosen.first == [f"{kind}-{number}" for number in range(min(count, FIRST))]
    assert len(chosen) == count


def test_all_must_be_said():
    with pytest.raises(ValueError, match='say query="all"'):
        checked({}, "purge")
    assert checked("all", "purge") == {}
    assert checked({}, "export") == {}


def test_the_condition_is_added_to_the_query():
    assert taken({"label": "x"}, "abort") == {"$and": [{"label": "x"}, {"completed": None}]}
    assert taken({}, "abort") == {"completed": None}
    assert taken({"label": "x"}, "export") == {"label": "x"}


def test_tasks_or_a_query_not_both():
    records = FakeRecords()
    assert select_or_none(records, None, "abort", dry_run=False, others=["a"]) is None
    with pytest.raises(ValueError, match="give query="):
        select_or_none(records, None, "abort", dry_run=True, others=None)
    with pytest.raises(ValueError, match="not both"):
        select_or_none(records, "all", "abort", dry_run=False, others=["a"])


def test_it_prints_as_a_sentence():
    would = select(FakeRecords(), "all", "purge", dry_run=True)
    assert str(would).startswith("would purge 12 tasks: finished-0, ")
    assert str(would).endswith("…; 3 unfinished ones left out")
