"""The notebooks of the examples are what their pages and scripts say, and run from the first cell to the last.

They run in one kernel, one behind the other: starting kernels and importing matplotlib would take most of the time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of
from support.notebooks import Notebook, kernel_environment

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
sys.path.insert(0, str(FOLDER))
import make  # noqa: E402

sys.path.remove(str(FOLDER))

#: Of each notebook: sizes for a short run; what its outputs must say; how many pictures it must have.
RUNS: dict[str, tuple[dict[str, Any], list[str], int]] = {
    "dag": ({"PACKAGES": ("tomllib",)}, ["14 tasks, 17 edges: nothing began", "Timeline: 14 tasks"], 2),
    "grid_search": ({"POINTS": 60, "STEPS": 2}, ["'gamma':", "count"], 1),
    "magics": ({}, ["Out[0:2]: 2.0", "only here: 9", "<ExecuteReply[4]: 42>", "[16, 81]"], 2),
    "options": ({"PATHS": 100}, ["Timeline: 15 tasks on 2 engines", "'label': 'volatility 0.1'"], 2),
    "pi_digits": ({"DIGITS": 100}, ["3.243f6a8885a308d313198a2e03707344", "Timeline: 2 tasks", "χ² ="], 2),
    "progress": (
        {"TASKS": 3, "PAUSE": 0.01},
        ["<AsyncMapResult(integrate): finished>", "5 slices: 0.330000", "3 of 3 tasks"],
        1,
    ),
    "wave_equation": ({"STEPS": (0, 5)}, ["(64, 64)", "0.0"], 1),
    "word_count": ({"PATTERN": "a*.py"}, ["words; by engine: ["], 1),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Notebook, Path]]:
    """A kernel without a client, and its folder."""
    for module in ("nbclient", "matplotlib", "sklearn"):
        pytest.importorskip(module, reason=f"{module} is not installed, so the examples' notebooks do not run")
    folder = tmp_path_factory.mktemp("examples")
    with Notebook(folder, kernel_environment(folder)).running() as notebook:
        yield notebook, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_notebook_runs_to_its_end(kernel: tuple[Notebook, Path], name: str):
    notebook, folder = kernel
    sizes, texts, pictures = RUNS[name]
    notebook.run("%reset -f")
    said, drawn = "", 0
    for cell in make.notebook(name, **sizes).cells:
        if cell.cell_type == "code":
            done = notebook.run(cell.source)
            assert done.error is None, (cell.source, done)
            said += done.text + "\n".join(bundle["text/plain"] for bundle in done.bundles) + done.html
            drawn += sum("image/png" in bundle or "<svg" in bundle.get("text/html", "") for bundle in done.bundles)
    for text in texts:
        assert text in said, said
    assert drawn == pictures
    assert not processes_of(folder), "its last cell stops the cluster"


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_notebook_is_what_its_page_and_its_script_say(name: str):
    """After a change: `python examples/notebooks/make.py NAME`."""
    path = FOLDER / f"{name}.ipynb"
    kept = json.loads(path.read_text(encoding="utf-8"))
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in kept["cells"]]
    assert sources == [(cell["cell_type"], cell["source"]) for cell in make.cells(name)]
    outputs = [output for cell in kept["cells"] for output in cell.get("outputs", [])]
    assert outputs, "made to be read: with what its cells show"
    assert all(output["output_type"] != "error" for output in outputs)
    assert path.stat().st_size < 150_000
    assert "jupyter.widget" not in path.read_text(encoding="utf-8"), "a widget shows nothing without its kernel"


def test_every_notebook_is_tested():
    assert set(make.names()) == set(RUNS) == {path.stem for path in FOLDER.glob("*.ipynb")}
    assert all((FOLDER.parent / f"{name}.py").exists() for name in RUNS), "each is an example as a script, too"


def test_a_page_that_names_what_its_script_has_not_is_an_error():
    with pytest.raises(KeyError, match="nothing_such"):
        make.copied_from("options.py: prices, nothing_such")
    assert make.copied_from("pi_digits.py: PIECE, BITS") == "PIECE = 50\nBITS = 4 * PIECE + 64"
    assert make.copied_from("magics.py: CELLS[0]") == "import engineroom as er"
    with pytest.raises(AssertionError, match="no parameter"):
        make.notebook("options", NOTHING=1)
