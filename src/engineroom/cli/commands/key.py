"""`engineroom key`: connection files with lesser rights, and new keys for a cluster."""

from __future__ import annotations

import json
from typing import ClassVar, cast

from ...cluster.keys import rotate_keys, write_key
from ...errors import ConfigError
from ...messages.rights import Rights
from ..base import UsageError
from .records import RecordsApp

#: What is written, and what its holder can do.
ALLOWS = {
    "readonly": "see all tasks, records and results; change nothing",
    "submit": "submit tasks; see and abort those of its own session",
    "engine": "be an engine: run tasks, and send results",
}
ROTATE = "rotate"


class Key(RecordsApp):
    """Write a connection file with lesser rights for a running cluster, or give the cluster new keys.

    WHAT is `readonly`, `submit` or `engine`: the file is written beside the one for clients, and its path is printed.
    A client with it: `Client("…/ipcontroller-readonly.json")`. It works as long as the cluster has its keys.

    Or WHAT is `rotate`: all connection files get new keys, and the old ones let nobody in any more. The controller is
    killed, and started again by what started it; so are the engines that read a connection file on this host.
    Load-balanced tasks that have not ended stay in the queue; running ones begin again (those with at_most_once fail).
    Direct tasks fail: they were for engines that begin anew, without their variables, and perhaps with other numbers.
    Clients have to connect again.
    """

    description = __doc__
    usage = "engineroom key WHAT [options]"
    positional: ClassVar[tuple[int, int, str]] = (1, 1, "WHAT")
    examples = """
engineroom key readonly
engineroom key submit --profile=lab
engineroom key rotate
"""

    def start(self) -> None:
        [what] = self.extra_args
        if what not in (*ALLOWS, ROTATE):
            raise UsageError(f"WHAT is one of {', '.join((*ALLOWS, ROTATE))}; got {what!r}")
        found = self.found(anywhere=True)
        if not found.running:
            raise ConfigError(
                f"{found} is not running on this host. A cluster that starts makes new keys: {found.how_to_start()}"
            )
        if what == ROTATE:
            paths = [str(path) for path in rotate_keys(found.files)]
        else:
            paths = [str(write_key(found.files, cast(Rights, what)))]
        if self.json:
            print(json.dumps(paths))
        elif what == ROTATE:
            print(
                "The cluster has new keys, and its controller was started again; its engines begin anew. These files "
                "were written; copies of the old ones are worth nothing now:"
            )
            print("\n".join(paths))
        else:
            print(f"{paths[0]}: it can {ALLOWS[what]}.")
