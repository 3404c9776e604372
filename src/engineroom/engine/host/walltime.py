"""When a job must end, and what follows for its engines. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: Variables that batch systems set in their jobs: Slurm, PBS, LSF, HTCondor, Grid Engine.
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "_CONDOR_JOB_AD", "SGE_TASK_ID")
#: Without a wish, engines take no more tasks this many seconds before the end, or for this part of a short walltime.
DRAIN_SECONDS, DRAIN_PART = 60.0, 0.1
#: Engines are told to leave what they run this many seconds before the end, or after half of the time for draining.
CUT_SECONDS = 10.0


class Walltime(msgspec.Struct, frozen=True):
    """Two moments of a job that ends by itself, by the clock of `time.monotonic`."""

    #: no more tasks are taken
    drain: float
    #: what still runs is given back
    cut: float

    @classmethod
    def of(cls, seconds: float, drain: float | None, now: float) -> Walltime | None:
        """For a job that began `now`, and is killed after so many seconds (0: it is not).

        `drain`: how long before the end no more tasks are taken; None: a minute, or less for a short walltime.
        """
        if seconds <= 0:
            return None
        ahead = min(DRAIN_SECONDS, DRAIN_PART * seconds) if drain is None else min(drain, seconds)
        return cls(now + seconds - ahead, now + seconds - min(CUT_SECONDS, ahead / 2))


def is_in_job(environ: Mapping[str, str]) -> bool:
    """Whether a batch system started a process with this environment."""
    return any(environ.get(name) for name in _JOBS)


def time_left(environ: Mapping[str, str], now: float) -> float:
    """Seconds until the batch system ends the job of a process, if its environment says so; else 0.

    `now`: seconds since 1970, when the process starts.
    """
    for name, since in (("SLURM_JOB_END_TIME", now), ("PBS_WALLTIME", 0.0)):
        text = environ.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 16:
            return max(0.0, float(text) - since)
    return 0.0
