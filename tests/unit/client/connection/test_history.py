"""The msg_ids of a client, kept as numbers: they read like a list."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from engineroom.client.connection import history as module
from engineroom.client.connection.history import RECENT, History, Marks
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
    for stranger in ("other-1", "5e55-", "5e55-x", "5e55-²", "5e55-01", "5e55-" + "9" * 5000, 1, None):
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


def test_a_hundred_thousand_tasks_take_no_memory():
    made = History(SESSION)
    gc.collect()
    before = len(gc.get_objects())
    tracemalloc.start()
    for number in range(100_000):
        made.append(TaskId(f"{SESSION}-{number}"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(gc.get_objects()) - before < 100
    assert size < 10 * RECENT
    assert len(made) == 100_000


@pytest.mark.parametrize("seed", range(20))
def test_it_is_like_a_list_with_any_numbers(monkeypatch: pytest.MonkeyPatch, seed: int):
    monkeypatch.setattr(module, "RECENT", 5)
    random = Random(seed)
    made, numbers, next = History(SESSION), [], 500
    for _ in range(60):
        next += random.choice([1, 1, 1, 1, 1, 3, -8, 20])
        match random.randrange(6):
            case 0:
                made.extend(ids(*range(next, next + 4)))
                numbers += range(next, next + 4)
                next += 3
            case 1:
                gone = random.sample(numbers, min(2, len(numbers)))
                made.forget(ids(*gone))
                numbers = [number for number in numbers if number not in gone]
            case 2:
                made.add_number(next)
                numbers.append(next)
                made.tidy()
            case _:
                made.append(*ids(next))
                numbers.append(next)
        expected = ids(*numbers)
        assert (made, list(made), len(made), made.copy()) == (expected, expected, len(expected), made)
        assert made[2:-2] == expected[2:-2]
        assert made[::-3] == expected[::-3]
        assert [made[i] for i in (0, -1) if numbers] == [expected[i] for i in (0, -1) if numbers]
        assert made.among(ids(*range(1500))) == set(expected)
        if numbers:
            some = random.choice(numbers)
            assert made.index(*ids(some)) == numbers.index(some)
    with pytest.raises(IndexError):
        made[len(numbers)]


def test_it_can_be_pickled_and_copied():
    made = history(1, 2, 5)
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):
        assert other == made
        other.append(*ids(9))
        assert len(made) == 3


def test_errors_name_what_was_asked_for():
    made = history(1, 2, 5)
    with pytest.raises(IndexError, match="has 3 tasks; there is no number 7"):
        made[7]
    with pytest.raises(ValueError, match="'5e55-1' is not in this part"):
        made.index(*ids(1), 1)


def test_threads_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RECENT", 50)
    made = History(SESSION)

    def add(thread: int) -> None:
        for number in range(thread * 10_000, thread * 10_000 + 2_000):
            made.append(*ids(number))
            assert ids(number)[0] in made

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert len(made) == 8_000
    assert set(made) == set(ids(*(thread * 10_000 + i for thread in range(4) for i in range(2_000))))


def test_marks():
    marks = Marks(history())
    marks.add(ids(5, 2))
    assert [number for number in range(9) if ids(number)[0] in marks] == [2, 5]
    assert "other-5" not in marks
