"""Options of launchers on the command line: those that many launchers have, and `--option NAME=VALUE` for others."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, Integer, Unicode
from traitlets.config import Configurable

from ..launchers.registry import OURS


class LauncherOptions(Configurable):
    """What is asked of a launcher of engines."""

    account = Unicode("", help="Batch systems: who pays.").tag(config=True)
    queue = Unicode("", help="Batch systems: the queue, or the partition.").tag(config=True)
    walltime = Unicode("", help="Batch systems: the longest time of a job: 90m, 2h, HH:MM:SS.").tag(config=True)
    memory = Unicode("", help="Batch systems: the memory of a job: 4GB.").tag(config=True)
    gpus = Integer(0, help="Batch systems: GPUs of a job.").tag(config=True)
    constraint = Unicode("", help="Batch systems: which hosts will do.").tag(config=True)
    engines_per_job = Integer(0, help="Batch systems: engines of one job, which runs on one host.").tag(config=True)
    template_file = Unicode("", help="Batch systems: your own template of the job script.").tag(config=True)
    options = Dict(help="Another option of the launcher, NAME=VALUE. Can be given several times.").tag(config=True)

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        own = {name: getattr(self, name) for name in self.class_own_traits() if name not in ("options",)}
        return {**{name: value for name, value in own.items() if value}, **self.options}


#: Options for the commands that start engines.
ALIASES = {
    "account": "LauncherOptions.account",
    "queue": "LauncherOptions.queue",
    "walltime": "LauncherOptions.walltime",
    "memory": "LauncherOptions.memory",
    "gpus": "LauncherOptions.gpus",
    "constraint": "LauncherOptions.constraint",
    "engines-per-job": "LauncherOptions.engines_per_job",
    "template-file": "LauncherOptions.template_file",
    "option": "LauncherOptions.options",
}

#: those of this package: to look for others takes a while
LAUNCHERS = ", ".join(OURS)
