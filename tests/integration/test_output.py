"""What tasks print, display and publish."""

from __future__ import annotations

import sys
import time

import pytest
from conftest import wait_until

import engineroom as er
from engineroom.remote import datapub


def test_printed_text_comes_with_the_result_and_the_record(any_rc):
    def chatty():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        sys.stdout.buffer.write("bytes ü\n".encode())
        print("lone \ud800 surrogate")

    result = any_rc[0].apply_async(chatty)
    result.get(10)
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
    result.get(10)
    assert result.stdout == "first\nsecond\n"


def test_published_data_is_seen_while_the_task_runs(rc, tmp_path):
    gate = tmp_path / "gate"

    def publish(gate):
        import os
        import time

        from engineroom.remote.datapub import publish_data

        publish_data({"step": 1, "loss": 0.5})
        publish_data({"step": 2})
        while not os.path.exists(gate):
            time.sleep(0.005)

    result = rc[0].apply_async(publish, str(gate))
    wait_until(lambda: result.data == {"step": 2, "loss": 0.5})
    gate.touch()
    result.get(10)
    assert result.data == {"step": 2, "loss": 0.5}
    with pytest.raises(RuntimeError):
        datapub.publish_data({})


def test_boundless_printing_is_cut_and_marked(rc):
    def flood():
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):
            print("x" * 1_000_000)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    result = rc[0].apply_async(flood)
    assert result.get(30) < 50, "megabytes"
    assert len(result.stdout) < 1_200_000
    assert "1 Gcharacters more dropped" in result.stdout or "dropped" in result.stdout


def test_executing_cells(rc, tmp_path):
    rc[:].execute("a = 5", block=True)
    assert rc[:]["a"] == [5, 5]
    reply = rc[0].execute("a + 1", silent=False).get(10)
    assert isinstance(reply, er.ExecuteReply)
    assert reply.data["text/plain"] == "6"
    assert "6" in repr(reply)
    assert reply.engine_id == 0
    rc[0].execute("%cd -q /tmp", block=True)
    shown = rc[0].execute("from IPython.display import display, HTML; display(HTML('<b>x</b>'))")
    shown.get(10)
    quiet = rc[0].execute("a + 1").get(10)
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
        reply = rc[0].execute("3 + 3", silent=False).get(10)
        assert reply.data["text/plain"] == "6"
        with pytest.raises(er.RemoteError, match="NameError"):
            rc[0].execute("a", silent=False, block=True)


def test_display_is_collected_with_silent_false(rc):
    shown = rc[0].execute(
        "get_ipython(); from IPython.display import display, HTML; display(HTML('<b>x</b>'))", silent=False
    )
    shown.get(10)
    assert [o["data"]["text/html"] for o in shown.outputs] == ["<b>x</b>"]


def test_showing_outputs(rc, capsys):
    result = rc[:].apply_async(lambda: print("hello"))
    result.display_outputs()
    assert capsys.readouterr().out == "[stdout:0] hello\n[stdout:1] hello\n"
    with pytest.raises(ValueError, match="groupby"):
        result.display_outputs(groupby="nonsense")
    assert time
