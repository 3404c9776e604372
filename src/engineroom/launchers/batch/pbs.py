"""PBS (OpenPBS, PBS Pro): an array of jobs, one nanny in each. Written from its manual, and not run against a PBS."""

from __future__ import annotations

import re

from .job import BatchJob
from .options import BatchOptions
from .system import BatchSystem, Fields, Part

TEMPLATE = """\
#!/bin/sh
#PBS -V
#PBS -j oe
#PBS -N {job_name}
#PBS -o {output_file}
#PBS -J 1-{several_jobs}
#PBS -l {select}
#PBS -A {account}
#PBS -q {queue}
#PBS -l walltime={walltime}
{extra_lines}
cd "${{PBS_O_WORKDIR:-.}}"
{environment}
{setup}
exec {program_and_args}
"""

_ENDED = "EFX"


def read_status(answer: str, job: str) -> list[Part]:
    """From `qstat -f -t`: a block for each job of the array, and one for the array itself."""
    parts = []
    for block in re.split(r"^Job Id: ", answer, flags=re.MULTILINE)[1:]:
        state = _field(block, "job_state")
        if re.match(r"\d+\[\]", block):
            continue  # the array: its jobs follow
        if state in _ENDED:
            code = _field(block, "Exit_status")
            parts.append(Part("ended", "" if code in ("", "0") else f"exit status {code}"))
        elif state == "R":
            parts.append(Part("running"))
        else:
            parts.append(Part("pending", _field(block, "comment") or f"state {state}"))
    return parts


def _field(block: str, name: str) -> str:
    found = re.search(rf"^\s*{name} = (.*(?:\n\t.*)*)", block, re.MULTILINE)
    return re.sub(r"\n\t", "", found[1]).strip() if found else ""


def more_fields(fields: Fields, options: BatchOptions) -> Fields:
    """What a job asks of its host, as one word; and the size of the array, if it is one: PBS has no arrays of one."""
    wishes = [("ncpus", "cores"), ("mem", "memory"), ("ngpus", "gpus")]
    words = [f"{word}={fields[name]}" for word, name in wishes if fields[name]]
    select = ":".join(["select=1", *words, *([options.constraint] if options.constraint else [])])
    if fields["jobs"] == "1":
        return {"select": select, "several_jobs": ""}
    log = fields["output_file"].removesuffix(".log") + "-^array_index^.log"
    return {"select": select, "several_jobs": fields["jobs"], "output_file": log}


PBS = BatchSystem(
    title="PBS",
    template=TEMPLATE,
    submit=["qsub", "{script}"],
    job_id=r"^(\d+(?:\[\])?[\w.-]*)",
    status=["qstat", "-f", "-t", "-x", "{job}"],
    read_status=read_status,
    unknown="Unknown Job|has finished",
    cancel=["qdel", "{job}"],
    once="#PBS -r n",
    signal=["qsig", "-s", "SIG{signal}", "{job}"],
    uneven="$(( PBS_ARRAY_INDEX < {jobs} ? {most} : {rest} ))",
    more_fields=more_fields,
    memory="{}mb".format,
)


class PBSEngines(BatchJob):
    """Engines as jobs of PBS."""

    name = "pbs"
    system = PBS
    sections = ("BatchSystemLauncher", "PBSLauncher", "PBSEngineSetLauncher")
