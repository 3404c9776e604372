"""Fills the template of a job script in. Text in, text out.

A template is text with fields in braces: `#SBATCH --time={walltime}`. A line with a field that has no value is left
out. A brace of the shell is written twice: `${{HOME}}`. A field may be a calculation with others: `{n//4}`.

Templates for ipyparallel work, too: `completed` names the program where they say `ipengine`, and adds what is asked of
the batch system and has no field in them.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter

from ...errors import ConfigError

#: The fields of which a template has one: else it starts no engines.
PROGRAMS = ("program_and_args", "quoted_command")
#: The fields of which a template has one if the script adds the environment of the engines itself.
ENVIRONMENTS = ("environment", "quoted_command")
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
    wanted = fields_of(template)
    values = {**values, **{name: found for name in wanted - set(values) if (found := calculated(name, values))}}
    if unknown := sorted(wanted - set(values)):
        raise ConfigError(
            f"the template of the job script has the field {{{unknown[0]}}}, which there is not; there are "
            f"{', '.join(sorted(values))}. {_BRACES}"
        )
    lines = []
    for line in template.splitlines():
        parts = [(text, None if name is None else values[name]) for text, name, _, _ in Formatter().parse(line)]
        if all(value is None or value for _, value in parts):
            lines.append("".join(text + (value or "") for text, value in parts))
    return "\n".join(lines) + "\n"


def calculated(field: str, values: Mapping[str, str]) -> str:
    """The value of a field that is a calculation with others: `n//4`; "" if it is none."""
    if not names_in([field]):
        return ""  # {1} is for another program
    try:
        return str(_number(ast.parse(field, mode="eval").body, values))
    except (SyntaxError, ValueError, ZeroDivisionError):
        return ""


def _number(node: ast.expr, values: Mapping[str, str]) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.Name):
        text = values.get(node.id, "")
        return int(text) if text.lstrip("-").isdigit() else float(text)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        result: float = _OPERATORS[type(node.op)](_number(node.left, values), _number(node.right, values))
        return result
    raise ValueError("no calculation")


_OPERATORS: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def names_in(fields: Iterable[str]) -> set[str]:
    """The names that fields have, also those that are calculations."""
    return {name for field in fields for name in re.findall(r"[A-Za-z_]\w*", field)}


def completed(template: str, builtin: str, wanted: Sequence[str]) -> str:
    """A user's template with what it lacks.

    Parameters
    ----------
    template : str
        The user's.
    builtin : str
        The batch system's own template: it shows how a directive is spelled.
    wanted : sequence of str
        Fields that have a value. If the template has neither the field nor its directive, the line of the built-in
        template is put behind the template's own directives, so that it wins over another spelling (`-p`).
    """
    if not names_in(_field_names(template)).intersection(PROGRAMS):
        template = _IPENGINE.sub(r"\g<before>{program_and_args}", template)
    has = names_in(_field_names(template))
    has |= {"walltime"} if "timelimit" in has else set()
    missing = [
        line
        for line in builtin.splitlines()
        for names in [_field_names(line)]
        if names.intersection(wanted) and not names & has and not _has_directive(template, line)
    ]
    lines = template.splitlines()
    head = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join([*lines[:head], *missing, *lines[head:]]) + "\n"


def _field_names(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError:
        return set()  # `fields_of` says what is wrong


def _has_directive(template: str, line: str) -> bool:
    """Whether a template has what a line begins with, up to its value: `#SBATCH --time=`, `#PBS -q`."""
    directive = line.partition("{")[0].rstrip()
    return " " in directive and directive in template


#: The command `ipengine`, with or without its folder, on a line that is no directive and no comment.
_IPENGINE = re.compile(r"(?m)^(?P<before>(?!#)(?:.*\s)?)(?:\S*/)?ipengine(?=\s|$)")
_BRACES = "A brace of the shell is written twice: ${{HOME}}"
