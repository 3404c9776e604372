"""`%px` and its kin in a real kernel: what a cell shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import wait_until
from support.notebooks import Notebook


def test_values_and_text_have_the_engine_in_front(notebook: Notebook):
    assert notebook.run("%px import os").outputs == []
    shown = notebook.run("%px print('here'); 6 * 7").text
    assert "[stdout:0] here\n" in shown
    assert "[stdout:1] here\n" in shown
    assert shown.count(": 42\n") == 2
    assert "Out[0:" in shown


def test_the_error_of_a_cell_has_the_remote_tracebacks_closed(notebook: Notebook):
    assert notebook.run("%%px --targets 0\n1").error is None  # from now on the engines count their cells differently
    cell = notebook.run("%px 1 / 0")
    assert cell.error.ename == "CompositeError"
    assert "[0:execute]: ZeroDivisionError" in "\n".join(cell.error.traceback)
    assert cell.stderr == ""
    assert cell.html.count("<details>") == 1, f"both engines have the same error: {cell.html}"
    assert "[0, 1:execute]" in cell.html
    assert "ZeroDivisionError" in cell.html
    assert "/engineroom/" not in cell.html + cell.error.evalue, "frames of this package say nothing to a user"
    assert "interactiveshell.py" not in cell.html


def test_a_single_error_is_shown_so_too_and_other_errors_as_ever(notebook: Notebook):
    cell = notebook.run("rc[0].apply_sync(lambda: [][1])")
    assert "IndexError" in cell.error.ename
    assert "<details><summary>" in cell.html
    assert "list index out of range" in cell.html
    local = notebook.run("[][2]")
    assert local.error.ename == "IndexError"
    assert local.html == ""
    assert any("[][" in line for line in local.error.traceback)


def test_hostile_errors_are_text(notebook: Notebook):
    cell = notebook.run(
        "def f():\n    raise ValueError('<script>alert(1)</script><img src=x onerror=alert(2)>\\x1b[31mred')\n"
        "rc[0].apply_sync(f)"
    )
    assert "<script" not in cell.html
    assert "<img" not in cell.html
    assert "&lt;script&gt;" in cell.html
    assert "\x1b" not in cell.html


def test_rich_output_of_cells_is_labelled_once_for_each_engine(notebook: Notebook):
    cell = notebook.run(
        "%%px --targets 0,1 --no-stream\nfrom IPython.display import display, HTML\n"
        "display(HTML('<b>first</b>')); display(HTML('<b>second</b>'))"
    )
    assert [bundle["text/html"] for bundle in cell.bundles] == ["<b>first</b>", "<b>second</b>"] * 2
    assert cell.text.count("[output:0]") == cell.text.count("[output:1]") == 1
    by_order = notebook.run("%pxresult --group-outputs order")
    assert [b["text/html"] for b in by_order.bundles] == ["<b>first</b>"] * 2 + ["<b>second</b>"] * 2
    by_engine = notebook.run("%pxresult -e")
    assert by_engine.text.splitlines() == ["[output:0]", "[output:1]"]


def test_outputs_come_when_their_task_ends_not_when_all_have(notebook: Notebook, tmp_path: Path):
    """Engine 1 waits until the notebook has shown what engine 0 displayed: it looks into the cell's own outputs."""
    gate = tmp_path / "gate"
    notebook.run("rc[0].push({'me': 0}, block=True); rc[1].push({'me': 1}, block=True)")
    notebook.run(
        "import sys, IPython.display\n"
        "original = get_ipython().display_pub.publish\n"
        "def publish(data, *args, **kwargs):\n"
        "    original(data, *args, **kwargs)\n"
        f"    'early' in data.get('text/html', '') and open({str(gate)!r}, 'w').close()\n"
        "get_ipython().display_pub.publish = publish"
    )
    cell = notebook.run(
        "%%px --stream --progress-after -1\n"
        "import os, time\n"
        "from IPython.display import HTML, display\n"
        "print('begun', flush=True)\n"
        "if me == 0:\n"
        "    display(HTML('<i>early</i>'))\n"
        "else:\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "    display(HTML('<i>late</i>'))\n"
    )
    notebook.run("get_ipython().display_pub.publish = original")
    assert "[stdout:0] begun\n" in cell.text
    assert "[stdout:1] begun\n" in cell.text
    assert [bundle["text/html"] for bundle in cell.bundles] == ["<i>early</i>", "<i>late</i>"]


def test_local_runs_the_cell_here_while_the_engines_run_it(notebook: Notebook, tmp_path: Path):
    """The engines wait for the file that the local run makes: one after the other would never end."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert notebook.run(f"place = {str(here)!r}\nrc[:].push({{'place': {str(there)!r}}}, block=True)").error is None
    cell = notebook.run(
        "%%px --local\n"
        "import os, time\n"
        "open(place, 'a').close()\n"
        f"while not (os.path.exists({str(here)!r}) and os.path.exists({str(there)!r})): time.sleep(0.01)\n"
        "met = True\n"
    )
    assert cell.error is None, cell
    assert notebook.value("met, rc[:]['met']") == "(True, [True, True])"


def test_interrupting_a_cell_interrupts_the_engines(notebook: Notebook, tmp_path: Path):
    begun = tmp_path / "begun"
    cell = notebook.run_and_interrupt(
        f"%%px --targets 0\nimport time\nopen({str(begun)!r}, 'w').close()\nfor _ in range(3000): time.sleep(0.01)",
        lambda: wait_until(begun.exists),
    )
    assert "Sending signal SIGINT to engines" in cell.stderr
    assert "KeyboardInterrupt" in cell.error.evalue
    assert notebook.value("rc[0].apply_sync(lambda: 'free again')") == "'free again'"


def test_autopx_in_a_notebook(notebook: Notebook):
    assert "%autopx enabled" in notebook.run("%autopx").text
    assert notebook.run("where = 'engines'").error is None
    assert notebook.run("where").text.count("'engines'") == 2
    assert "%autopx disabled" in notebook.run("%autopx").text
    assert notebook.run("where").error.ename == "NameError"


def test_a_result_is_bound_to_a_name(notebook: Notebook):
    notebook.run("%%px --noblock -o kept\n1 + 1")
    assert notebook.value("[reply.data['text/plain'] for reply in kept.get()]") == "['2', '2']"


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_clear_output_on_an_engine_replaces_what_the_cell_shows(notebook: Notebook, how: str):
    cell = notebook.run(
        f"%%px --targets 0 {how} --progress-after -1\n"
        "from IPython.display import HTML, clear_output, display\n"
        "for step in range(3):\n"
        "    clear_output(wait=True)\n"
        "    print('step', step)\n"
        "    display(HTML(f'<b>{step}</b>'))\n"
    )
    assert cell.error is None, cell
    assert cell.text.splitlines() == ["step 2"]
    assert [bundle["text/html"] for bundle in cell.bundles] == ["<b>2</b>"]
