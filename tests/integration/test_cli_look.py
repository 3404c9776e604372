"""All commands look alike: help, JSON, colours, exit codes, narrow terminals; and a shell completes them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from traitlets.utils.importstring import import_item

from engineroom.cli import base, engineroom, ipcluster, ipcontroller, ipengine
from engineroom.cli.commands.completion import script

TOOLS: list[Any] = [engineroom.Engineroom, ipcluster.IPCluster, ipcontroller.IPController, ipengine.IPEngine]
MAINS = {
    tool.name: module.main for tool, module in zip(TOOLS, (engineroom, ipcluster, ipcontroller, ipengine), strict=True)
}


def commands() -> Iterator[tuple[str, Any]]:
    for tool in TOOLS:
        yield tool.name, tool
        for name, (command, _) in tool().subcommands.items():
            yield f"{tool.name} {name}", import_item(command) if isinstance(command, str) else command


COMMANDS = dict(commands())


def run(*words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = MAINS[words[0]](list(words[1:]))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No cluster, no profile and no socket is known."""
    sockets = tempfile.mkdtemp(prefix="er-look-")  # the path of a socket is short: `tmp_path` is too long for one
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setattr("tempfile.tempdir", sockets)
    for name in ("COLUMNS", "NO_COLOR", "IPP_PROFILE_DIR", "IPP_CLUSTER_ID", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    shutil.rmtree(sockets)


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_usage_options_and_examples(name: str):
    code, out, err = run(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {name.partition(' ')[0]} ")
    for part in ("Options" if " " in name and "completion" not in name and "nbext" not in name else "", "Examples"):
        assert part in out.splitlines() or not part
    assert "Undefined" not in out
    assert "\x1b" not in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_narrow_terminal(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "72")
    lines = run(*name.split(), "--help")[1].splitlines()
    assert [line for line in lines[: lines.index("Examples")] if len(line) > 72 and not line.startswith("Usage")] == []


@pytest.mark.parametrize("name", [name for name, app in COMMANDS.items() if app.description and "engineroom " in name])
def test_commands_that_tell_something_have_json(name: str):
    quiet = ("dashboard", "completion", "k8s")  # what these print has a format of its own
    assert name.endswith(quiet) or "json" in COMMANDS[name].flags


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_told_in_one_line(name: str):
    code, out, err = run(*name.split(), "--nosuch")
    assert (code, out) == (base.BAD_USAGE, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"{name.partition(' ')[0]}: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ipcluster list --json", []),
        ("ipcluster list -o json", []),
        ("ipcluster clean --json", {"removed": [], "in_use": 0}),
    ],
)
def test_clusters_as_json(words: str, told: Any):
    code, out, err = run(*words.split())
    assert (code, json.loads(out), err) == (0, told, "")


def test_what_is_not_there_is_told_on_stderr():
    assert run("ipcluster", "list") == (0, "", "No cluster is running.\n")


# ---------------------------------------------------------------------------------------------- completion

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")

CASES = [
    ("engineroom ta", ["tasks"]),
    ("engineroom  wat", ["watch"]),
    ("/usr/bin/engineroom sho", ["show"]),
    ("engineroom tasks --sta", ["--state="]),
    ("engineroom tasks --state=", ["pending", "running", "completed", "failed", "aborted"]),
    ("engineroom tasks --limit=3 --state=fa", ["failed"]),
    ("engineroom tasks --state fa", ["failed"]),
    ("engineroom tasks --keys=label,std", ["label,stdout", "label,stderr"]),
    ("engineroom tasks --profile=ni", ["night"]),
    ("engineroom db co", ["copy", "compact"]),
    ("engineroom db info tas", ["tasks.db"]),
    ("engineroom completion ", ["bash", "zsh"]),
    ("engineroom replay --engines=", []),
    ("ipcluster start --engines=sl", ["slurm"]),
    ("ipcluster li", ["list"]),
    ("ipcluster stop --al", ["--all"]),
    ("ipengine --file=tas", ["tasks.db"]),
    ("ipcontroller --nod", ["--nodb"]),
    ("engineroom tasks --nosuch=x", []),
    ("engineroom show --json tas", ["tasks.db"]),
    ("engineroom db --json info tas", ["tasks.db"]),
]


@needs_bash
def test_bash_completes(elsewhere: Path):
    (elsewhere / "ipython" / "profile_night").mkdir(parents=True)
    (elsewhere / "tasks.db").touch()
    (elsewhere / "script").write_text(script(TOOLS))
    asks = "\n".join(
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; _engineroom_complete; echo "${{COMPREPLY[*]}}"'
        for line, _ in CASES
    )
    done = subprocess.run(
        [str(BASH), "--norc", "-c", f". ./script\n{asks}"], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found = [(line, shown.split()) for (line, _), shown in zip(CASES, done.stdout.split("\n"), strict=False)]
    assert found == CASES


@needs_bash
def test_bash_completes_in_a_terminal(elsewhere: Path):
    """A real shell, and the Tab key."""
    (elsewhere / "script").write_text(script(TOOLS))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PS1": "READY>", "HOME": str(elsewhere), "INPUTRC": "/dev/null"}
    shell = subprocess.Popen(
        [str(BASH), "--norc", "--noprofile", "-i"], cwd=elsewhere, env=environment, stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def shows(text: bytes) -> bool:
        nonlocal seen
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 65536)
        return text in seen

    try:
        wait_until(lambda: shows(b"READY>"))
        os.write(ours, b". ./script; echo loaded-$((1+1))\r")
        wait_until(lambda: shows(b"loaded-2"))
        os.write(ours, b"engineroom ta\t")
        wait_until(lambda: shows(b"engineroom tasks "))
        os.write(ours, b"--sta\t")
        wait_until(lambda: shows(b"tasks --state="))
        os.write(ours, b"fai\t")
        wait_until(lambda: shows(b"--state=failed "))
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def test_zsh_completes(elsewhere: Path):
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed")
    (elsewhere / "script").write_text(script(TOOLS))
    ask = 'COMP_LINE="engineroom tasks --state=fa"; COMP_POINT=${#COMP_LINE}; _engineroom_complete; echo $COMPREPLY'
    done = subprocess.run([zsh, "-f", "-c", f". ./script; {ask}"], cwd=elsewhere, capture_output=True, text=True)
    assert done.stdout.split() == ["--state=failed"], done.stderr


def test_there_is_no_completion_for_other_shells():
    assert run("engineroom", "completion", "fish") == (
        base.BAD_USAGE, "", "engineroom: there is no completion for 'fish'; there is one for bash and zsh\n",
    )  # fmt: skip
    assert run("engineroom", "completion", "bash")[1] == script(TOOLS)


def test_the_script_takes_no_time_of_python():
    assert sys.executable not in script(TOOLS)
    assert "python " not in script(TOOLS)
