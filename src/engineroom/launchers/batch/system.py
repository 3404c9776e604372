"""What differs between batch systems, as data and a few pure functions: a `BatchSystem` for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from ..base import words_of
from .options import BatchOptions, hours_minutes_seconds

#: field of a template → its text
Fields = Mapping[str, str]


class Part(msgspec.Struct, frozen=True):
    """One job of an array, as the batch system tells of it."""

    state: Literal["pending", "running", "ended"]
    #: the batch system's own words: why it waits, or how it has ended
    why: str = ""


def in_mib(mib: int) -> str:
    """Memory as "4096M"."""
    return f"{mib}M"


def no_more_fields(fields: Fields, options: Any) -> Fields:
    """Nothing."""
    return {}


class BatchSystem(msgspec.Struct, frozen=True, kw_only=True):
    """A batch system."""

    #: as users call it
    title: str
    #: the script of an array of jobs
    template: str
    #: reads the script from its input, or from the file that takes the place of "{script}"
    submit: list[str]
    #: finds the job's id in what `submit` prints: its first group
    job_id: str
    #: asks for the state of a job. "{job}" is its id
    status: list[str]
    #: what the answer says of a job; an empty list: the batch system does not know the job (any more)
    read_status: Callable[[str, str], list[Part]]
    #: what the error output of `status` has when the batch system does not know the job (any more)
    unknown: str
    cancel: list[str]
    #: sends a signal, "{signal}", to the engines; empty: there is no such command
    signal: list[str] = []
    #: asks why a job waits, where `status` does not say it; `read_why` finds the words in the answer
    why: list[str] = []
    read_why: Callable[[str], str] = str.strip
    #: a line of the script with which the batch system never runs the job again: a controller's has it
    once: str
    #: how the script spells the number of engines if the last job of the array has fewer: "{jobs}", "{most}", "{rest}"
    uneven: str = ""
    #: fields of the template that only this system has, made from the others and from the options
    more_fields: Callable[[Fields, Any], Fields] = no_more_fields
    walltime: Callable[[int], str] = hours_minutes_seconds
    memory: Callable[[int], str] = in_mib
    #: the file of a job's output, from the path without its suffix
    output_file: Callable[[str], str] = "{}.log".format

    def with_commands_of(self, options: BatchOptions) -> BatchSystem:
        """The same batch system, with the commands that the user gave instead of its own."""
        submit, cancel, signal = (
            words_of(each) for each in (options.submit_command, options.delete_command, options.signal_command)
        )
        if submit and "{script}" in self.submit and "{script}" not in submit:
            submit.append("{script}")
        if cancel and "{job}" not in cancel:
            cancel.append("{job}")
        if signal and "{job}" not in signal:
            signal += ["{signal}"] * ("{signal}" not in signal) + ["{job}"]
        return msgspec.structs.replace(
            self,
            submit=submit or self.submit,
            cancel=cancel or self.cancel,
            signal=signal or self.signal,
            # What another command prints is not known: the first word that begins with a number.
            job_id=options.job_id_regexp or (r"(\d+[\w.\[\]-]*)" if submit else self.job_id),
        )
