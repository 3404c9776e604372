"""A batch system that has no launcher of its own: the user gives the template and the commands."""

from __future__ import annotations

import msgspec

from ...errors import ConfigError
from ..base import LaunchRequest
from .job import BatchJob
from .options import BatchOptions
from .system import BatchSystem, Part


class GenericOptions(BatchOptions, frozen=True, kw_only=True):
    """Those of all batch systems, and the command that tells whether a job is known."""

    status_command: list[str] | str = ""  #: its exit code is not 0, or it prints nothing, once the job has ended
    job_id_regexp: str = r"(\d+)"


def read_status(answer: str, job: str) -> list[Part]:
    """Whether the job is known: as long as its status command prints something."""
    return [Part("running")] if answer.strip() else []


class BatchEngines(BatchJob):
    """Engines as a job of a batch system that the options describe."""

    name = "batch"
    Options = GenericOptions
    sections = ("BatchSystemLauncher", "BatchEngineSetLauncher")

    def __init__(self, request: LaunchRequest, options: GenericOptions) -> None:
        self.system = _system(options, bool(request.command))  # type: ignore[misc]
        self._given = options
        super().__init__(request, options)

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "options": msgspec.to_builtins(self._given)}


def _system(options: GenericOptions, is_new: bool) -> BatchSystem:
    for name in ("submit_command", "delete_command", "status_command"):
        if is_new and not getattr(options, name):
            raise ConfigError(f"the launcher batch needs the option {name}")
    if is_new and not (options.template or options.template_file):
        raise ConfigError("the launcher batch needs the option template, or template_file")
    words = {
        name: given.split() if isinstance(given := getattr(options, f"{name}_command"), str) else given
        for name in ("submit", "delete", "status", "signal")
    }
    return BatchSystem(
        title=words["submit"][0] if words["submit"] else "batch",
        template="",
        submit=words["submit"],
        job_id=options.job_id_regexp,
        status=words["status"],
        read_status=read_status,
        unknown="",
        cancel=words["delete"],
        once="",
        signal=words["signal"],
    )
