"""What a user may ask of a batch system, by the same names for all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from ...config import MIB, amount
from ...errors import ConfigError


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of every launcher for a batch system. Texts that are empty are left to the batch system."""

    account: str = ""  #: who pays
    queue: str = ""  #: the queue, or the partition
    walltime: float | str = ""  #: the longest time of a job: seconds, "90m", "2h", "HH:MM:SS" or "D-HH:MM:SS"
    drain: float | None = None  #: seconds before the end of the walltime in which engines take no more tasks
    memory: int | str = ""  #: of a job: bytes, or "4GB"
    gpus: int = 0  #: of a job. Its engines share them as the resource "gpu"
    cores: int = 1  #: of each engine
    constraint: str = ""  #: which hosts will do, in the batch system's own words
    engines_per_job: int = 1  #: engines of one job, which runs on one host
    extra_lines: list[str] | str = ""  #: more lines for the head of the script
    setup: list[str] | str = ""  #: shell commands that run before the engines: `module load …`
    template: str = ""  #: another script than the built-in one; docs/batch.md says which fields it may have
    template_file: str = ""  #: the same, in a file
    fields: dict[str, Any] = {}  #: values for fields of your own in the template
    submit_command: list[str] | str = ""  #: another command than the built-in one. docs/batch.md says what it gets
    delete_command: list[str] | str = ""  #: the same, to cancel a job: `{job}` is its id
    signal_command: list[str] | str = ""  #: the same, to send the signal `{signal}` to a job
    job_id_regexp: str = ""  #: finds the id of a job in what `submit_command` prints
    job_name: str = "engineroom"
    poll_seconds: float = 5.0  #: seconds between two questions to the batch system

    def check(self) -> None:
        """Raises ConfigError if a number is not valid, or if a text would be more than one line of the script."""
        for name in ("account", "queue", "constraint", "job_name"):
            if not getattr(self, name).isprintable():
                raise ConfigError(f"{name} is text on one line; got {getattr(self, name)!r}")
        for name in ("engines_per_job", "cores"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is a number, 1 or more; got {getattr(self, name)}")
        if self.drain is not None and not self.drain >= 0:
            raise ConfigError(f"drain is a number of seconds, 0 or more; got {self.drain}")
        if self.gpus < 0:
            raise ConfigError(f"gpus is a number, 0 or more; got {self.gpus}")
        if not self.poll_seconds > 0:
            raise ConfigError(f"poll_seconds is a number of seconds, above 0; got {self.poll_seconds}")
        try:
            re.compile(self.job_id_regexp)
        except (re.error, RecursionError, OverflowError) as error:
            given = self.job_id_regexp
            raise ConfigError(f"job_id_regexp is a regular expression; got {given!r:.200}: {error}") from None
        if self.template and self.template_file:
            raise ConfigError("template and template_file both say which script is used: give one of them")

    @property
    def walltime_seconds(self) -> int:
        """The longest time of a job in seconds; 0: as the batch system likes."""
        return walltime_seconds(self.walltime) if self.walltime != "" else 0

    @property
    def memory_mib(self) -> int:
        """The memory of a job in MiB; 0: as the batch system likes."""
        if self.memory == "":
            return 0
        return max(1, int(amount(self.memory, "bytes", "memory")) // MIB)

    def own_template(self) -> str:
        """The user's template; "" if there is none. Raises ConfigError if its file cannot be read."""
        if not self.template_file:
            return self.template
        try:
            return Path(self.template_file).expanduser().read_text()
        except (OSError, ValueError, RuntimeError) as error:  # it is no text; no path; no user of this name
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"the template {self.template_file} cannot be read: {why}") from None


def walltime_seconds(given: float | str) -> int:
    """Seconds from a number, "90m", "2h", "MM:SS", "HH:MM:SS" or "D-HH:MM:SS". Raises ConfigError."""
    found = re.fullmatch(r"(?:(\d{1,9})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})", str(given).strip())
    if found is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    else:
        try:
            total = int(amount(given, "seconds", "walltime"))
        except ConfigError as error:
            raise ConfigError(f"{error}; or HH:MM:SS") from None
    if total <= 0:
        raise ConfigError(f"walltime is above 0; got {given!r}")
    return total


def hours_minutes_seconds(seconds: int) -> str:
    """ "HH:MM:SS"; "" for 0."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}" if seconds else ""
