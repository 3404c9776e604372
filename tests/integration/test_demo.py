"""The examples run as a user runs them, each in a process of its own, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run_example(tmp_path):
    """Run an example in an empty IPython folder; what it printed."""

    def run(name: str, *arguments: str) -> str:
        environment = os.environ | {"IPYTHONDIR": str(tmp_path / "ipython"), "IPP_NONINTERACTIVE": "1"}
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_demo_finds_failures_mends_what_can_be_mended_and_remembers(run_example, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for number in range(20):
        (files / f"good{number}.py").write_text(f"def f{number}():\n    if True:\n        return {number}\n")
    (files / "latin1.py").write_bytes(b"# coding: latin-1\nname = '\xe9t\xe9'\n")
    (files / "python2.py").write_text("print 'hello'\n")

    said = run_example("demo.py", str(files))

    assert "22 Python files, one task each" in said
    assert "2 tasks: db_query({'state': 'failed'})" in said
    assert "UnicodeDecodeError" in said
    assert "SyntaxError" in said
    assert "1 task completed this time, 1 failed again" in said
    assert "26 tasks remembered" in said  # two were run again, and two pushed


@pytest.mark.slow
def test_the_demo_has_something_to_mend_on_every_installation(run_example, tmp_path, monkeypatch):
    """A library without a single bad file: `make demo` brings its own."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "good.py").write_text("x = 1\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, sysconfig\n"
        "if 'demo.py' in sys.orig_argv[1]:\n"
        f"    sysconfig.get_path = lambda name: {str(tmp_path)!r} + ('/library' if name == 'stdlib' else '/none')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    said = run_example("demo.py")
    assert "4 Python files, one task each" in said
    assert "3 tasks: db_query({'state': 'failed'})" in said
    assert "UnicodeDecodeError" in said
    assert "SyntaxError" in said
    assert "2 tasks completed this time, 1 failed again" in said


@pytest.mark.slow
def test_monte_carlo_pi(run_example):
    assert "π ≈ 3.1" in run_example("monte_carlo_pi.py", "200000")


@pytest.mark.slow
def test_word_count(run_example, tmp_path):
    (tmp_path / "one.py").write_text('"""apples and pears"""\n')
    (tmp_path / "two.py").write_text('def f():\n    """Apples."""\n')
    said = run_example("word_count.py", str(tmp_path))
    assert "3 words in 2 files" in said
    assert "2  apples" in said


@pytest.mark.slow
def test_parameter_sweep(run_example):
    said = run_example("parameter_sweep.py")
    assert "31 values of r" in said
    assert "2 failed" in said
    assert "r=4.10: ValueError: r must be in (0, 4]" in said


@pytest.mark.slow
def test_dag(run_example):
    said = run_example("dag.py", "tomllib")
    assert "tomllib" in said
    assert "14 tasks; 17 edges, and nothing began before what it comes after had ended" in said


@pytest.mark.slow
def test_classic_tasks(run_example):
    said = run_example("classic_tasks.py")
    assert "-1.0 2.0 1.0" in said, "n=7 was recovered"
    assert "engines of the large ones: {1}" in said
    assert "{'scheduled': 0, 'pending': 0, 'succeeded': 20, 'failed': 0}" in said


@pytest.mark.slow
def test_wave_equation(run_example):
    said = run_example("wave_equation.py", "20")
    assert "20 steps on 64×64 points" in said
    assert "the largest difference to a run in one process is 0.0e+00" in said


@pytest.mark.slow
def test_options(run_example):
    said = run_example("options.py", "1000")
    assert "15 tasks with 3 labels" in said


@pytest.mark.slow
def test_pi_digits(run_example):
    said = run_example("pi_digits.py", "200")
    assert "200 digits in 4 tasks" in said
    assert "3.243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e" in said


@pytest.mark.slow
def test_progress(run_example):
    said = run_example("progress.py", "4")
    assert "4 tasks on 2 engines" in said
    assert "████ 4/4 in" in said
    assert "5 slices: 0.330000" in said


@pytest.mark.slow
def test_grid_search(run_example):
    said = run_example("grid_search.py")
    assert "5 settings, 3 folds each" in said
    assert "best: k=1, with 0.93" in said


@pytest.mark.slow
def test_magics(run_example):
    said = run_example("magics.py")
    for shown in ("Out[0:2]: 2.0", "Out[1:2]: 3.0", "only here: 9", "Out[1:5]: 42", "[16, 81]"):
        assert shown in said, said


def test_every_example_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    examples = {path.name for path in EXAMPLES.glob("*.py")} - {"show.py"}
    assert {name for name in examples if f'"{name}"' not in text} == set()
