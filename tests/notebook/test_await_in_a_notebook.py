"""Cells of a notebook await results; the kernel's event loop, which runs all the time, is not blocked."""

from __future__ import annotations

from pathlib import Path

from support.notebooks import Notebook

TICKING = """\
import asyncio
def wait_for(gate):
    import os, time
    while not os.path.exists(gate): time.sleep(0.005)
    return "there"
async def tick_then_touch(path):
    for _ in range(50): await asyncio.sleep(0)
    open(path, "w").close()
"""


def test_a_cell_awaits_results_and_other_coroutines_go_on(notebook: Notebook, tmp_path: Path):
    gate = str(tmp_path / "gate")
    cell = notebook.run(
        TICKING + f"later = asyncio.ensure_future(tick_then_touch({gate!r}))\n"
        f"print(await rc[:].apply_async(wait_for, {gate!r}))\nawait later"
    )
    assert cell.error is None, cell
    assert "['there', 'there']" in cell.text
    cell = notebook.run("print([x async for x in rc.load_balanced_view().map_async(abs, [-1, -2, -3])])")
    assert "[1, 2, 3]" in cell.text
    assert notebook.value("await rc.wait_async(timeout=30)") == "True"
