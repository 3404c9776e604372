"""Progress bars and interrupts in a notebook, with ipywidgets and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from support.notebooks import WHEN_WAITING, Notebook

WIDGET = "application/vnd.jupyter.widget-view+json"
WAIT = (
    "def wait_for(gate):\n"
    "    import os, time\n"
    "    while not os.path.exists(gate): time.sleep(0.01)\n"
)


@pytest.fixture
def without_widgets(notebook: Notebook) -> Iterator[None]:
    """ipywidgets cannot be found in the kernel."""
    notebook.run(
        "import importlib.util as _util; _find = _util.find_spec\n"
        "_util.find_spec = lambda name, *more: None if name == 'ipywidgets' else _find(name, *more)"
    )
    yield
    notebook.run("_util.find_spec = _find")


def test_a_widget_where_ipywidgets_is_installed(notebook: Notebook):
    cell = notebook.run("ar = rc[:].apply_async(abs, 1); ar.wait_interactive()")
    assert cell.error is None, cell
    assert WIDGET in cell.bundles[0]
    assert cell.stderr == ""


def test_html_without_ipywidgets(notebook: Notebook, without_widgets: None, tmp_path: Path):
    gate = tmp_path / "gate"
    cell = notebook.run(
        WAIT + f"ar = rc[:].apply_async(wait_for, {str(gate)!r})\n"
        "import threading; timer = threading.Timer(0.3, open, "
        f"({str(gate)!r}, 'w')); timer.start()\n"
        "ar.wait_interactive(); timer.join()"
    )
    assert cell.error is None, cell
    assert len(cell.bundles) == 1, "one bar, drawn anew in its place"
    assert 'value="2" max="2"' in cell.html
    assert "wait_for" in cell.html
    assert "2 of 2 tasks" in cell.bundles[0]["text/plain"]
    assert cell.stderr == ""
    wanted = notebook.run("ar.wait_interactive(widget=True)")
    assert "ipywidgets" in wanted.error.evalue


def test_html_if_no_widget_is_wanted(notebook: Notebook):
    cell = notebook.run("rc[:].apply_async(abs, 1).wait_interactive(widget=False)")
    assert "<progress" in cell.html


def test_a_bar_for_engines_if_it_takes_its_time_or_is_wanted(notebook: Notebook, without_widgets: None):
    assert notebook.run("rc.wait_for_engines(2)").outputs == []
    cell = notebook.run("rc.wait_for_engines(2, interactive=True)")
    assert 'value="2" max="2"' in cell.html
    late = notebook.run("rc.wait_for_engines(3, timeout=1.5)")
    assert "2 of 3 engines" in late.html
    assert late.error.ename == "TimeoutError"


def test_interrupting_a_wait_says_what_goes_on_and_how_to_end_it(notebook: Notebook, tmp_path: Path):
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    notebook.run(WAIT + WHEN_WAITING)
    cell = notebook.run_and_interrupt(
        f"ar = rc[0].apply_async(wait_for, {str(gate)!r})\n"
        "while not ar.started: pass\n"
        f"when_waiting({str(begun)!r})\n"
        "ar.get()",
        lambda: wait_until(begun.exists),
    )
    assert cell.error.ename == "KeyboardInterrupt"
    text = "\n".join(cell.error.traceback)
    assert "1 task of this client goes on" in text
    assert "rc.cancel()" in text
    assert "waits.py" not in text, "frames of this package say nothing to a user"
    assert "ar.get()" in text
    gate.touch()
    assert notebook.value("ar.get() is None") == "True"


def test_an_interrupt_of_other_code_is_shown_as_ever(notebook: Notebook, tmp_path: Path):
    begun = tmp_path / "begun"
    cell = notebook.run_and_interrupt(
        # in one statement: between two, IPython's own code would be interrupted
        f"import time\nfor n in range(6000): n or open({str(begun)!r}, 'w').close(); time.sleep(0.01)",
        lambda: wait_until(begun.exists),
    )
    assert cell.error.ename == "KeyboardInterrupt"
    assert "time.sleep" in "\n".join(cell.error.traceback)


def test_interrupting_a_wait_ends_the_tasks_if_that_is_set(notebook: Notebook, tmp_path: Path):
    begun = tmp_path / "begun"
    notebook.run(WAIT + WHEN_WAITING + "rc.on_interrupt = 'cancel'")
    cell = notebook.run_and_interrupt(
        "first = rc[0].apply_async(wait_for, '/nowhere/1'); second = rc[1].apply_async(wait_for, '/nowhere/2')\n"
        "while not (first.started and second.started): pass\n"
        f"when_waiting({str(begun)!r})\n"
        "rc.wait([first, second])",
        lambda: wait_until(begun.exists),
    )
    assert "are being cancelled" in "\n".join(cell.error.traceback)
    assert notebook.value("first.wait(60), second.wait(60), first.cancelled(), second.cancelled()") == str((True,) * 4)
    assert "'leave', 'abort' or 'cancel'" in notebook.run("rc.on_interrupt = 'stop'").error.evalue
    notebook.run("rc.on_interrupt = 'leave'")
