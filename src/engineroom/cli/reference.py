"""docs/cli.md, made from the tools' own help: `python -m engineroom.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from traitlets.utils.importstring import import_item

from .engineroom import Engineroom
from .ipcluster import IPCluster
from .ipcontroller import IPController
from .ipengine import IPEngine

_ABOUT = {
    IPCluster: "starts, stops and lists clusters.",
    Engineroom: "looks at tasks and engines, and acts on tasks.",
    IPController: "starts a controller by itself.",
    IPEngine: "starts engines by themselves.",
}


_COMMON = """\
Exit codes: 0 done, 1 failed (one line says why), 2 the command line cannot be understood (an option, its value, or a
query), 10 it is running already, 11 there is nothing to stop, 12 another controller owns the task database, 130
interrupted.

What you asked for goes to stdout, what else is to be said to stderr. In a terminal, tables are cut to its width (or to
$COLUMNS); in a pipe, nothing is cut. There are no colours in a pipe, and none if $NO_COLOR is set. `--json` prints one
indented value; commands that go on (`watch`, `top`), and `ipcluster stop`, `engines` and `clean`, print lines.

The Tab key completes commands, options and their values: put `eval "$(engineroom completion bash)"` into ~/.bashrc, or
the same with zsh into ~/.zshrc."""


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The command line"
    yield ""
    yield "<!-- Made by `python -m engineroom.cli.reference > docs/cli.md`; a test compares. -->"
    yield ""
    yield "What `--help` prints, for every command. `--version` prints the version."
    yield ""
    for tool, about in _ABOUT.items():
        yield f"- `{tool.name}` {about}"
    yield ""
    yield from _COMMON.splitlines()
    for tool in _ABOUT:
        yield from _section(str(tool.name), tool, "##")
        for name, (command, _) in tool().subcommands.items():
            found = import_item(command) if isinstance(command, str) else command
            yield from _section(f"{tool.name} {name}", found, "###")


def _section(title: str, app: Any, heading: str) -> Iterator[str]:
    yield ""
    yield f"{heading} {title}"
    yield ""
    yield "```text"
    yield "\n".join(app().emit_help()).rstrip()
    yield "```"


if __name__ == "__main__":
    print(reference())
