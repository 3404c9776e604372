"""The campaign of the whole suite, with a small one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.steady import ROOT, table_of

SUITE = """
import pathlib, pytest

runs = pathlib.Path(__file__).with_name("runs")

def test_always():
    pass

def test_every_second_time():
    count = int(runs.read_text()) if runs.exists() else 0
    runs.write_text(str(count + 1))
    assert count % 2

@pytest.mark.skip(reason="it is about this")
def test_never():
    pass
"""


def test_rounds_add_up_and_name_what_does_not_always_pass(tmp_path: Path) -> None:
    suite, rounds = tmp_path / "test_some.py", tmp_path / "rounds"
    suite.write_text(SUITE)

    def campaign(count: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.steady", f"--rounds={count}", f"--folder={rounds}", str(suite)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)

    assert campaign(1).returncode == 1
    [first] = rounds.iterdir()
    said = campaign(2)
    assert "2 rounds, 4 runs of tests." in said.stdout
    assert "| 2 times | 2 |" in said.stdout
    assert f"test_some::test_every_second_time` | 2 | {first.stem} |" in said.stdout
    ran = [name.partition("::")[2] for name in table_of(rounds).runs]
    assert sorted(ran) == ["test_always", "test_every_second_time"]


def test_a_round_that_is_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.steady", f"--folder={tmp_path}", str(tmp_path / "nothing.py")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert "pytest has ended with" in ended.stderr
    assert list(tmp_path.iterdir()) == []
