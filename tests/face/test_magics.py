"""`%px` and its kin, in a real IPython shell of this process."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

import engineroom as er


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell that keeps no history, and is the `get_ipython()` of this process."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    yield shell
    shell.magics_manager.magics["line"].pop("px", None)
    InteractiveShell.clear_instance()


@pytest.fixture
def rc(cluster: er.Cluster, shell: Any) -> Iterator[er.Client]:
    """The first client in this shell: its magics are bound to all engines."""
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client
        if not client.closed:
            client[:].clear(block=True)


def cell(shell: Any, text: str) -> Any:
    """Run a cell; returns its value. Raises what it raised."""
    done = shell.run_cell(text)
    done.raise_error()
    return done.result


def has(rc: er.Client, engine: int, name: str) -> bool:
    """Whether the namespace of an engine has a name."""
    return rc[engine].execute(f"{name!r} in globals()", silent=False).get().data["text/plain"] == "True"


def test_px_runs_a_line_on_all_engines(rc: er.Client, shell: Any):
    cell(shell, "%px a = 5")
    assert rc[:]["a"] == [5, 5]


def test_px_shows_what_is_printed_and_the_values(rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str]):
    cell(shell, "%px print('here')")
    shown = capsys.readouterr().out
    assert "[stdout:0] here" in shown
    assert "[stdout:1] here" in shown
    cell(shell, "%px 6 * 7")
    shown = capsys.readouterr().out
    assert "Out[0:" in shown
    assert shown.count("42") == 2


def test_a_cell_runs_on_the_targets_that_it_names(rc: er.Client, shell: Any):
    cell(shell, "%%px --targets 1\nb = 1\n")
    assert has(rc, 1, "b")
    assert not has(rc, 0, "b")
    cell(shell, "%%px --targets ::2\nc = 1\n")
    assert not has(rc, 1, "c")
    cell(shell, "%%px -t 0,1\nd = 1\n")
    assert rc[:]["d"] == [1, 1]
    with pytest.raises(Exception, match="--targets is all"):
        shell.run_line_magic("pxconfig", "--targets some")


def test_without_block_the_result_is_returned_and_pxresult_shows_it(
    rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str]
):
    result = cell(shell, "%%px --noblock -o kept\nprint('later')\n")
    assert isinstance(result, er.AsyncResult)
    assert shell.user_ns["kept"] is result
    capsys.readouterr()
    cell(shell, "%pxresult --group-outputs engine")
    assert "[stdout:0] later" in capsys.readouterr().out
    cell(shell, "%pxresult -o again")
    assert shell.user_ns["again"] is result
    with pytest.raises(Exception, match="-o binds a name"):
        shell.run_cell_magic("px", "-o 1x", "1")


def test_pxconfig_changes_what_px_does(rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str]):
    cell(shell, "%pxconfig --noblock --targets 0 --verbose")
    result = cell(shell, "%px 1 + 1")
    assert "Async parallel execution on engine(s): 0" in capsys.readouterr().out
    assert result.get().data["text/plain"] == "2"
    cell(shell, "%pxconfig --block --targets all --no-verbose")
    assert cell(shell, "%px e = 1") is None
    assert rc[:]["e"] == [1, 1]


def test_local_runs_the_cell_here_too(rc: er.Client, shell: Any):
    cell(shell, "%%px --local\nf = 3\n")
    assert shell.user_ns["f"] == 3
    assert rc[:]["f"] == [3, 3]


def test_autopx_sends_every_cell_until_it_is_used_again(
    rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str]
):
    cell(shell, "%autopx")
    cell(shell, "g = 4")
    cell(shell, "h = g + 1\nh")
    cell(shell, "%autopx")
    said = capsys.readouterr().out
    assert "%autopx enabled" in said
    assert "%autopx disabled" in said
    assert "Out[0:" in said
    assert rc[:]["h"] == [5, 5]
    assert "g" not in shell.user_ns
    cell(shell, "g = 1")
    assert shell.user_ns["g"] == 1


def test_an_error_on_the_engines_is_the_error_of_the_cell(rc: er.Client, shell: Any):
    with pytest.raises(er.CompositeError) as caught:
        cell(shell, "%px 1 / 0")
    assert len(caught.value.elist) == 2
    assert caught.value.elist[0][0] == "ZeroDivisionError"


def test_a_suffix_makes_magics_of_their_own(rc: er.Client, shell: Any):
    rc.activate(targets=1, suffix="_one")
    cell(shell, "%px_one i = 1")
    assert not has(rc, 0, "i")
    cell(shell, "%%px_one\nj = 1\n")
    cell(shell, "%autopx_one")
    cell(shell, "k = 1")
    cell(shell, "%autopx_one")
    assert rc[1].pull(["i", "j", "k"], block=True) == [1, 1, 1]


def test_output_is_shown_while_the_tasks_run(
    rc: er.Client, shell: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seen: list[str] = []

    def look() -> None:
        def so_far() -> bool:
            seen.append(capsys.readouterr().out)
            return any("[stdout:0] first" in text for text in seen)

        wait_until(so_far, 30)
        (tmp_path / "go").touch()

    watcher = threading.Thread(target=look)
    watcher.start()
    cell(
        shell,
        "%%px --stream\n"
        "import os, time\n"
        "print('first', flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "print('last')\n",
    )
    watcher.join()
    shown = "".join(seen) + capsys.readouterr().out
    assert shown.count("first") == 2
    assert shown.count("last") == 2


@pytest.mark.usefixtures("interrupts_arrive")
def test_ctrl_c_interrupts_the_engines(rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str]):
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        bound = shell.magics_manager.magics["line"]["px"].__self__
        wait_until(lambda: bound.last_result is not None and all(bound.last_result.started), 30)
        signal.pthread_kill(main, signal.SIGINT)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(er.CompositeError) as caught:
        cell(shell, "%%px\nimport time\nfor _ in range(6000): time.sleep(0.01)\n")
    watcher.join()
    assert {entry[0] for entry in caught.value.elist} == {"KeyboardInterrupt"}
    assert "Sending signal SIGINT" in capsys.readouterr().err


@pytest.mark.usefixtures("interrupts_arrive")
def test_ctrl_c_while_the_code_is_on_its_way_interrupts_the_engines(
    rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An engine may run the code before the client knows that all of it is sent."""
    view = shell.magics_manager.magics["line"]["px"].__self__.view
    execute = view.execute

    def execute_slowly(*given: Any, **options: Any) -> Any:
        result = execute(*given, **options)
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(view, "execute", execute_slowly)
    with pytest.raises(er.CompositeError, match="KeyboardInterrupt"):
        cell(
            shell,
            "%%px\nimport os, time\n"
            f"open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'w').close()\n"
            "for _ in range(6000): time.sleep(0.01)\n",
        )
    assert "Sending signal SIGINT" in capsys.readouterr().err


def interrupting(shell: Any, *printed: str) -> threading.Thread:
    """A thread that sends Ctrl-C to the main thread once all tasks of a %px have printed this, then the next."""
    main = threading.main_thread().ident
    assert main is not None
    bound = shell.magics_manager.magics["line"]["px"].__self__
    before = bound.last_result

    def has_printed(text: str) -> bool:
        result = bound.last_result
        return result is not before and all(text in out for out in result.stdout)

    def watch() -> None:
        for text in printed:
            wait_until(lambda text=text: has_printed(text), 30)
            signal.pthread_kill(main, signal.SIGINT)

    watcher = threading.Thread(target=watch)
    watcher.start()
    return watcher


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("how", ["--stream", "--no-stream", "--no-stream -e", "--no-stream -r"])
def test_what_a_task_does_after_ctrl_c_is_shown(
    rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str], how: str
):
    watcher = interrupting(shell, "before")
    cell(
        shell,
        f"%%px {how}\nimport time\ntry:\n    print('before')\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught')\n77\n",
    )
    watcher.join()
    shown = capsys.readouterr()
    assert "Sending signal SIGINT" in shown.err
    assert (shown.out.count("before"), shown.out.count("caught")) == (2, 2)
    assert [line.rpartition(" ")[2] for line in shown.out.splitlines() if line.startswith("Out[")] == ["77", "77"]


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_a_second_ctrl_c_ends_the_wait(
    rc: er.Client, shell: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, how: str
):
    watcher = interrupting(shell, "before", "caught")
    with pytest.raises(KeyboardInterrupt):
        cell(
            shell,
            f"%%px {how}\nimport os, time\ntry:\n    print('before')\n    time.sleep(60)\n"
            "except KeyboardInterrupt:\n    print('caught')\n"
            f"    while not os.path.exists({str(tmp_path / 'gate')!r}): time.sleep(0.01)\n",
        )
    watcher.join()
    assert capsys.readouterr().err.count("Sending signal SIGINT") == 1
    result = shell.magics_manager.magics["line"]["px"].__self__.last_result
    assert not result.done()
    (tmp_path / "gate").touch()
    result.get()


@pytest.mark.parametrize("magic", ["%%px --targets {}\na = 1", "%pxconfig --targets {}"])
def test_targets_that_are_not_there_are_refused_in_a_line(rc: er.Client, shell: Any, magic: str):
    from IPython.core.error import UsageError

    for targets, said in (("7", "there is no engine 7"), ("0,9", "there is no engine 9"), ("1.5", "targets are"),
                          ("5:9", "5:9 names no engine; there are 0, 1")):  # fmt: skip
        with pytest.raises(UsageError, match=f"--targets: {said}"):
            cell(shell, magic.format(targets))
    assert not has(rc, 0, "a")
    assert rc[:].targets == [0, 1]


@pytest.mark.parametrize("magic", ["%%px --signal-on-interrupt {}\na = 1", "%pxconfig --signal-on-interrupt {}"])
def test_a_signal_that_is_none_is_refused_before_anything_runs(rc: er.Client, shell: Any, magic: str):
    from IPython.core.error import UsageError

    for name in ("SIGFOO", "99", "-1"):
        with pytest.raises(UsageError, match="--signal-on-interrupt: there is no signal"):
            cell(shell, magic.format(name))
    assert not has(rc, 0, "a")
    for name in ("SIGINT", "INT", "2", "0"):
        cell(shell, magic.format(name))



def test_the_next_client_takes_the_magics_over_once_the_first_is_closed(
    cluster: er.Cluster, rc: er.Client, shell: Any
):
    bound = shell.magics_manager.magics["line"]["px"].__self__
    with cluster.connect_client_sync() as second:
        assert shell.magics_manager.magics["line"]["px"].__self__ is bound
        rc.close()
        with cluster.connect_client_sync() as third:
            assert shell.magics_manager.magics["line"]["px"].__self__.view.client is third
        assert not second.closed


def test_a_client_in_a_task_leaves_the_shell_of_its_engine_alone(rc: er.Client, cluster: er.Cluster):
    cell_with_shell = rc[0].execute("get_ipython().magics_manager.magics['line'].get('px') is None", silent=False)
    assert cell_with_shell.get().data["text/plain"] == "True"
    rc[0].push({"connection": cluster._connection_file()}, block=True)
    rc[0].execute("import engineroom; engineroom.Client(connection).ids", block=True)
    again = rc[0].execute("get_ipython().magics_manager.magics['line'].get('px') is None", silent=False)
    assert again.get().data["text/plain"] == "True"


def test_outside_ipython_activate_warns(cluster: er.Cluster):
    with cluster.connect_client_sync() as rc:
        with pytest.warns(UserWarning, match="no IPython"):
            rc[:].activate()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert rc.activate().block


@pytest.mark.parametrize("line", ["--targets 0 1 + 1", "--noblock 1", "--group-outputs=engine 1"])
def test_options_of_a_line_are_named(rc: er.Client, shell: Any, line: str):
    from IPython.core.error import UsageError

    option = line.partition(" ")[0].partition("=")[0]
    said = f"%px takes code alone: {option} is an option of a cell .%%px {option} ….. %pxconfig sets options"
    with pytest.raises(UsageError, match=said):
        shell.run_line_magic("px", line)
    shell.run_line_magic("px", "--1")  # is code
