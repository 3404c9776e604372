"""`engineroom`: look at tasks and engines, and act on tasks, from a terminal."""

from __future__ import annotations

import sys
from typing import Any

from .base import EngineroomApp, run
from .commands.bulk_actions import Abort, Cancel, Export, Purge, Resubmit
from .commands.db import Db
from .commands.explain import Explain
from .commands.replay import Replay
from .commands.tasks import Show, Tasks
from .commands.top import Top


class Engineroom(EngineroomApp):
    """Look at the tasks and engines of a cluster, and act on tasks.

    Clusters are started and stopped with `ipcluster`.
    """

    name = "engineroom"
    description = __doc__
    usage = "engineroom COMMAND [options]"
    subcommands: Any = {
        "tasks": (Tasks, "a table of tasks, by query, state or label; also when no cluster is running"),
        "show": (Show, "everything about one task"),
        "explain": (Explain, "why a task is not running, or how it ended"),
        "resubmit": (Resubmit, "run finished tasks again, by query"),
        "abort": (Abort, "end tasks that have not started, by query"),
        "cancel": (Cancel, "end tasks, also running ones, by query"),
        "purge": (Purge, "delete the records of finished tasks, by query; also when no cluster is running"),
        "export": (Export, "write records to a file: JSON lines, CSV, Parquet; also when no cluster is running"),
        "replay": (Replay, "simulate recorded tasks with another scheme, hwm or number of engines"),
        "db": (Db, "task databases: verify, repair, backup, migrate, copy, info"),
        "top": (Top, "what the engines are doing, live"),
    }
    examples = """
engineroom tasks --state=failed
engineroom show 3f9ab2-17
engineroom explain 3f9ab2-17
engineroom replay --engines=8
engineroom db verify
engineroom top
"""

    def start(self) -> None:
        self.print_help()


def main(argv: list[str] | None = None) -> int:
    """Entry point of `engineroom`."""
    return run(Engineroom, argv)


if __name__ == "__main__":
    sys.exit(main())
