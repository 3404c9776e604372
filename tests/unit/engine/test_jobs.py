"""The tasks that an engine has been given and has not begun."""

from __future__ import annotations

import pytest

from engineroom.engine.jobs import Job, Jobs
from engineroom.ids import Digest, EngineId, TaskId
from engineroom.messages import AttemptKey, InputResult, Run, TaskOptions, TaskSpec

F, G = Digest(b"f" * 16), Digest(b"g" * 16)


def spec(id: str, function: Digest = F, engine: int = -1, inputs: tuple[str, ...] = ()) -> TaskSpec:
    options = TaskOptions(inputs=tuple(TaskId(i) for i in inputs)) if inputs else None
    return TaskSpec(TaskId(id), function, b"", 0.0, EngineId(engine), (), options)


def run(*specs: TaskSpec, values: tuple[InputResult, ...] = ()) -> Run:
    return Run(list(specs), [1] * len(specs), values=list(values))


def ids(jobs: object) -> list[str]:
    return [job[0].id for job in jobs]  # type: ignore[attr-defined]


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_tasks_are_queued_in_order_with_their_own_frames(jobs: Jobs):
    first, second = spec("a"), spec("b")
    second.frames = (1,)
    assert jobs.take(run(first, second), [b"0", b"1"])
    assert ids(jobs.queue) == ["a", "b"]
    assert [job[2] for job in jobs.queue] == [(), (b"1",)]


def test_a_task_without_its_function_waits_for_it(jobs: Jobs):
    jobs.take(run(spec("a"), spec("b"), spec("c", G)), ())
    a, b = jobs.queue.popleft(), jobs.queue.popleft()
    assert jobs.park(a), "the function is to be asked for"
    assert not jobs.park(b), "it has been asked for"
    assert ids(jobs.queue) == ["c"]
    assert ids(jobs) == ["c", "a", "b"]
    jobs.unpark(F)
    assert ids(jobs.queue) == ["a", "b", "c"], "they are next, in order"
    jobs.unpark(F)
    assert ids(jobs.queue) == ["a", "b", "c"]


def test_tasks_whose_function_cannot_be_had_are_let_go_of(jobs: Jobs):
    jobs.take(run(spec("a")), ())
    jobs.park(jobs.queue.popleft())
    assert jobs.take_parked(G) == []
    assert ids(jobs.take_parked(F)) == ["a"]
    assert list(jobs) == []


def test_unstarted_tasks_are_given_back_wherever_they_wait(jobs: Jobs):
    jobs.take(run(spec("a"), spec("b"), spec("c")), ())
    jobs.park(jobs.queue.popleft())
    queue = jobs.queue
    assert jobs.give_back({TaskId("a"), TaskId("c"), TaskId("running")}) == [AttemptKey("c", 1), AttemptKey("a", 1)]
    assert ids(queue) == ["b"], "in place: the main thread works on this queue"
    assert jobs.give_back(None) == [AttemptKey("b", 1)]
    assert list(jobs) == []


def test_load_balanced_tasks_of_a_function_are_taken_out(jobs: Jobs):
    jobs.take(run(spec("a"), spec("direct", engine=0), spec("other", G), spec("b")), ())
    assert ids(jobs.take_out(F)) == ["a", "b"]
    assert ids(jobs.queue) == ["direct", "other"]


def test_a_task_gets_the_results_that_it_takes_as_arguments(jobs: Jobs):
    value = InputResult(TaskId("v"), b"pickled", (0,))
    assert jobs.take(run(spec("a", inputs=("v",)), values=(value,)), [b"large"])
    [job] = jobs.queue
    assert job[3] == {"v": (b"pickled", (b"large",))}
    assert jobs.take(run(spec("b", inputs=("v",))), ()), "the engine keeps it"
    assert jobs.queue[1][3] == job[3]


def test_a_missing_value_leads_to_a_new_beginning_once(jobs: Jobs):
    """The engine's and the controller's idea of what it has differ when a message was lost."""
    short = run(spec("a", inputs=("lost",)), spec("b"))
    assert not jobs.take(short, ()), "say Hello again"
    assert ids(jobs.queue) == ["b"]
    assert jobs.take(run(spec("c", inputs=("lost",))), ()), "this has been said"
    jobs.welcomed()
    assert jobs.take(run(spec("a", inputs=("lost",))), ()), "nobody has it: the task runs, and says so"
    [_, job] = jobs.queue
    assert (job[0].id, job[3]) == ("a", {})


def test_after_a_welcome_values_are_sent_anew(jobs: Jobs):
    jobs.take(run(spec("a", inputs=("v",)), values=(InputResult(TaskId("v"), b"pickled"),)), ())
    jobs.welcomed()
    assert not jobs.take(run(spec("b", inputs=("v",))), ())


def test_a_job_is_named_by_task_and_attempt():
    from engineroom.engine.jobs import held

    job: Job = (spec("a"), 3, (), None)
    assert held(job) == AttemptKey("a", 3)


# -------------------------------------------------------------------------------------------- order


def test_direct_tasks_wait_behind_one_that_waits_for_its_function(jobs: Jobs):
    first, behind, later = spec("first", engine=0), spec("behind", G, engine=0), spec("later", G, engine=0)
    jobs.take(run(first, behind, spec("any", G)), ())
    assert jobs.park(jobs.queue.popleft())
    assert ids(jobs.queue) == ["any"]
    jobs.take(run(later, spec("another", G)), ())
    assert ids(jobs.queue) == ["any", "another"]
    assert ids(jobs) == ["any", "another", "first", "behind", "later"]
    assert jobs.awaited_functions() == [F]
    jobs.unpark(F)
    assert ids(jobs.queue) == ["first", "behind", "later", "any", "another"]
    jobs.take(run(spec("last", engine=0)), ())
    assert ids(jobs.queue)[-1] == "last"


def test_direct_tasks_go_on_when_the_function_cannot_be_had(jobs: Jobs):
    jobs.take(run(spec("first", engine=0), spec("behind", G, engine=0)), ())
    jobs.park(jobs.queue.popleft())
    assert ids(jobs.take_parked(F)) == ["first"]
    assert ids(jobs.queue) == ["behind"]


def test_direct_tasks_that_wait_are_given_back_too(jobs: Jobs):
    jobs.take(run(spec("first", engine=0), spec("behind", G, engine=0), spec("last", G, engine=0)), ())
    jobs.park(jobs.queue.popleft())
    assert jobs.give_back({TaskId("behind")}) == [AttemptKey("behind", 1)]
    jobs.unpark(F)
    assert ids(jobs.queue) == ["first", "last"]


def test_a_second_direct_task_without_its_function_waits_in_its_turn(jobs: Jobs):
    jobs.take(run(spec("first", engine=0), spec("second", G, engine=0)), ())
    jobs.park(jobs.queue.popleft())
    jobs.unpark(F)
    jobs.queue.popleft()
    jobs.park(jobs.queue.popleft())
    assert jobs.awaited_functions() == [G]
    jobs.unpark(F)
    assert ids(jobs.queue) == []
    jobs.unpark(G)
    assert ids(jobs.queue) == ["second"]
