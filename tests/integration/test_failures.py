"""What goes wrong in tasks comes back as typed errors that say what, where and why."""

from __future__ import annotations

import contextlib
import copy
import math
import multiprocessing
import os
import pickle
import socket as plain
import subprocess
import sys
import threading

import pytest
from conftest import hold

import engineroom as er


def fail(x=0):
    """Fails deep inside."""

    def deeper(y):
        return 1 / y

    return deeper(x)


# ---------------------------------------------------------------------------------------------- exceptions of tasks


def test_an_exception_comes_back_with_the_engines_traceback(any_rc):
    result = any_rc[1].apply_async(fail)
    with pytest.raises(er.RemoteError) as caught:
        result.get(60)
    error = caught.value
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    assert str(error) == "[1:apply] ZeroDivisionError: division by zero"
    assert error.engine_info["engine_id"] == 1
    assert error.engine_info["engine_uuid"] == result.engine_uuid
    assert "in deeper" in error.traceback
    assert "return 1 / y" in error.traceback
    assert "executor.py" not in error.traceback, "our own frames are nobody's concern"
    assert error.render_traceback()[-1] == str(error)
    assert any("in deeper" in note for note in error.__notes__)
    assert result.error["ename"] == "ZeroDivisionError"
    assert result.status == "error"
    assert not result.successful()
    assert result.exception().ename == "ZeroDivisionError"


def test_errors_can_be_pickled_and_copied(rc):
    error = rc[:].apply_async(fail).exception(10)
    assert isinstance(error, er.CompositeError)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(again) == str(error)
        assert again.elist == error.elist
    one = rc[0].apply_async(fail).exception(10)
    again = pickle.loads(pickle.dumps(one))
    assert (str(again), again.traceback, again.engine_info) == (str(one), one.traceback, one.engine_info)


def test_printing_a_remote_traceback(rc, capsys):
    rc[0].apply_async(fail).exception(10).print_traceback()
    assert "in deeper" in capsys.readouterr().out


def test_several_errors_make_a_composite(rc):
    with pytest.raises(er.CompositeError) as caught:
        rc.load_balanced_view().map_sync(fail, [0] * 6)
    error = caught.value
    assert len(error.elist) == 6
    assert str(error).count("ZeroDivisionError: ") == error.tb_limit
    assert "2 more exceptions" in str(error)
    assert "\n".join(error.render_traceback()).count("in deeper") == error.tb_limit
    with pytest.raises(er.RemoteError, match="ZeroDivisionError"):
        error.raise_exception(5)
    with pytest.raises(IndexError):
        error.raise_exception(6)


def test_a_remote_error_inside_a_task_travels_on(rc):
    def nested():
        raise er.RemoteError("InnerError", "from below", "a traceback", {})

    with pytest.raises(er.RemoteError, match="RemoteError: InnerError: from below"):
        rc[0].apply_sync(nested)


@pytest.mark.parametrize("name", ["TaskAborted", "EngineError", "UnknownTask"])
def test_a_task_that_raises_one_of_our_errors_has_failed_like_any_other(rc, name):
    def raising(name):
        import engineroom

        raise getattr(engineroom, name)("made up")

    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(raising, name)
    assert caught.value.ename == name
    assert "in raising" in caught.value.traceback


@pytest.mark.fault(32)
def test_exceptions_that_cannot_travel_still_tell(rc):
    def unpicklable():
        class Odd(Exception):
            def __init__(self, a, b):
                super().__init__(threading.Lock())

            def __reduce__(self):
                raise RuntimeError("no")

        raise Odd(1, 2)

    def speechless():
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no words")

        raise Mute

    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(unpicklable)
    assert caught.value.ename == "Odd"
    assert "raise Odd(1, 2)" in caught.value.traceback
    with pytest.raises(er.RemoteError, match=r"its str\(\) raised RuntimeError") as caught:
        rc[0].apply_sync(speechless)
    assert caught.value.ename == "Mute"
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.fault(32)
def test_an_exception_whose_str_is_no_text_still_tells(rc):
    def strange():
        class Surrogate(Exception):
            def __str__(self):
                return "\ud800 lone"

        raise Surrogate

    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(strange)
    assert caught.value.ename == "Surrogate"
    assert rc[0].apply_sync(abs, -1) == 1


def test_base_exceptions_do_not_end_the_engine(rc):
    pid = rc[0].apply_sync(os.getpid)

    def raising(kind):
        import builtins

        raise getattr(builtins, kind)("well")

    for kind in ("KeyboardInterrupt", "GeneratorExit", "BaseException"):
        with pytest.raises(er.RemoteError) as caught:
            rc[0].apply_sync(raising, kind)
        assert caught.value.ename == kind
    assert rc[0].apply_sync(os.getpid) == pid


def test_endless_recursion_and_deep_chains_are_told(rc):
    def forever(n):
        return forever(n + 1)

    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(forever, 0)
    assert caught.value.ename == "RecursionError"
    assert len(caught.value.traceback) < 100_000

    def huge():
        raise ValueError("x" * 10_000_000)

    with pytest.raises(er.RemoteError) as caught:
        rc[0].apply_sync(huge)
    assert caught.value.ename == "ValueError"


@pytest.mark.fault(33)
def test_a_missing_module_names_itself(rc):
    def needs():
        import a_module_nobody_has

        return a_module_nobody_has

    with pytest.raises(er.RemoteError, match=r"ModuleNotFoundError.*a_module_nobody_has"):
        rc[0].apply_sync(needs)


@pytest.mark.fault(33)
def test_a_function_of_a_module_the_engine_lacks(rc, tmp_path, monkeypatch):
    (tmp_path / "only_at_the_client.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_at_the_client

    for view in (rc[0], rc.load_balanced_view()):
        with pytest.raises(er.RemoteError, match="only_at_the_client") as caught:
            view.apply_sync(only_at_the_client.f)
        assert caught.value.ename == "ModuleNotFoundError"
    assert rc[0].apply_sync(abs, -1) == 1
    # the engine learns the module later: the next call finds it
    rc[0].execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", block=True)
    assert rc[0].apply_sync(only_at_the_client.f) == 1
    rc[0].execute("sys.path.pop(0); del sys.modules['only_at_the_client']", block=True)


# ---------------------------------------------------------------------------------------------- retries


def test_retries_run_a_failing_task_again(any_rc, tmp_path):
    ledger = tmp_path / "ledger"

    def third_time_lucky(ledger):
        with open(ledger, "a") as file:
            file.write("x")
        with open(ledger) as file:
            if len(file.read()) < 3:
                raise ValueError("not yet")
        return "at last"

    view = any_rc.load_balanced_view(retries=4)
    result = view.apply_async(third_time_lucky, str(ledger))
    assert result.get(60) == "at last"
    assert ledger.read_text() == "xxx"
    [record] = any_rc.db_query({"msg_id": result.msg_ids[0]}, keys=["attempts", "state"])
    assert record["state"] == "completed"
    assert [a["number"] for a in record["attempts"]] == [1, 2, 3]
    assert [a["cause"] for a in record["attempts"]] == ["ValueError: not yet"] * 2 + ["ok"]


def test_retries_run_out(rc, tmp_path):
    ledger = tmp_path / "ledger"

    def never(ledger):
        with open(ledger, "a") as file:
            file.write("x")
        raise ValueError("never")

    with pytest.raises(er.RemoteError, match="never"):
        rc.load_balanced_view(retries=2).apply_sync(never, str(ledger))
    assert ledger.read_text() == "xxx"
    with pytest.raises(er.RemoteError, match="never"):
        rc.load_balanced_view().apply_sync(never, str(ledger))
    assert ledger.read_text() == "xxxx"


# ---------------------------------------------------------------------------------------------- connecting


def test_without_a_cluster_the_client_says_so(tmp_path):
    with pytest.raises(er.ConnectionFileError, match=r"no cluster is running here.*ipcluster start"):
        er.Client(profile_dir=tmp_path, timeout=0.2)
    with pytest.raises(OSError):
        er.Client(tmp_path / "nothing.json", timeout=0.2)


@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", '{"url": 5, "key": "k"}', "\0" * 100, '{"url": "ipc://x"'])
def test_a_file_that_is_no_connection_file_is_refused(tmp_path, text):
    path = tmp_path / "ipcontroller-client.json"
    path.write_text(text)
    with pytest.raises(er.ConnectionFileError, match="not a connection file"):
        er.Client(path, timeout=1)


def test_connection_files_that_are_no_files(tmp_path):
    with pytest.raises(er.ConnectionFileError):
        er.Client(tmp_path, timeout=1)
    with pytest.raises(ValueError, match="url"):
        er.Client("tcp://127.0.0.1:5555")
    with pytest.raises(er.ConnectionFileError):
        er.Client({"not": "a connection"})


@pytest.mark.parametrize("url", ["", "nonsense", "ipc://", "tcp://127.0.0.1", "tcp://nowhere.invalid:1", "udp://x:1"])
def test_a_nonsensical_url_in_a_connection_file_is_an_error_not_a_hang(url):
    with pytest.raises((er.EngineroomError, TimeoutError)):
        er.Client({"url": url, "key": "k"}, timeout=0.5)


@pytest.mark.fault(28)
def test_a_wrong_key_is_refused(cluster):
    import msgspec

    good = msgspec.to_builtins(cluster.connection)
    for key in ("", "0" * 64, good["key"][:-1], "é"):
        with pytest.raises(er.AuthenticationError, match="key is wrong"):
            er.Client({**good, "key": key}, timeout=30)
    with pytest.raises(PermissionError):
        er.Client({**good, "key": "wrong"}, timeout=30)


@pytest.mark.fault(29)
def test_another_protocol_version_is_refused_and_both_named(cluster, monkeypatch):
    from engineroom import _version

    ours = _version.PROTOCOL_VERSION
    monkeypatch.setattr(_version, "PROTOCOL_VERSION", 999)
    with pytest.raises(er.ProtocolError, match=f"999.*{ours}"):
        cluster.connect_client_sync()


@pytest.mark.fault(29)
def test_code_of_another_python_is_refused_by_the_engine_and_both_are_named(rc, monkeypatch):
    from engineroom.wire import functions

    ours = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr(functions, "_PYTHON", "<Python 3.99>")  # so does this program call itself from now on
    for task in (lambda: 1, lambda inner=lambda: 2: inner()):
        with pytest.raises(er.RemoteError, match=f"was made by Python 3.99, and {ours} cannot run it") as error:
            rc[0].apply_sync(task)
        assert error.value.ename == "SerializationError"
    with pytest.raises(er.RemoteError, match=r"made by Python 3\.99"):
        rc[0].apply_sync(map, lambda n: n, [1])  # code among the arguments
    assert rc[0].apply_sync(math.hypot, 3, 4) == 5, "functions of modules run on any Python"
    with pytest.raises(er.RemoteError, match=f"unpickled here.*made by {ours}, and Python 3.99 cannot run it"):
        rc[0].apply_sync(eval, "lambda: 1")


def test_a_client_after_a_fork_says_so(rc):
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()

    def child():
        try:
            rc[0].apply_async(abs, -1)
        except Exception as error:
            found.put((type(error).__name__, str(error)))
        else:
            found.put(("nothing", ""))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    process.join(20)
    name, text = found.get()
    assert name == "ControllerLost"
    assert "after a fork" in text
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_client_made_after_a_fork_works(rc, cluster):
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()

    def child():
        with er.Client(cluster.connection) as own:
            found.put(own.load_balanced_view().apply_sync(abs, -5))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert found.get() == 5


def test_a_closed_client_says_so(cluster, gate):
    rc = cluster.connect_client_sync()
    view, balanced = rc[0], rc.load_balanced_view()
    pending = view.apply_async(hold, str(gate))
    rc.close()
    rc.close()
    with pytest.raises(er.ControllerLost, match="closed"):
        pending.get(60)
    for call in (lambda: view.apply_async(abs, 1), lambda: balanced.apply_async(abs, 1), lambda: rc.db_query({})):
        with pytest.raises(er.ControllerLost, match="closed"):
            call()


def test_a_client_over_tcp_can_be_closed(tmp_path):
    script = """
import sys, engineroom as er
with er.Cluster(n=0, profile_dir=sys.argv[1], controller_ip="127.0.0.1") as rc:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "profile_default")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.fault(28)
def test_over_tcp_everything_is_encrypted_and_works(fresh_cluster):
    import msgspec

    rc = fresh_cluster(n=1, controller_ip="127.0.0.1")
    info = rc.cluster.connection
    assert info.url.startswith("tcp://")
    assert "127.0.0.1" in info.url
    assert info.certificate
    assert rc[0].apply_sync(bytes, 3_000_000) == bytes(3_000_000)
    assert rc.load_balanced_view().map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))
    from engineroom.transport import new_identity

    with pytest.raises(er.AuthenticationError):
        er.Client(msgspec.structs.replace(info, certificate=new_identity()[0]), timeout=8)
    with pytest.raises(er.AuthenticationError, match="refused our encryption keys"):
        er.Client(msgspec.structs.replace(info, key="wrong"), timeout=8)
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.fault(26)
@pytest.mark.parametrize("ip", ["", "127.0.0.1"], ids=["ipc", "tcp"])
def test_random_bytes_from_strangers_harm_nobody(fresh_cluster, ip):
    import random

    from engineroom.transport import connect
    from engineroom.transport.stream import greeting

    rc = fresh_cluster(n=1, controller_ip=ip)
    randomly = random.Random(1)
    info = rc.cluster.connection

    def raw():
        if ip:
            return plain.create_connection((ip, int(info.url.rpartition(":")[2])))
        stranger = plain.socket(plain.AF_UNIX)
        stranger.connect(info.url.removeprefix("ipc://"))
        return stranger

    link = connect(info)
    try:
        view = rc.load_balanced_view()
        for round in range(200):
            link.send([randomly.randbytes(randomly.choice([0, 1, 20, 500])) for _ in range(randomly.randint(1, 4))])
            if round % 20 == 0:
                link.send([b"\xdd\xff\xff\xff\xff" + randomly.randbytes(10)])
                link.send([bytes(2_000_000)])
                assert view.apply_sync(abs, -round) == round
        for begin in (b"", greeting(bytes(16))):
            for _ in range(20):
                with raw() as stranger, contextlib.suppress(OSError):
                    stranger.sendall(begin + randomly.randbytes(3000))
        assert view.map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
    finally:
        link.close()


@pytest.mark.fault(26)
def test_a_known_peer_that_sends_nonsense_harms_only_itself(rc, cluster):
    from engineroom import _version, messages
    from engineroom.transport import connect
    from engineroom.wire import frames, session

    info = cluster.connection
    for role in ("client", "nanny"):
        link = connect(info)
        try:
            hello = messages.Hello(_version.PROTOCOL_VERSION, role, "", f"evil-{role}", os.getpid(), "elsewhere")
            link.send([frames.encode(session.prove(hello, info.key.encode()))])
            for message in (
                messages.Results([messages.TaskDone("x", 1, "ok", 0.0, 0.0, frames=(5,))], 1),
                messages.Submit(1, [messages.TaskSpec("evil-0", b"no such", b"", 0.0, frames=(9,))]),
                messages.Watch(["nothing"]),
                messages.Request(1, messages.FindRecords({"$evil": 1})),
                messages.Ping(-5),
            ):
                link.send([frames.encode(message)])
            link.send([b"\xc1"])
        finally:
            link.close(linger=1)
        assert rc[:].apply_sync(abs, -1) == [1, 1]
        assert rc.load_balanced_view().apply_sync(abs, -1) == 1
    assert rc.ids == [0, 1]
