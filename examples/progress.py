"""Watching tasks: a bar for those that have ended, and what each running task publishes and prints.

    python examples/progress.py [TASKS]

`publish_data` sends values from a task that runs; `ar.data` has them at once. `ar.progress` counts what has ended.
"""

from __future__ import annotations

import sys
import time

from engineroom.datapub import publish_data
from show import count, heading, seconds

import engineroom as er


def integrate(slices, pause):
    """The area under x² from 0 to 1, in slices; it says how far it is."""
    total = 0.0
    for number in range(slices):
        x = (number + 0.5) / slices
        total += x * x / slices
        publish_data({"done": number + 1, "so far": total})
        time.sleep(pause)
    print(f"{slices} slices: {total:.6f}")
    return total


def main():
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with er.Cluster(n=2) as rc:
        heading(f"{count(tasks, 'task')} on {count(len(rc), 'engine')}")
        result = rc.load_balanced_view().map_async(integrate, range(5, 5 + tasks), [0.01] * tasks, chunksize=1)
        seen = 0
        while not result.wait(0.02):
            running = [data for data in result.data if data]
            if running:
                seen = max(seen, max(data["done"] for data in running))
            bar = "█" * result.progress + "░" * (tasks - result.progress)
            furthest = f"the furthest has done {count(seen, 'slice')}"
            print(f"\r  {bar} {result.progress}/{tasks}; {furthest}", end="", flush=True)
        print(f"\r  {'█' * tasks} {result.progress}/{tasks} in {seconds(result.wall_time)}" + " " * 40)
        result.display_outputs("order")
        assert all(abs(value - 1 / 3) < 0.01 for value in result.get())
        result.wait_interactive()  # a bar of its own, where there is a terminal


if __name__ == "__main__":
    main()
