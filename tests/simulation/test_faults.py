"""Every operation of the store and every send fails, one after the other: each accepted task ends all the same."""

from __future__ import annotations

from collections import Counter

import pytest

from engineroom.config import SchedulerSettings
from engineroom.controller.supplies import input_values
from engineroom.ids import Digest, TaskId
from engineroom.messages import GraphDependency, TaskOptions, TaskSpec
from engineroom.testing import Run, VirtualCluster


def id_of(number: int) -> TaskId:
    return TaskId(f"me-{number}")


def cluster_with_work() -> VirtualCluster:
    """Three engines; tasks that call functions, take results of others, wait for others, or fail; and a restart."""
    cluster = VirtualCluster(
        3,
        lambda spec, attempt: Run(0.05, "error" if spec.id == id_of(4) and attempt == 1 else "ok"),
        settings=SchedulerSettings(hwm=1, outcomes_kept=4),
    )
    options = {
        2: TaskOptions(inputs=(id_of(0), id_of(1))),
        3: TaskOptions(after=GraphDependency((id_of(2),))),
        4: TaskOptions(retries=1),
        8: TaskOptions(inputs=(id_of(0),)),  # it comes when the core has forgotten the other's outcome
        9: TaskOptions(follow=GraphDependency((id_of(1),))),
    }
    specs = [TaskSpec(id_of(n), Digest(b"f%d" % (n % 2)), b"", 0.0, options=options.get(n)) for n in range(12)]
    cluster.plan(0.0, "me", specs[:8])
    cluster.plan(0.6, "me", specs[8:])
    cluster.clock.later(0.75, cluster.restart)
    cluster.clock.later(0.9, lambda: cluster.submit(cluster.clients[id_of(0)], specs[:3]))  # sent again
    return cluster


@pytest.mark.fault(12, 19)
def test_every_accepted_task_ends_whatever_fails() -> None:
    number, kinds = 0, Counter[str]()
    while True:
        number += 1
        cluster = cluster_with_work()
        cluster.fail(number)
        try:
            cluster.run()
        except BaseException as error:
            error.add_note(f"operation {number} failed: {cluster.operations[number - 1]}")
            raise
        assert len(cluster.done) == 12
        if len(cluster.operations) < number:
            break
        kinds[cluster.operations[number - 1].split()[0]] += 1
    assert {done.status for done in cluster.done.values()} == {"ok"}, "nothing failed in the last run"
    assert set(kinds) >= {"send", "write", "add_functions", "get_function", "entries", "find_records"}, str(kinds)


def test_arguments_that_have_left_memory_are_read_before_their_task_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_values, "LIMIT", 0)
    cluster = VirtualCluster(2, lambda spec, attempt: Run(0.05), settings=SchedulerSettings(hwm=0))
    first = [TaskSpec(id_of(n), Digest(b"f"), b"", 0.0) for n in range(2)]
    late = [TaskSpec(id_of(2), Digest(b"f"), b"", 0.0, options=TaskOptions(after=GraphDependency((id_of(9),))))]
    both = TaskOptions(inputs=(id_of(0), id_of(1)), after=GraphDependency((id_of(2),)))
    specs = [TaskSpec(id_of(n), Digest(b"f"), b"", 0.0, options=both) for n in range(3, 9)]
    cluster.plan(0.0, "me", [*first, *late, *specs])
    cluster.plan(0.5, "me", [TaskSpec(id_of(9), Digest(b"f"), b"", 0.0)])
    reads: list[str] = []
    cluster.store.fault = reads.append
    cluster.run()
    assert {done.status for done in cluster.done.values()} == {"ok"}
    assert reads.count("entries") > 0, "the engines asserted that the arguments came"
