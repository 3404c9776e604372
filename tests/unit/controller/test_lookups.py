"""Which questions wait for submissions that are being looked up."""

from __future__ import annotations

from collections.abc import Callable

from engineroom.controller.lookups import Lookups
from engineroom.ids import ClientId, TaskId

ANN, BOB = ClientId("ann"), ClientId("bob")
A = [TaskId("ann-1")]


def asking(lookups: Lookups) -> tuple[Callable[..., bool], list[int]]:
    """A way to ask, which says whether the question has to wait; and the questions that were answered later."""
    answered: list[int] = []

    def ask(number: int, client: ClientId = ANN, *, about_known: bool = False) -> bool:
        return lookups.defers(client, lambda: answered.append(number), about_known=about_known)

    return ask, answered


def test_a_question_waits_for_what_came_before_it_and_no_longer() -> None:
    lookups = Lookups()
    ask, answered = asking(lookups)
    assert not ask(1)
    first, second = lookups.begin(ANN, A), lookups.begin(ANN, A)
    assert ask(2)
    assert not ask(3, BOB), "another's tasks"
    later = lookups.begin(ANN, A)
    lookups.end(second)
    assert answered == []
    lookups.end(first)
    assert answered == [2]
    lookups.end(later)
    assert answered == [2]
    assert not ask(4)


def test_known_tasks_are_aborted_and_explained_at_once() -> None:
    lookups = Lookups()
    ask, answered = asking(lookups)
    known = lookups.begin(ANN, A)
    assert not ask(1, about_known=True)
    assert not ask(2, about_known=True)
    again = lookups.begin(ANN)
    assert ask(3, about_known=True)
    lookups.end(known)
    lookups.end(again)
    assert answered == [3]


def test_an_abort_reaches_tasks_that_are_being_looked_up() -> None:
    lookups = Lookups()
    lookup = lookups.begin(ANN, [TaskId("ann-1"), TaskId("ann-2"), TaskId("ann-3")])
    assert sorted(lookups.of_client(ANN)) == ["ann-1", "ann-2", "ann-3"]
    assert TaskId("ann-1") in lookups
    lookups.abort([TaskId("ann-1"), TaskId("bob-1")], False)
    lookups.abort([TaskId("ann-3")], True)
    assert lookups.aborted(lookup) == {"ann-1": False, "ann-3": True}
    assert TaskId("ann-1") not in lookups
    assert lookups.of_client(ANN) == []


def test_submissions_of_a_client_are_taken_in_in_order() -> None:
    lookups, taken = Lookups(), list[int]()
    assert not lookups.has_submission(ANN)
    first, second, third = (lookups.begin(ANN) for _ in range(3))
    other = lookups.begin(BOB)
    lookups.in_turn(second, lambda: taken.append(2))
    assert taken == []
    lookups.in_turn(other, lambda: taken.append(4))
    assert taken == [4], "that of another client"
    assert lookups.has_submission(ANN)
    assert not lookups.has_submission(BOB)
    lookups.in_turn(first, lambda: taken.append(1))
    assert taken == [4, 1, 2]
    lookups.in_turn(third, lambda: taken.append(3))
    assert taken == [4, 1, 2, 3]
    assert not lookups.has_submission(ANN)
