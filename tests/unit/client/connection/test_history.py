"""The msg_ids of a client, kept as numbers: they read like a list."""

from __future__ import annotations

import gc
import sys

from engineroom.client.connection.history import History, Marks
from engineroom.client.records.query_args import plain_query
from engineroom.ids import ClientId, TaskId

SESSION = ClientId("5e55")


def ids(*numbers: int) -> list[TaskId]:
    return [TaskId(f"{SESSION}-{number}") for number in numbers]


def history(*numbers: int) -> History:
    made = History(SESSION)
    made.extend(ids(*numbers))
    return made


def test_it_reads_like_a_list():
    made = history(3, 4, 7)
    made.append(ids(9)[0])
    assert list(made) == ids(3, 4, 7, 9)
    assert made == ids(3, 4, 7, 9)
    assert (len(made), made[0], made[-1], made[1:3]) == (4, *ids(3, 9), ids(4, 7))
    assert ids(7)[0] in made
    assert made.index(ids(7)[0]) == 2
    assert list(reversed(made)) == ids(9, 7, 4, 3)
    assert made + ids(1) == ids(3, 4, 7, 9, 1)
    assert ids(1) + made == ids(1, 3, 4, 7, 9)
    assert repr(made[:1]) == "['5e55-3']"
    assert history() == []


def test_ids_of_others_are_not_in_it():
    made = history(1)
    for stranger in ("other-1", "5e55-", "5e55-x", "5e55-²", 1, None):
        assert stranger not in made
    assert made.among([*ids(1, 2), TaskId("other-1")]) == set(ids(1))


def test_forgetting():
    made = history(1, 2, 3, 4)
    made.forget([*ids(2, 4), TaskId("other-3")])
    assert made == ids(1, 3)
    made.clear()
    assert made == []


def test_a_copy_does_not_grow():
    made = history(1)
    before = made.copy()
    for id in made:  # ends, though the loop adds
        made.append(id)
    assert (before, made) == (history(1), history(1, 1))


def test_it_can_be_asked_for_in_a_query():
    assert plain_query({"msg_id": {"$in": history(1, 2)}}) == {"msg_id": {"$in": ids(1, 2)}}


def test_a_hundred_thousand_tasks_are_one_object_of_eight_bytes_each():
    made = History(SESSION)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(100_000):
        made.append(TaskId(f"{SESSION}-{number}"))
    assert len(gc.get_objects()) - before < 100
    assert sys.getsizeof(made._numbers) < 1_000_000


def test_marks():
    marks = Marks(history())
    marks.add(ids(5, 2))
    assert [number for number in range(9) if ids(number)[0] in marks] == [2, 5]
    assert "other-5" not in marks
