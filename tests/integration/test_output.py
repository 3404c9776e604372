"""What tasks print, display and publish."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest
from conftest import wait_until

import engineroom as er
from engineroom.on_engine import datapub

#: What a child process prints: 10 GB by night.
FLOOD = 10_000_000_000 if os.environ.get("ENGINEROOM_NIGHTLY") else 200_000_000


def test_printed_text_comes_with_the_result_and_the_record(any_rc):
    def chatty():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        sys.stdout.buffer.write("bytes ü\n".encode())
        print("lone \ud800 surrogate")

    result = any_rc[0].apply_async(chatty)
    result.get(60)
    assert result.stdout == "to stdout\nbytes ü\nlone ? surrogate\n"
    assert result.stderr == "to stderr\n"
    [record] = any_rc.db_query({"msg_id": result.msg_ids[0]}, keys=["stdout", "stderr"])
    assert (record["stdout"], record["stderr"]) == (result.stdout, result.stderr)


def test_output_is_seen_while_the_task_runs(rc, tmp_path):
    gate = tmp_path / "gate"

    def talk(gate):
        import os
        import time

        print("first", flush=True)
        while not os.path.exists(gate):
            time.sleep(0.005)
        print("second")

    result = rc[0].apply_async(talk, str(gate))
    wait_until(lambda: result.stdout == "first\n")
    assert not result.done()
    gate.touch()
    result.get(60)
    assert result.stdout == "first\nsecond\n"


def test_published_data_is_seen_while_the_task_runs(rc, tmp_path):
    gate = tmp_path / "gate"

    def publish(gate):
        import os
        import time

        from engineroom.on_engine.datapub import publish_data

        publish_data({"step": 1, "loss": 0.5})
        publish_data({"step": 2})
        while not os.path.exists(gate):
            time.sleep(0.005)

    result = rc[0].apply_async(publish, str(gate))
    wait_until(lambda: result.data == {"step": 2, "loss": 0.5})
    gate.touch()
    result.get(60)
    assert result.data == {"step": 2, "loss": 0.5}
    with pytest.raises(RuntimeError):
        datapub.publish_data({})


@pytest.mark.parametrize("size", [1_000, 20_000, 3_000_000])
def test_published_data_may_be_large(any_rc, size):
    """Its buffers come beside the message from some size on, as those of results do."""

    def publish(size):
        import numpy as np

        from engineroom.on_engine.datapub import publish_data

        publish_data({"array": np.full(size, 7, "u1"), "bytes": b"x" * size, "step": 1})

    for view in (any_rc[0], any_rc.load_balanced_view()):
        result = view.apply_async(publish, size)
        result.get(60)
        assert result.data["step"] == 1
        assert result.data["bytes"] == b"x" * size
        assert result.data["array"].sum() == 7 * size


def test_published_data_that_cannot_be_unpickled_here_is_told(rc, caplog):
    def publish(client):
        import os

        from engineroom.on_engine.datapub import publish_data

        class OnlyThere:
            def __reduce__(self):
                return eval, (f"1 // (__import__('os').getpid() - {client})",)

        publish_data({"value": OnlyThere()})
        return os.getpid()

    result = rc[0].apply_async(publish, os.getpid())
    assert result.get(60) != os.getpid()
    assert result.data == {}
    assert f"what task {result.msg_ids[0]} has published cannot be unpickled here" in caplog.text


@pytest.mark.fault(34)
def test_boundless_printing_is_cut_and_marked(rc):
    def flood():
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):
            print("x" * 1_000_000)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    result = rc[0].apply_async(flood)
    assert result.get(60) < 50, "megabytes"
    assert len(result.stdout) < 1_200_000
    assert "1 Gcharacters more dropped" in result.stdout or "dropped" in result.stdout


def test_executing_cells(rc, tmp_path):
    rc[:].execute("a = 5", block=True)
    assert rc[:]["a"] == [5, 5]
    reply = rc[0].execute("a + 1", silent=False).get(60)
    assert isinstance(reply, er.ExecuteReply)
    assert reply.data["text/plain"] == "6"
    assert "6" in repr(reply)
    assert reply.engine_id == 0
    rc[0].execute("%cd -q /tmp", block=True)
    shown = rc[0].execute("from IPython.display import display, HTML; display(HTML('<b>x</b>'))")
    shown.get(60)
    quiet = rc[0].execute("a + 1").get(60)
    assert quiet.data == {}
    with pytest.raises(er.RemoteError, match="ZeroDivisionError") as caught:
        rc[0].execute("b = 1\nb / 0", block=True)
    assert "b / 0" in caught.value.traceback
    with pytest.raises(er.RemoteError, match="SyntaxError"):
        rc[0].execute("this is no python", block=True)
    with pytest.raises(TypeError):
        rc[0].execute(5)
    script = tmp_path / "script.py"
    script.write_text("from_file = a * 2\n")
    rc[:].run(script, block=True)
    assert rc[:]["from_file"] == [10, 10]


def test_cells_show_values_after_the_namespace_was_cleared(rc):
    for view in (rc[:], rc[0]):
        view.execute("a = 5; a", silent=False, block=True)
        view.clear(block=True)
        reply = rc[0].execute("3 + 3", silent=False).get(60)
        assert reply.data["text/plain"] == "6"
        with pytest.raises(er.RemoteError, match="NameError"):
            rc[0].execute("a", silent=False, block=True)


def test_display_is_collected_with_silent_false(rc):
    shown = rc[0].execute(
        "get_ipython(); from IPython.display import display, HTML; display(HTML('<b>x</b>'))", silent=False
    )
    shown.get(60)
    assert [o["data"]["text/html"] for o in shown.outputs] == ["<b>x</b>"]


def test_showing_outputs(rc, capsys):
    result = rc[:].apply_async(lambda: print("hello"))
    result.display_outputs()
    assert capsys.readouterr().out == "[stdout:0] hello\n[stdout:1] hello\n"
    with pytest.raises(ValueError, match="groupby"):
        result.display_outputs(groupby="nonsense")
    assert time


@pytest.mark.fault(34)
def test_what_c_code_and_child_processes_print_is_in_the_record(any_rc):
    def mixed():
        import ctypes
        import os
        import subprocess
        import sys
        import time

        print("python")
        subprocess.run("echo child; echo complaint >&2", shell=True, check=True)
        print("python again")
        ctypes.CDLL(None).printf(b"from C, ")
        time.sleep(0.001)
        os.write(1, "raw ü\n".encode())
        subprocess.run(["echo", "to the stream"], stdout=sys.stdout, check=True)

    for _ in range(2):
        result = any_rc[0].apply_async(mixed)
        result.get(60)
        assert sorted(result.stdout.replace("from C, ", "").splitlines()) == [
            "child",
            "python",
            "python again",
            "raw ü",
            "to the stream",
        ]
        assert result.stdout.index("child") < result.stdout.index("python again")
        assert "from C, " in result.stdout
        assert result.stderr == "complaint\n"
    [record] = any_rc.db_query({"msg_id": result.msg_ids[0]}, keys=["stdout", "stderr"])
    assert (record["stdout"], record["stderr"]) == (result.stdout, result.stderr)
    quiet = any_rc[0].apply_async(lambda: None)
    quiet.get(60)
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_each_of_many_short_tasks_has_what_it_wrote(rc):
    def write(i):
        import os

        os.write(1, f"{i}\n".encode())

    rc[0].apply_async(write, "first").get(60)
    results = [rc[0].apply_async(write, i) for i in range(300)]
    for i, result in enumerate(results):
        result.get(60)
        assert result.stdout == f"{i}\n"


def test_what_a_child_process_prints_is_seen_while_the_task_runs(rc, tmp_path):
    gate = tmp_path / "gate"

    def talk(gate):
        import os
        import subprocess
        import time

        subprocess.run("echo early", shell=True, check=True)
        while not os.path.exists(gate):
            time.sleep(0.005)

    result = rc[0].apply_async(talk, str(gate))
    wait_until(lambda: result.stdout == "early\n")
    gate.touch()
    result.get(60)
    assert result.stdout == "early\n"


@pytest.mark.fault(34)
def test_boundless_printing_of_a_child_process_is_cut_and_marked(rc):
    def flood(size):
        import resource
        import subprocess

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        subprocess.run(f"yes | head -c {size}", shell=True, check=True)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    result = rc[0].apply_async(flood, FLOOD)
    assert result.get(300) < 100, "MB: what is dropped takes no memory"
    assert len(result.stdout) < 1_200_000
    dropped, unit = re.search(r"\[\.\.\. ([\d.]+) ([MG])characters more dropped", result.stdout).groups()
    assert float(dropped) * {"M": 1e6, "G": 1e9}[unit] > 0.8 * FLOOD


@pytest.mark.fault(34)
def test_threads_print_into_the_task_that_runs(rc):
    def start():
        import threading

        thread = threading.Thread(target=print, args=["from a thread"])
        thread.start()
        thread.join()

    result = rc[0].apply_async(start)
    result.get(60)
    assert result.stdout == "from a thread\n"


def test_a_task_that_rebinds_its_streams_silences_no_other(rc):
    def rebind():
        import io
        import os
        import sys

        sys.stdout = sys.stderr = io.StringIO()
        sys.stdin = open(os.devnull)  # noqa: SIM115
        print("nobody sees this")

    def close():
        import io
        import sys

        wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
        wrapped.write("wrapped ü\n")
        wrapped.close()
        sys.stdout.close()
        sys.stderr.close()

    rc[0].apply_sync(rebind)
    closing = rc[0].apply_async(close)
    closing.get(60)
    assert closing.stdout == "wrapped ü\n"
    for _ in range(2):
        result = rc[0].apply_async(lambda: print("seen"))
        result.get(60)
        assert result.stdout == "seen\n"


def test_the_streams_have_what_streams_have(rc):
    def look():
        import sys

        found = []
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, encoding="utf-8", errors="replace")
            found.append(
                [stream.name, stream.encoding, stream.line_buffering, stream.mode, stream.closed, stream.fileno()]
            )
            assert stream.buffer.writable()
            assert stream.buffer.fileno() == stream.fileno()
            try:
                stream.reconfigure(colour=True)
            except TypeError as error:
                assert "colour" in str(error)  # noqa: PT017
        return found

    assert rc[0].apply_sync(look) == [
        ["<stdout>", "utf-8", True, "w", False, 1],
        ["<stderr>", "utf-8", True, "w", False, 2],
    ]


def test_each_task_shows_its_warnings_and_keeps_its_filters_to_itself(rc):
    def warn():
        import warnings

        warnings.warn("look out", stacklevel=1)

    def hide():
        import warnings

        warnings.simplefilter("ignore")
        warnings.showwarning = lambda *args, **kwargs: None
        warnings.warn("look out", stacklevel=1)

    def shown(function):
        result = rc[0].apply_async(function)
        result.get(60)
        return result.stderr.count("UserWarning: look out")

    assert [shown(warn), shown(warn), shown(hide), shown(warn)] == [1, 1, 0, 1]
    rc[0].execute("import warnings; warnings.simplefilter('ignore')", block=True)
    assert shown(warn) == 0, "a cell changes filters for those that follow, as in a notebook"
    rc[0].execute("warnings.resetwarnings(); warnings.simplefilter('default')", block=True)
    assert shown(warn) == 1


def test_exit_in_a_cell_ends_the_cell(fresh_cluster):
    rc = fresh_cluster(n=1, database="none")
    for silent in (True, False):
        for code in ("exit()", "quit()", "import sys; sys.exit(3)"):
            with pytest.raises(er.RemoteError, match="SystemExit"):
                rc[0].execute(code, silent=silent).get(60)
    assert rc[0].apply_sync(lambda: 5) == 5


def test_text_that_cannot_be_encoded_is_named(rc):
    with pytest.raises(ValueError, match=r"lone surrogate.*position 5"):
        rc[0].execute("x = '\ud800'")
    shown = rc[0].execute(
        "from IPython.display import display, HTML; display(HTML('<b>\\ud800</b>'))", silent=False
    )
    shown.get(60)
    assert shown.outputs[0]["data"]["text/html"] == "<b>?</b>"
