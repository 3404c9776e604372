"""Tasks as objects: a sweep in which some fail and are recovered, and large ones go where there is memory.

    python examples/classic_tasks.py

It needs no running cluster: it makes one for itself.
"""

from __future__ import annotations

import engineroom as er
from engineroom.tasks import Task, TaskClient


def roomy(properties):
    """Where large tasks may run."""
    return properties["ram"] >= 16


def main() -> None:
    """Run a sweep, and say what became of it."""
    with er.Cluster(n=2) as rc:
        rc[0].set_properties({"ram": 4}, block=True)
        rc[1].set_properties({"ram": 64}, block=True)
        tc = TaskClient(rc)
        coarse = Task("y = round(1 / (n - 7 + 0.5), 3)", pull="y")
        ids = []
        for n in range(20):
            task = Task("y = round(1 / (n - 7), 3)", pull="y", push={"n": n}, retries=1)
            if n > 15:
                task.depend = roomy
            task.recovery_task = Task(coarse.expression, pull="y", push={"n": n})
            ids.append(tc.run(task))
        tc.barrier(ids)
        results = [tc.get_task_result(id) for id in ids]
        print("values:", *(result.ns.y for result in results))
        print("engines of the large ones:", {result.engineid for result in results[16:]})
        print(tc.queue_status())


if __name__ == "__main__":
    main()
