"""A real notebook for tests: a kernel, and cells that run in it, as JupyterLab runs them (with nbclient)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import engineroom as er

#: Seconds that a cell may take: the machine may be busy.
CELL_SECONDS = 90

#: Source of `when_waiting(path)`: a thread makes the file once the main thread waits for tasks, and not before.
WHEN_WAITING = """
def when_waiting(path):
    import sys, threading, time
    def look():
        names = []
        while "drive" not in names:
            time.sleep(0.01)
            frame, names = sys._current_frames()[threading.main_thread().ident], []
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
        open(path, "w").close()
    threading.Thread(target=look).start()
"""


class Cell:
    """A cell that has run: its outputs, as the notebook file has them."""

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs

    @property
    def text(self) -> str:
        """All that it printed to stdout."""
        return self._printed("stdout")

    @property
    def stderr(self) -> str:
        """All that it printed to stderr."""
        return self._printed("stderr")

    def _printed(self, name: str) -> str:
        return "".join(o.text for o in self.outputs if o.output_type == "stream" and o.name == name)

    @property
    def bundles(self) -> list[dict[str, str]]:
        """The mime bundles that it displayed, and its value, in their order."""
        return [dict(o.data) for o in self.outputs if o.output_type in ("display_data", "execute_result")]

    @property
    def html(self) -> str:
        """All HTML in its outputs."""
        return "\n".join(bundle.get("text/html", "") for bundle in self.bundles)

    @property
    def error(self) -> Any:
        """The error that ended it: `ename`, `evalue`, `traceback`; None."""
        return next((o for o in self.outputs if o.output_type == "error"), None)

    def __repr__(self) -> str:
        return f"Cell({self.outputs})"


class Notebook:
    """A kernel with an empty notebook."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        import nbformat
        from nbclient import NotebookClient

        self._format = nbformat
        self._client = NotebookClient(
            nbformat.v4.new_notebook(), timeout=CELL_SECONDS, allow_errors=True, kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )  # fmt: skip
        self._environment = dict(environment)

    @contextlib.contextmanager
    def running(self) -> Iterator[Notebook]:
        """The kernel runs in this context."""
        with self._client.setup_kernel(env=self._environment):
            yield self

    def run(self, source: str) -> Cell:
        """Run a cell to its end."""
        cell = self._format.v4.new_code_cell(source)
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        return Cell(cell.outputs)

    def value(self, source: str) -> str:
        """Run a cell that must have no error; the text of its value."""
        cell = self.run(source)
        assert cell.error is None, cell
        return cell.bundles[-1]["text/plain"]

    def run_and_interrupt(self, source: str, when: Callable[[], Any]) -> Cell:
        """Run a cell; interrupt it, as the button does, once a condition holds."""

        def watch() -> None:
            when()
            os.kill(self._pid, signal.SIGINT)

        watcher = threading.Thread(target=watch)
        watcher.start()
        cell = self.run(source)
        watcher.join()
        return cell

    def restart(self) -> None:
        """Kill the kernel, and start another in its place, as the button does."""
        from jupyter_core.utils import run_sync

        run_sync(self._client.km.restart_kernel)(now=True)
        self._client.kc.stop_channels()
        client = self._client.kc = self._client.km.client()
        client.start_channels()
        run_sync(client.wait_for_ready)(timeout=CELL_SECONDS)
        client.allow_stdin = False

    @property
    def _pid(self) -> int:
        return int(self._client.km.provisioner.pid)


def kernel_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a kernel whose files, and those of its clusters, are in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "IPP_NONINTERACTIVE"}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return environment | {
        "HOME": str(home),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    } | more


@pytest.fixture(scope="module")
def notebook(notebook_cluster: er.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel with `rc`, a client of the notebooks' cluster."""
    pytest.importorskip("nbclient", reason="nbclient is not installed, so no notebook can be run")
    folder = tmp_path_factory.mktemp("notebook")
    with Notebook(folder, kernel_environment(folder)).running() as notebook:
        made = notebook.run(
            "import engineroom as er\n"
            f"rc = er.Client({str(notebook_cluster._connection_file())!r})\n"
            "rc.wait_for_engines(2, timeout=60); rc[:].clear(block=True)\n"
            "%pxconfig --progress-after -1\n"  # a bar that a busy machine shows is no output of the cell
        )
        assert made.error is None, made
        yield notebook
        notebook.run("rc.close()")
