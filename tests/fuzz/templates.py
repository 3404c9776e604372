"""Batch systems: options and templates as users write them, and the answers of the systems' commands.

`TemplatesTarget`: a case is a list in msgpack, `[launcher, number of engines, options]`. A script comes of it, or a
ConfigError. `BatchAnswersTarget`: a case is the number of a batch system and the text that its status command prints.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engineroom.errors import ConfigError, LaunchError
from engineroom.launchers import LaunchRequest
from engineroom.launchers.batch.system import BatchSystem, Part
from engineroom.launchers.registry import launcher_class, read_options

from . import mutations
from .target import Finding, Target, TreeTarget

_NAMES = ("slurm", "pbs", "sge", "lsf", "htcondor", "batch")
_FIELDS = (
    "n", "jobs", "engines_per_job", "engines_of_last", "cores", "account", "queue", "walltime", "memory", "gpus",
    "constraint", "extra_lines", "setup", "environment", "program_and_args", "output_file", "job_name",
)  # fmt: skip
_TEMPLATE = (
    "#!/bin/sh\n#SBATCH --array=1-{jobs}\n#SBATCH --time={walltime}\necho ${{HOME}}\n{setup}\nexec {program_and_args}\n"
)


class TemplatesTarget(TreeTarget):
    """From options to the script of a job."""

    name = "templates"
    atoms = (
        *_NAMES, *(f"{{{name}}}" for name in _FIELDS), "{", "}", "{{", "}}", "{program_and_args!r}", "{n!x}",
        "{n:>9}", "{n:\n}",
        "{n:>999999999999}", "{n:{jobs}}", "{n.x}", "{n[0]}", "{}", "{0}", "{unknown}", _TEMPLATE, "\r", "\x85",
        "\u2028",
        "90m", "2h", "01:30:00", "1-00:00:00", "4GB", "1e400", "-1", "nan", "inf", "9" * 30, "9" * 5000, "0:0", "٣:٣",
        "{job}", "{script}",
        "(", r"(\d+)", "template", "template_file", "walltime", "memory", "drain", "extra_lines", "poll_seconds",
        "gpus",
    )  # fmt: skip

    def __enter__(self) -> TemplatesTarget:
        self._folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def seeds(self) -> list[bytes]:
        full = {
            "account": "physics", "queue": "long", "walltime": "2h", "drain": 60.0, "memory": "4GB", "gpus": 2,
            "cores": 2,
            "constraint": "x86", "engines_per_job": 2, "extra_lines": ["#X a", "#X b"], "setup": "module load x",
            "job_name": "me",
        }  # fmt: skip
        own = {"template": _TEMPLATE, "walltime": 3600, "poll_seconds": 1.5}
        commands = {"submit_command": "sub", "delete_command": ["del", "{job}"], "status_command": "stat {job}"}
        cases: list[Any] = []
        for name in _NAMES:
            more = {**commands, "template": _TEMPLATE} if name == "batch" else {}
            cases += [
                [name, 4, more],
                [name, 5, {**full, **more}],
                [name, 4, {**full, **more}],
                [name, 3, {**own, **more}],
            ]
        cases.append(
            ["slurm", 2, {"template": "run {program_and_args} {queue}\n{account}", "account": "a", "queue": "q"}]
        )
        for field in _FIELDS:
            cases.append(["slurm", 2, {"template": f"{{program_and_args}}{{{field}}}"}])
        return [msgspec.msgpack.encode(case) for case in cases]

    def run(self, case: bytes) -> None:
        try:
            name, count, options = msgspec.msgpack.decode(case, type=tuple[str, int, dict[str, Any]])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if name not in _NAMES or not 0 < count < 10_000:
            return  # other launchers have no templates; `Cluster` checks the number
        folder = Path(self._folder.name)
        request = LaunchRequest(
            n=count,
            command=["ipengine"],
            environment={"A": "b c"},
            connection_file=folder / "c.json",
            log_file=folder / "log",
            set_id="s",
        )
        try:
            script = launcher_class(name)(request, read_options(name, options)).preview()
        except ConfigError:
            return
        if not script.endswith("\n"):
            raise Finding(f"a script without an end: {script!r:.300}")


class BatchAnswersTarget(Target):
    """What batch systems print, read by our functions."""

    name = "batch-answers"

    def seeds(self) -> list[bytes]:
        job = "<job_list><JB_job_number>12</JB_job_number><state>{}</state><tasks>{}</tasks></job_list>"
        answers = (
            (0, "PENDING|Resources\nRUNNING|None\nCOMPLETED|None\nFAILED|NonZeroExitCode\n"),
            (
                1,
                "Job Id: 12[].s\n    job_state = B\n"
                "Job Id: 12[1].s\n    job_state = Q\n    comment = Not Running: a\n\t b\n",
            ),
            (1, "Job Id: 12[3].s\n    job_state = X\n    Exit_status = 271\n"),
            (2, f"<job_info>{job.format('r', '1')}{job.format('qw', '2-8:2,9')}{job.format('Eqw', '3')}</job_info>"),
            (2, "script: x\nerror reason    1:  no group\nscheduling info: no slots\n"),
            (3, "PEND|-|New job is waiting for scheduling;\nRUN|-|-\nDONE|-|-\nEXIT|TERM_RUNLIMIT: killed|-\n"),
            (4, "1 undefined\n2 undefined\n5 no disk\n4 undefined\n"),
            (5, "12 is running\n"),
        )
        return [bytes([number]) + text.encode() for number, text in answers]

    def mutate(self, case: bytes, rng: Random) -> bytes:
        if rng.random() < 0.5:
            lines = case[1:].decode(errors="replace").splitlines(keepends=True) or [""]
            at = rng.randrange(len(lines))
            words = re.split(r"(\W+)", lines[at])
            words[rng.randrange(len(words))] = rng.choice(
                (
                    "",
                    "1-3:1",
                    "1,2,4-9:2",
                    "12",
                    "1-",
                    "-",
                    "9" * 12,
                    "1-999999999999:1",
                    "1-4:0",
                    "|",
                    "'",
                    '"',
                    "qw",
                    "R",
                )
            )
            lines[at] = "".join(words)
            return case[:1] + "".join(lines).encode()
        return mutations.change_bytes(case, rng)

    def run(self, case: bytes) -> None:
        if not case:
            return
        system, text = _system(case[0] % len(_NAMES)), case[1:].decode(errors="replace")
        try:
            parts = system.read_status(text, "12")
        except LaunchError:
            parts = []
        if not all(isinstance(part, Part) for part in parts):
            raise Finding(f"{system.title}: {parts!r:.300} are no parts of a job")
        system.read_why(text)
        re.search(system.job_id, text, re.MULTILINE)


def _system(number: int) -> BatchSystem:
    """The batch systems in the order of `_NAMES`. The generic one has only its reader."""
    name = _NAMES[number]
    if name == "batch":
        generic = importlib.import_module("engineroom.launchers.batch.generic")
        return msgspec.structs.replace(_system(0), title=name, read_status=generic.read_status)
    found: BatchSystem = launcher_class(name).system  # type: ignore[attr-defined]
    return found
