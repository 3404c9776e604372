"""Classic tasks as objects: what may be given, and what is refused where it is given."""

from __future__ import annotations

import threading

import pytest

from engineroom.on_engine.classic import Work, pickled_work
from engineroom.tasks import MapTask, Task, TaskResult
from engineroom.wire.functions import FunctionCache, load_function


def test_a_task_is_given_all_at_once_or_bit_by_bit():
    def depend(properties):
        return True

    other = Task("pass")
    whole = Task("a = 1", ["a"], {"b": 2}, True, True, 3, other, depend, 4)
    bits = Task("a = 2")
    bits.expression, bits.pull, bits.push = "a = 1", ("a",), {"b": 2}
    bits.clear_before = bits.clear_after = True
    bits.retries, bits.recovery_task, bits.depend, bits.priority = 3, other, depend, 4
    assert vars(whole) == vars(bits)
    bits.pull = bits.push = bits.recovery_task = bits.depend = None
    assert (bits.pull, bits.push, bits.recovery_task, bits.depend) == ((), None, None, None)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"pull": "a b"}, ValueError, "'a b' is not an identifier"),
        ({"pull": ["a", "class"]}, ValueError, "'class' is not an identifier"),
        ({"pull": "a.b"}, ValueError, "not an identifier"),
        ({"pull": ""}, ValueError, "not an identifier"),
        ({"pull": 3}, TypeError, "pull is a name, or a list of names"),
        ({"pull": [3]}, TypeError, "names are strings"),
        ({"pull": {"a": 1}}, TypeError, "pull is a name"),
        ({"push": ["a"]}, TypeError, "push is a dict"),
        ({"push": {"1a": 1}}, ValueError, "'1a' is not an identifier"),
        ({"push": {1: 1}}, TypeError, "names are strings"),
        ({"retries": -1}, ValueError, "retries is a number of times"),
        ({"retries": 1.5}, ValueError, "retries is a number of times"),
        ({"retries": "2"}, ValueError, "retries is a number of times"),
        ({"priority": 0.5}, ValueError, "priority is a whole number"),
        ({"recovery_task": "a = 1"}, TypeError, "a recovery_task is a Task or a MapTask"),
        ({"depend": "ram > 3"}, TypeError, "depend is a function"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, error, words):
    with pytest.raises(error, match=words):
        Task("a = 1", **options)
    with pytest.raises(error, match=words):
        MapTask(abs, (1,), **options)
    task, [(name, value)] = Task("a = 1"), options.items()
    with pytest.raises(error, match=words):
        setattr(task, name, value)
    assert name not in vars(task)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Task(abs), TypeError, "for functions, use MapTask"),
        (lambda: Task(None), TypeError, "made from code"),
        (lambda: MapTask("a = 1"), TypeError, "made from a function"),
        (lambda: MapTask(abs, 3), TypeError, "a tuple or a list"),
        (lambda: MapTask(abs, "3"), TypeError, "a tuple or a list"),
        (lambda: MapTask(abs, (), 3), TypeError, "are a dict"),
        (lambda: MapTask(abs, pull="result"), ValueError, "the name of what its function returns"),
    ],
)
def test_what_a_task_is_made_of_is_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_recovery_tasks_may_form_a_chain_but_no_loop():
    third = Task("3")
    second = MapTask(abs, (1,), recovery_task=third)
    first = Task("1", recovery_task=second)
    assert first.chain() == [first, second, third]
    for task in (first, second, third):
        with pytest.raises(ValueError, match="would be a loop"):
            third.recovery_task = task
    assert first.chain() == [first, second, third]


def test_a_loop_that_was_made_by_force_is_refused_as_well():
    a, b = Task("a"), Task("b")
    a.recovery_task = b
    vars(b)["recovery_task"] = a
    with pytest.raises(ValueError, match="form a loop"):
        a.chain()


def test_the_same_function_and_depend_make_the_same_work():
    cache = FunctionCache()
    called, asked = cache.get(abs).payload, cache.get(lambda properties: properties["ram"] > 3).payload
    assert pickled_work(called, asked) == pickled_work(called, asked)
    assert len({pickled_work(f, d).digest for f in (b"", called) for d in (b"", asked)}) == 4
    work = load_function(pickled_work(called, asked)).call
    assert isinstance(work, Work)
    assert work(((-3,), {})) == {"result": 3}
    assert work.depend({"ram": 4}) is True
    assert work.depend({"ram": 2}) is False


def test_what_cannot_be_unpickled_is_told_when_it_is_called():
    work = Work(b"nonsense", b"nonsense")
    with pytest.raises(Exception, match="invalid load key"):
        work(((), {}))
    with pytest.raises(Exception, match="invalid load key"):
        work.depend({})


def test_a_record_that_says_too_little_is_refused_by_name():
    with pytest.raises(KeyError, match="result_buffers"):
        TaskResult.from_record({"msg_id": "m", "state": "completed"})


def test_pushing_does_not_hold_on_to_the_callers_dict():
    given = {"a": 1}
    task = Task("pass", push=given)
    given["b"] = threading.Lock()
    assert task.push == {"a": 1}
