"""`engineroom`: look at tasks and engines, and act on tasks, from a terminal."""

from __future__ import annotations

import sys
from typing import Any

from .base import EngineroomApp, run


def _in(place: str) -> str:
    """The class of a command by its full name: it is imported when it is wanted, because each imports much."""
    return f"{__package__}.commands.{place}"


class Engineroom(EngineroomApp):
    """Look at the tasks and engines of a cluster, and act on tasks.

    Clusters are started and stopped with `ipcluster`.
    """

    name = "engineroom"
    description = __doc__
    usage = "engineroom COMMAND [options]"
    subcommands: Any = {
        "tasks": (_in("tasks.Tasks"), "a table of tasks, by query, state or label; also when no cluster is running"),
        "show": (_in("show.Show"), "everything about one task"),
        "watch": (_in("watch.Watch"), "tasks that match a query, as they change"),
        "explain": (_in("explain.Explain"), "why a task is not running, or how it ended"),
        "resubmit": (_in("bulk_actions.Resubmit"), "run finished tasks again, by query"),
        "abort": (_in("bulk_actions.Abort"), "end tasks that have not started, by query"),
        "cancel": (_in("bulk_actions.Cancel"), "end tasks, also running ones, by query"),
        "purge": (_in("bulk_actions.Purge"), "delete records of finished tasks, by query; also without a cluster"),
        "export": (_in("bulk_actions.Export"), "write records to a file: JSON lines, CSV or Parquet"),
        "replay": (_in("replay.Replay"), "simulate recorded tasks with another scheme, hwm or number of engines"),
        "db": (_in("db.Db"), "task databases: verify, repair, backup, migrate, copy, info"),
        "key": (_in("key.Key"), "connection files with lesser rights (read-only, submit-only), and new keys"),
        "top": (_in("top.Top"), "what the engines are doing, live"),
        "completion": (_in("completion.Completion"), "a script for bash or zsh that completes commands and options"),
        "k8s": (_in("k8s.K8s"), "the manifests of a cluster in Kubernetes"),
        "dashboard": (_in("dashboard.DashboardApp"), "the same and more in a browser; also when no cluster is running"),
    }
    examples = """
engineroom tasks --state=failed
engineroom watch --state=failed
engineroom show 3f9ab2-17
engineroom explain 3f9ab2-17
engineroom replay --engines=8
engineroom db verify
engineroom top
engineroom dashboard
"""

    def start(self) -> None:
        self.print_help()


def main(argv: list[str] | None = None) -> int:
    """Entry point of `engineroom`."""
    return run(Engineroom, argv)


if __name__ == "__main__":
    sys.exit(main())
