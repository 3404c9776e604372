"""LSF: an array of jobs, one nanny in each. Written from its manual; it was not run against an LSF."""

from __future__ import annotations

from .job import BatchJob
from .system import BatchSystem, Part

TEMPLATE = """\
#!/bin/sh
#BSUB -J {job_name}[1-{jobs}]
#BSUB -o {output_file}
#BSUB -n {cores}
#BSUB -R span[hosts=1]
#BSUB -P {account}
#BSUB -q {queue}
#BSUB -W {walltime}
#BSUB -R rusage[mem={memory}]
#BSUB -gpu num={gpus}
#BSUB -R select[{constraint}]
{extra_lines}
{environment}
{setup}
exec {program_and_args}
"""

_PENDING = ("PEND", "PSUSP", "WAIT", "PROV")


def read_status(answer: str, job: str) -> list[Part]:
    """From `bjobs -o "stat exit_reason pend_reason delimiter='|'"`: a line for each job of the array."""
    parts = []
    for line in answer.splitlines():
        state, _, rest = line.strip().partition("|")
        ended, _, waits = rest.partition("|")
        if state in _PENDING:
            parts.append(Part("pending", "" if waits.strip() == "-" else waits.strip()))
        elif state == "DONE":
            parts.append(Part("ended"))
        elif state == "EXIT":
            parts.append(Part("ended", "EXIT" if ended.strip() in ("", "-") else ended.strip()))
        elif state:
            parts.append(Part("running"))
    return parts


def hours_minutes(seconds: int) -> str:
    """ "HH:MM", rounded up."""
    minutes = -(-seconds // 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


LSF = BatchSystem(
    title="LSF",
    template=TEMPLATE,
    submit=["bsub"],
    job_id=r"Job <(\d+)>",
    status=["bjobs", "-a", "-noheader", "-o", "stat exit_reason pend_reason delimiter='|'", "{job}"],
    read_status=read_status,
    unknown="is not found",
    cancel=["bkill", "{job}"],
    once="#BSUB -rn",
    signal=["bkill", "-s", "{signal}", "{job}"],
    uneven="$(( LSB_JOBINDEX < {jobs} ? {most} : {rest} ))",
    walltime=hours_minutes,
    memory="{}MB".format,
    output_file="{}-%I.log".format,
)


class LSFEngines(BatchJob):
    """Engines as jobs of LSF."""

    name = "lsf"
    system = LSF
    sections = ("BatchSystemLauncher", "LSFLauncher", "LSFEngineSetLauncher")
