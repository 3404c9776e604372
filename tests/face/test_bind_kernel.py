"""An engine that is opened to a Jupyter front end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import wait_until

import engineroom as er

pytest.importorskip("ipykernel", reason="ipykernel is not installed: bind_kernel is not tested")
jupyter_client = pytest.importorskip("jupyter_client")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[er.Client, Any]]:
    """A client of a cluster, and a Jupyter client of its engine 1."""
    folder = tmp_path_factory.mktemp("kernel")
    with er.Cluster(n=2, profile_dir=folder / "profile_default", database="memory") as rc:
        file = rc[1].apply_sync(er.bind_kernel, connection_file=str(folder / "kernel.json"))
        assert rc[1].apply_sync(er.bind_kernel) == file, "it is opened once"
        front = jupyter_client.BlockingKernelClient(connection_file=file)
        front.load_connection_file()
        front.start_channels()
        try:
            front.wait_for_ready(timeout=60)
            yield rc, front
        finally:
            front.stop_channels()


def run(front: Any, code: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Execute a cell; the reply, and what came on the way."""
    shown: list[dict[str, Any]] = []
    reply = front.execute_interactive(code, timeout=60, output_hook=shown.append)
    return reply["content"], [{"type": message["msg_type"], **message["content"]} for message in shown]


def test_cells_of_a_console_and_tasks_share_a_namespace(console: tuple[er.Client, Any]):
    rc, front = console
    rc[1]["a"] = 20
    reply, shown = run(front, "print('from the engine')\nb = a + 1\nb")
    assert reply["status"] == "ok"
    assert {"name": "stdout", "text": "from the engine\n"}.items() <= shown_of(shown, "stream").items()
    assert shown_of(shown, "execute_result")["data"]["text/plain"] == "21"
    assert rc[1]["b"] == 21
    assert "b" not in rc[0].apply_sync(lambda: list(globals()))


def shown_of(shown: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(message for message in shown if message["type"] == kind)


def test_errors_displays_and_magics(console: tuple[er.Client, Any]):
    _, front = console
    reply, shown = run(front, "1 / 0")
    assert (reply["status"], reply["ename"]) == ("error", "ZeroDivisionError")
    assert "division by zero" in shown_of(shown, "error")["traceback"][-1]
    _, shown = run(front, "from IPython.display import HTML, display\ndisplay(HTML('<b>'))")
    assert shown_of(shown, "display_data")["data"]["text/html"] == "<b>"
    _, shown = run(front, "%time 1 + 1")
    assert "Wall time" in shown_of(shown, "stream")["text"]


def test_names_are_completed(console: tuple[er.Client, Any]):
    rc, front = console
    rc[1]["measurements"] = [1]
    reply = front.complete("measur", reply=True, timeout=60)["content"]
    assert "measurements" in reply["matches"]
    front.is_complete("for x in y:")
    assert front.get_shell_msg(timeout=60)["content"]["status"] == "incomplete"


def test_a_cell_that_runs_is_interrupted(console: tuple[er.Client, Any]):
    rc, front = console
    front.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
    wait_until(lambda: front.get_iopub_msg(timeout=60)["content"].get("text") == "begun\n")
    front.control_channel.send(front.session.msg("interrupt_request"))
    reply = front.get_shell_msg(timeout=60)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert rc[1].apply_sync(abs, -1) == 1


def test_elsewhere_it_is_an_error_that_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"rc\[0\]\.apply_sync\(er\.bind_kernel\)"):
        er.bind_kernel()
