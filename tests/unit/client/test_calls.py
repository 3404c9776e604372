"""Which tasks make one result: noted, and read again."""

from __future__ import annotations

from typing import Any

import msgspec

from engineroom.client.calls import call_of, calls_in
from engineroom.ids import TaskId


def ids(*numbers: int) -> list[TaskId]:
    return [TaskId(f"abc-{number}") for number in numbers]


def records(*tasks: TaskId, **calls: Any) -> list[dict[str, Any]]:
    """Records of tasks; `t7=call` notes a call in that of abc-7."""
    noted = {TaskId(f"abc-{name[1:]}"): msgspec.to_builtins(call) for name, call in calls.items()}
    return [
        {"msg_id": id, "function_name": "f", "label": None, "client_uuid": "abc",
         "header": {"msg_type": "apply_request", **({"call": noted[id]} if id in noted else {})}}
        for id in tasks
    ]  # fmt: skip


def test_single_tasks_and_lists_and_maps_come_back_in_order():
    listed = call_of(ids(2, 3, 6), "list", {}, None, 0)
    assert listed.numbers == ((2, 2), (6, 1))
    mapped = call_of(ids(4, 5), "map", dict(zip(ids(4, 5), (10, 3), strict=True)), None, 0)
    found = calls_in(records(*ids(1, 2, 3, 4, 5, 6, 7), t2=listed, t4=mapped))
    assert [(call.ids, call.shape, call.sizes) for call in found] == [
        (ids(1), "single", None),
        (ids(2, 3, 6), "list", None),
        (ids(4, 5), "map", dict(zip(ids(4, 5), (10, 3), strict=True))),
        (ids(7), "single", None),
    ]


def test_a_list_of_one_is_no_single_task():
    [found] = calls_in(records(*ids(1), t1=call_of(ids(1), "list", {}, None, 0)))
    assert found.shape == "list"


def test_the_pieces_of_a_map_that_grows_are_one_result_and_what_was_never_submitted_is_counted():
    sizes = dict.fromkeys(ids(1, 2, 5), 100)
    first = call_of(ids(1, 2), "map", sizes, ids(1)[0], 1000)
    second = call_of(ids(5), "map", sizes, ids(1)[0], 1000)
    whole, other = calls_in(records(*ids(1, 2, 3, 5), t1=first, t5=second))
    assert (whole.ids, whole.missing) == (ids(1, 2, 5), 700)
    assert whole.sizes == sizes
    assert other.ids == ids(3)


def test_purged_tasks_are_left_out_and_nonsense_in_a_record_is_no_call():
    listed = call_of(ids(1, 2, 3), "list", {}, None, 0)
    assert calls_in(records(*ids(1, 3), t1=listed))[0].ids == ids(1, 3)
    assert [call.shape for call in calls_in(records(*ids(1), t1={"odd": 1}))] == ["single"]
    assert calls_in([]) == []
