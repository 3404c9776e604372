"""Slurm: an array of jobs, one nanny in each."""

from __future__ import annotations

import msgspec

from ...errors import ConfigError
from .job import BatchJob
from .options import BatchOptions
from .system import BatchSystem, Fields, Part

TEMPLATE = """\
#!/bin/sh
#SBATCH --job-name={job_name}
#SBATCH --output={output_file}
#SBATCH --array=1-{jobs}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cores}
#SBATCH --account={account}
#SBATCH --partition={queue}
#SBATCH --qos={qos}
#SBATCH --time={walltime}
#SBATCH --mem={memory}
#SBATCH --gres=gpu:{gpus}
#SBATCH --constraint={constraint}
#SBATCH {options}
{extra_lines}
{environment}
{setup}
exec {program_and_args}
"""

_PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def read_status(answer: str, job: str) -> list[Part]:
    """From `squeue --format=%T|%r`: a line for each job of the array."""
    parts = []
    for line in answer.splitlines():
        state, _, reason = line.strip().partition("|")
        if state in _PENDING:
            parts.append(Part("pending", reason))
        elif state in _RUNNING:
            parts.append(Part("running"))
        elif state:
            why = "" if state == "COMPLETED" else state if reason in ("None", "") else f"{state}, {reason}"
            parts.append(Part("ended", why))
    return parts


class SlurmOptions(BatchOptions, frozen=True, kw_only=True):
    """Those of all batch systems, and its own."""

    qos: str = ""  #: the quality of service
    timelimit: str = ""  #: `walltime` in Slurm's own format, where a number means minutes: "30", "1-12:30"
    options: str = ""  #: more arguments of sbatch, as on its command line: "--exclusive --hint=nomultithread"

    def __post_init__(self) -> None:
        if self.timelimit and self.walltime == "":
            msgspec.structs.force_setattr(self, "walltime", slurms_time(self.timelimit))

    def check(self) -> None:
        super().check()
        if not self.qos.isprintable():
            raise ConfigError(f"qos is text on one line; got {self.qos!r}")


def slurms_time(given: str) -> str:
    """A time in Slurm's format, as `walltime` takes it: "30" (minutes), "1-12" and "1-12:30" (days, hours, minutes)."""
    days, dash, rest = given.strip().rpartition("-")
    parts = rest.split(":")
    if not dash:
        return f"{rest}:00" if len(parts) == 1 else rest
    return "-".join([days, ":".join([*parts, "00", "00"][:3])])


def more_fields(fields: Fields, options: SlurmOptions) -> Fields:
    """What Slurm alone has. `options` may be lines of a script, each with `#SBATCH`."""
    words = [line.strip().removeprefix("#SBATCH").strip() for line in options.options.splitlines()]
    return {"qos": options.qos, "options": " ".join(filter(None, words))}


SLURM = BatchSystem(
    title="Slurm",
    template=TEMPLATE,
    submit=["sbatch", "--parsable"],
    job_id=r"^(\d+)",
    status=["squeue", "--noheader", "--array", "--states=all", "--format=%T|%r", "--jobs={job}"],
    read_status=read_status,
    unknown="Invalid job id",
    cancel=["scancel", "{job}"],
    once="#SBATCH --no-requeue",
    signal=["scancel", "--full", "--signal={signal}", "{job}"],
    more_fields=more_fields,
    uneven="$(( SLURM_ARRAY_TASK_ID < {jobs} ? {most} : {rest} ))",
    output_file="{}-%a.log".format,
)


class SlurmEngines(BatchJob):
    """Engines as jobs of Slurm."""

    name = "slurm"
    system = SLURM
    Options = SlurmOptions
    sections = ("BatchSystemLauncher", "SlurmLauncher", "SlurmEngineSetLauncher")
    former_names = {name: now for name, now in BatchJob.former_names.items() if name != "timelimit"}
