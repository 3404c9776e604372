"""Fills the template of a job script in. Text in, text out.

A template is text with fields in braces: `#SBATCH --time={walltime}`. A line with a field that has no value is left
out. A brace of the shell is written twice: `${{HOME}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from ...errors import ConfigError

#: The fields of which a template has one: else it starts no engines.
PROGRAMS = ("program_and_args", "quoted_command")
#: The fields of which a template has one if it starts an array of jobs.
ARRAYS = ("jobs", "several_jobs", "queue_statements")


def fields_of(template: str) -> set[str]:
    """The names of the fields of a template.

    Raises
    ------
    ConfigError
        A brace is not closed, a field has more than its name, or `{program_and_args}` is missing.
    """
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ConfigError(f"the template of the job script has a lone brace: {error}. {_BRACES}") from None
    for _, name, form, conversion in parts:
        if form or conversion:  # they could ask for a gigabyte of blanks, or for what a text has not
            raise ConfigError(
                f"the template of the job script has the field {name!r} with a ':' or a '!': it has only its name"
            )
    found = {str(name) for _, name, _, _ in parts}
    if not found.intersection(PROGRAMS):
        raise ConfigError(f"the template of the job script has no field {{{PROGRAMS[0]}}}: it would start no engines")
    return found


def fill(template: str, values: Mapping[str, str]) -> str:
    """The script.

    Raises
    ------
    ConfigError
        The template names a field that there is not.
    """
    unknown = sorted(fields_of(template) - set(values))
    if unknown:
        raise ConfigError(
            f"the template of the job script has the field {{{unknown[0]}}}, which there is not; there are "
            f"{', '.join(sorted(values))}. {_BRACES}"
        )
    lines = []
    for line in template.splitlines():
        names = [name for _, name, _, _ in Formatter().parse(line) if name is not None]
        if all(values[name] for name in names):
            lines.append(line.format_map(values))
    return "\n".join(lines) + "\n"


_BRACES = "A brace of the shell is written twice: ${{HOME}}"
