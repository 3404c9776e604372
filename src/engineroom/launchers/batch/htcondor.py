"""HTCondor: a cluster of jobs, one nanny in each. Written from its manual; it was not run against an HTCondor.

The file is no shell script: HTCondor hands the command to a shell, which reads it from the job's arguments.
"""

from __future__ import annotations

from .job import BatchJob
from .options import BatchOptions
from .system import BatchSystem, Fields, Part

TEMPLATE = """\
universe = vanilla
executable = /bin/sh
arguments = "-c '{quoted_command}'"
getenv = True
output = {output_file}
error = {output_file}
request_cpus = {cores}
request_memory = {memory}
request_gpus = {gpus}
requirements = {constraint}
accounting_group = {account}
allowed_job_duration = {walltime}
{extra_lines}
{queue_statements}
"""

_STATES = {"1": "pending", "5": "pending", "2": "running", "6": "running", "7": "running"}


def read_status(answer: str, job: str) -> list[Part]:
    """From `condor_q -af JobStatus HoldReason`: a line for each job that has not ended."""
    parts = []
    for line in answer.splitlines():
        number, _, reason = line.strip().partition(" ")
        state = _STATES.get(number, "ended")
        if state == "pending":
            parts.append(Part("pending", f"held: {reason}" if number == "5" else "idle"))
        elif number:
            parts.append(Part("running" if state == "running" else "ended"))
    return parts


def more_fields(fields: Fields, options: BatchOptions) -> Fields:
    """The shell's command, quoted for HTCondor's `arguments`; and how many jobs of which size are queued."""
    lines = [*fields["environment"].splitlines(), *fields["setup"].splitlines(), f"exec {fields['program_and_args']}"]
    command = "; ".join(lines).replace("'", "''").replace('"', '""')
    jobs, most, rest = int(fields["jobs"]), fields["engines_per_job"], fields["engines_of_last"]
    queue = f"queue {jobs}" if most == rest else f"engines = {most}\nqueue {jobs - 1}\nengines = {rest}\nqueue 1"
    return {"quoted_command": command, "queue_statements": queue}


HTCONDOR = BatchSystem(
    title="HTCondor",
    template=TEMPLATE,
    submit=["condor_submit", "-terse", "{script}"],
    job_id=r"^(\d+)\.",
    status=["condor_q", "{job}", "-af", "JobStatus", "HoldReason"],
    read_status=read_status,
    unknown="(?!)",  # it answers with no lines
    cancel=["condor_rm", "{job}"],
    once="periodic_remove = JobStatus == 1 && NumJobStarts > 0",
    uneven="$(engines)",
    more_fields=more_fields,
    walltime=str,
    memory="{}M".format,
    output_file="{}-$(Process).log".format,
)


class HTCondorEngines(BatchJob):
    """Engines as jobs of HTCondor."""

    name = "htcondor"
    system = HTCONDOR
    sections = ("BatchSystemLauncher", "HTCondorLauncher", "HTCondorEngineSetLauncher")
