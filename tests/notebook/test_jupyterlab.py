"""JupyterLab in a real browser: what a user sees, and that clicks do what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import wait_until
from support.jupyterlab import Lab
from support.notebooks import WHEN_WAITING

import engineroom as er

pytestmark = pytest.mark.slow


@pytest.fixture
def connect(notebook_cluster: er.Cluster) -> str:
    """The first cell of a notebook."""
    return (
        "import engineroom as er\n"
        f"rc = er.Client({str(notebook_cluster._connection_file())!r}); rc.wait_for_engines(2)\n"
        "rc[:].clear(block=True); print('connected')"
    )


def test_rich_output_of_engines_is_drawn_in_the_cell_that_asked(lab: Lab, connect: str):
    lab.open(
        "rich",
        connect,
        "%%px\nimport os\nfrom IPython.display import HTML, display\n"
        "print('from engine')\ndisplay(HTML('<b id=\"here\">bold</b>'))\n6 * 7",
        "%px %matplotlib inline",
        "%%px\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1)); _ = plt.plot([1, 3, 2])",
        "def f(n):\n    from IPython.display import Markdown, display\n    display(Markdown(f'**item {n}**'))\n"
        "ar = rc.load_balanced_view().map_async(f, range(2)); ar.display_outputs()",
    )
    lab.run(0, "connected")
    lab.run(1, "[stdout:0] from engine", "Out[1:")
    lab.has(1, "b#here", 2)
    lab.run(2)
    lab.run(3)
    lab.has(3, ".jp-OutputArea img", 2)
    lab.run(4)
    lab.has(4, "strong", 2)
    lab.screenshot("rich")


def test_tracebacks_open_at_a_click_and_hostile_text_stays_text(lab: Lab, connect: str):
    lab.open(
        "errors",
        connect,
        "def fit(seed):\n"
        "    if seed % 2: raise ValueError('<img src=x onerror=\"window.broken = 1\">')\n"
        "    return seed\n"
        "ar = rc.load_balanced_view().map_async(fit, range(6)); ar.get()",
        "ar",
        "rc",
        "rc.db_query({'function_name': 'fit'}, keys=['arguments', 'state', 'engine_id', 'duration'])",
        "rc.explain(ar)",
        "rc[0]",
    )
    lab.run(0)
    lab.run(1, "CompositeError")
    lab.has(1, "img", 0)
    assert not lab.do("isVisible", number=1, selector="details pre")
    lab.do("click", number=1, selector="summary")
    lab.do("visible", number=1, selector="details pre")
    lab.run(2, "6 of 6 items, 3 failed")
    lab.run(3, "2 engines on 1 host")
    lab.screenshot("errors")
    lab.run(4)
    lab.do("visible", number=4, selector="tbody tr:nth-child(6)")
    lab.run(5, "ended")
    lab.run(6, "DirectView")
    lab.screenshot("values")


def test_progress_and_interrupt_with_the_buttons_of_the_page(lab: Lab, connect: str, tmp_path: Path):
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    lab.open(
        "progress",
        connect,
        WHEN_WAITING + "def step(i, gate):\n    import os, time\n"
        "    while i and not os.path.exists(gate): time.sleep(0.01)\n"
        f"ar = rc.load_balanced_view().map_async(step, [0, 1, 0, 1], [{str(gate)!r}] * 4)\n"
        "ar.wait_interactive(widget=False)",
        "ar.wait_interactive()",
        f"waits = rc[0].apply_async(step, 1, '/nowhere')\nwhile not waits.started: pass\n"
        f"when_waiting({str(begun)!r})\nwaits.get()",
        "waits.cancel(); waits.wait(); waits.cancelled()",
    )
    lab.run(0)
    lab.do("begin", number=1)
    lab.do("visible", number=1, selector="progress")
    gate.touch()
    lab.do("end", number=1)
    lab.says(1, "4 of 4 tasks")
    lab.do("begin", number=2)
    lab.do("visible", number=2, selector=".widget-hprogress, .jp-OutputArea .widget-inline-hbox, progress")
    lab.do("end", number=2)
    lab.screenshot("bars")
    lab.do("begin", number=3)
    wait_until(begun.exists)
    lab.do("interrupt")
    lab.do("end", number=3)
    lab.says(3, "rc.cancel() ends all")
    lab.run(4, "True")
    lab.screenshot("progress")
