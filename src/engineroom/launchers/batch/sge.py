"""Grid Engine (Sun, Son of, Univa, Altair): an array of jobs, one nanny in each."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ...errors import LaunchError
from .job import BatchJob
from .options import BatchOptions
from .system import BatchSystem, Fields, Part

TEMPLATE = """\
#!/bin/sh
#$ -S /bin/sh
#$ -V
#$ -cwd
#$ -j y
#$ -N {job_name}
#$ -o {output_file}
#$ -t 1-{jobs}
#$ -pe {parallel_environment} {several_cores}
#$ -A {account}
#$ -q {queue}
#$ -l h_rt={walltime}
#$ -l h_vmem={memory_of_a_core}
#$ -l gpu={gpus}
#$ -l {constraint}
{extra_lines}
{environment}
{setup}
exec {program_and_args}
"""

#: Jobs of an array that are looked at: a garbled answer may name any number.
MOST_PARTS = 100_000


def read_status(answer: str, job: str) -> list[Part]:
    """From `qstat -xml`: the user's jobs that are pending or running. Array jobs that wait share an entry."""
    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError as error:
        raise LaunchError(f"the answer of qstat cannot be read: {error}") from None
    parts = []
    for entry in root.iter("job_list"):
        if entry.findtext("JB_job_number") != job:
            continue
        state = entry.findtext("state") or ""
        count = _count(entry.findtext("tasks") or "1")
        if "E" in state:
            parts += [Part("pending", f"in error, state {state}")] * count
        elif "q" in state or "h" in state:
            parts += [Part("pending", f"state {state}")] * count
        else:
            parts += [Part("running")] * count
    return parts


def _count(tasks: str) -> int:
    """How many jobs an entry stands for: "3", "1-4:1", "2,5-9:2"."""
    total = 0
    for piece in tasks.split(","):
        found = re.fullmatch(r"(\d+)-(\d+):(\d+)", piece.strip())
        step = int(found[3]) if found else 0
        total += (int(found[2]) - int(found[1])) // step + 1 if found and step else 1
    return max(0, min(total, MOST_PARTS))


def read_why(answer: str) -> str:
    """From `qstat -j`: why a job is in error, or why it waits."""
    found = re.findall(r"^(?:error reason\s+\d+:|scheduling info:)\s+(.*)$", answer, re.MULTILINE)
    return "; ".join(dict.fromkeys(line.strip() for line in found))


class SGEOptions(BatchOptions, frozen=True, kw_only=True):
    """Those of all batch systems, and its own."""

    parallel_environment: str = "smp"  #: which one has several cores of one host; asked for if a job needs several


def more_fields(fields: Fields, options: SGEOptions) -> Fields:
    """The parallel environment, if a job needs several cores. Grid Engine counts memory by the core."""
    cores = int(fields["cores"])
    memory = max(1, options.memory_mib // cores) if options.memory_mib else 0
    return {
        "several_cores": fields["cores"] if cores > 1 else "",
        "parallel_environment": options.parallel_environment,
        "memory_of_a_core": f"{memory}M" if memory else "",
    }


SGE = BatchSystem(
    title="Grid Engine",
    template=TEMPLATE,
    submit=["qsub", "-terse", "{script}"],
    job_id=r"^(\d+)",
    status=["qstat", "-xml", "-u", "*"],
    read_status=read_status,
    unknown="do not exist",
    cancel=["qdel", "{job}"],
    once="#$ -r n",
    why=["qstat", "-j", "{job}"],
    read_why=read_why,
    uneven="$(( SGE_TASK_ID < {jobs} ? {most} : {rest} ))",
    more_fields=more_fields,
    output_file="{}-$TASK_ID.log".format,
)


class SGEEngines(BatchJob):
    """Engines as jobs of Grid Engine."""

    name = "sge"
    system = SGE
    Options = SGEOptions
    sections = ("BatchSystemLauncher", "SGELauncher", "SGEEngineSetLauncher")
