"""A parameter sweep, and questions to its records.

    python examples/parameter_sweep.py

How fast does the logistic map x → r·x·(1-x) forget where it began? One labelled task per r; some are
nonsense and fail. Afterwards the database says which are done, how long each took and what went wrong.
"""

from __future__ import annotations

import math

import engineroom as er


def lyapunov(r, steps=20_000):
    """The map's Lyapunov exponent at r: positive means chaos."""
    if not 0 < r <= 4:
        raise ValueError(f"r must be in (0, 4], got {r}")
    x, total = 0.4, 0.0
    for _ in range(steps):
        x = r * x * (1 - x)
        total += math.log(abs(r * (1 - 2 * x)) or 1e-300)
    return total / steps


def main():
    sweep = {f"r={r:.2f}": r for r in (2.5 + 0.05 * step for step in range(33))}  # up to 4.1
    with er.Cluster(n=2) as rc:
        view = rc.load_balanced_view()
        tasks = {}
        for label, r in sweep.items():
            with view.temp_flags(label=label):
                tasks[label] = view.apply_async(lyapunov, r)
        rc.wait(list(tasks.values()))

        mine = {"msg_id": {"$in": [task.msg_ids[0] for task in tasks.values()]}}
        done = rc.db_query(mine | {"state": "completed"}, keys=["label", "started", "completed"])
        failed = rc.db_query(mine | {"state": "failed"}, keys=["label", "result_content"])
        chaotic = [record["label"] for record in done if tasks[record["label"]].get() > 0]
        work = sum((record["completed"] - record["started"]).total_seconds() for record in done)
        print(f"{len(done)} values of r in {work:.2f} s of work, {len(failed)} failed")
        print(f"chaos at {', '.join(sorted(chaotic))}")
        for record in failed:
            print(f"{record['label']}: {record['result_content']['ename']}: {record['result_content']['evalue']}")


if __name__ == "__main__":
    main()
