"""docs/migration.md, line by line: each line of its tables is checked here, or names the test that checks it."""

from __future__ import annotations

import concurrent.futures
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_until

import engineroom as er

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "migration.md").read_text()
HELPER = 20


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    folder = tmp_path_factory.mktemp("walk") / "profile_walk"
    with er.Cluster(n=2, profile_dir=folder) as client:
        yield client


def lines(section: str) -> list[str]:
    """The first two cells of each line of the table of a section."""
    part = PAGE.split(section, 1)[1].split("\n\n| ", 1)[1].split("\n\n", 1)[0]
    cells = [line.strip("| ").split(" | ") for line in part.splitlines()[2:]]
    return [" | ".join(each[:2]).strip() for each in cells]


# ---------------------------------------------------------------------------------------------- what differs


def the_database_is_a_file(rc: er.Client) -> None:
    assert rc.connection.database.startswith("sqlite:")
    assert list(Path(rc.cluster.profile_dir).glob("tasks*.db"))


def a_lost_engine(rc: er.Client) -> None:
    ids = rc.ids
    once = rc[ids[0]].apply_async(os._exit, 3)
    with pytest.raises(er.EngineError):
        once.get(60)
    again = rc.load_balanced_view(retries=3)
    gone = Path(rc.cluster.profile_dir, f"gone{time.monotonic_ns()}")
    assert again.apply_async(dies_once, str(gone)).get(60) == "alive"
    rc.wait_for_engines(2, timeout=60)
    assert rc.ids == ids


def dies_once(path: str) -> str:
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(4)
    return "alive"


def one_task_for_each_item(rc: er.Client) -> None:
    view = rc.load_balanced_view()
    assert len(view.map_async(abs, range(1000)).msg_ids) == 1000
    assert len(view.map_async(abs, range(3000)).msg_ids) < 1000
    assert len(view.map_async(abs, range(2000), chunksize=1).msg_ids) == 2000


def global_names(rc: er.Client) -> None:
    rc[:].clear(block=True)

    def uses_helper() -> int:
        return HELPER + 1

    assert rc[0].apply_sync(uses_helper) == 21


def engines_have_no_ipython(rc: er.Client) -> None:
    code = "import sys; len([n for n in sys.modules if n.startswith('ipykernel')])"
    assert rc[0].execute(code, silent=False).get(60).data["text/plain"] == "0"


def cancel_and_abort(rc: er.Client) -> None:
    view = rc[0]
    running, waiting = view.apply_async(time.sleep, 60), view.apply_async(abs, -1)
    wait_until(lambda: running.started is not None)
    rc.abort([running, waiting])
    with pytest.raises(er.TaskAborted):
        waiting.get(60)
    assert not running.done()
    running.cancel()
    with pytest.raises((er.TaskAborted, concurrent.futures.CancelledError)):
        running.get(60)


def attributes_of_views(rc: er.Client) -> None:
    with pytest.raises(AttributeError):
        rc[:].prority = 5
    rc[:]._mine = 5


def results_as_arguments(rc: er.Client) -> None:
    view = rc.load_balanced_view()
    assert view.apply_sync(abs, view.apply_async(int, "-2")) == 2


def one_socket(rc: er.Client) -> None:
    assert isinstance(rc.connection.url, str)


def purges(rc: er.Client) -> None:
    first, second = rc[0].apply_async(abs, -1), rc[0].apply_async(abs, -2)
    rc.wait()
    rc.purge_local_results(first)
    assert first.msg_ids[0] not in rc.history
    del rc.results[second.msg_ids[0]]
    assert second.msg_ids[0] not in rc.history


def purges_of_the_hub(rc: er.Client) -> None:
    done = rc[0].apply_async(abs, -1)
    done.get()
    [id] = done.msg_ids
    rc.purge_hub_results(done)
    assert id not in rc.results
    assert id not in rc.metadata
    with pytest.raises(er.UnknownTask):
        rc.results[id]
    assert done.get() == 1


def results_of_the_client(rc: er.Client) -> None:
    done = rc[0].apply_async(abs, -1)
    assert done.get() == rc.results[done.msg_ids[0]] == rc.results[done.msg_ids[0]] == 1
    with pytest.raises(TypeError):
        rc.results["x"] = 1


def running_tasks_and_resubmit(rc: er.Client) -> None:
    slow = rc.load_balanced_view().apply_async(time.sleep, 60)
    with pytest.raises(er.PendingTask):
        rc.resubmit(slow)
    rc.cancel(slow, block=True)


def unknown_ids(rc: er.Client) -> None:
    with pytest.raises(KeyError) as raised:
        rc.resubmit("no such task")
    assert isinstance(raised.value, er.UnknownTask)


def timeouts_of_views(rc: er.Client) -> None:
    view = rc.load_balanced_view(timeout=0.05, after=rc.load_balanced_view().apply_async(abs, -1))
    assert view.apply_async(time.sleep, 0.3).get(60) is None
    with view.temp_flags(run_timeout=0.2), pytest.raises(er.RemoteError) as raised:
        view.apply_async(time.sleep, 60).get(60)
    assert raised.value.ename == "TaskTimeout"


def waits_for_send(rc: er.Client) -> None:
    assert rc[0].apply_async(abs, 1).wait_for_send() is True


def spins(rc: er.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert rc.spin() is None
        assert rc.spin_thread() is None
        assert rc.stop_spin_thread() is None


def buffers(rc: er.Client) -> None:
    array = np.zeros(200_000)
    sent = rc[0].apply_async(lambda a: float(a.sum()), array)
    array[:] = 1
    assert sent.get(60) == 0
    view = rc[0]
    view.track = True
    tracked = view.apply_async(lambda a: float(a.sum()), array)
    tracked.wait_for_send(30)
    assert tracked.sent
    assert tracked.get(60) == 200_000


def failing_items(rc: er.Client) -> None:
    found = rc.load_balanced_view().map_async(odd, [1, 2, 3], chunksize=3).get(return_exceptions=True)
    assert [found[0], type(found[1]).__name__, found[2]] == [1, "RemoteValueError", 3]


def odd(x: int) -> int:
    if x == 2:
        raise ValueError(x)
    return x


def errors_of_several(rc: er.Client) -> None:
    with pytest.raises(er.CompositeError) as raised:
        rc.load_balanced_view().map_sync(odd, [1, 2, 3], chunksize=1)
    assert isinstance(raised.value, ValueError)
    with pytest.raises(er.CompositeError) as both:
        rc[:].apply_sync(odd, 2)
    assert not isinstance(both.value, ValueError)


def unknown_dependencies(rc: er.Client) -> None:
    def refuses() -> bool:
        return False

    later = rc.load_balanced_view(after="no such task").apply_async(abs, 1)
    assert later.exception(30).ename == "InvalidDependency"
    nobody = rc.load_balanced_view().apply_async(er.depend(refuses)(abs), 1)
    assert nobody.exception(30).ename == "ImpossibleDependency"


def greater_than(rc: er.Client) -> None:
    db = er.controller.dictdb.DictDB()
    for number in (1, 2):
        db.add_record(f"{number:032x}_1_2", {"label": str(number)})
    assert [found["label"] for found in db.find_records({"label": {"$gt": "1"}}, ["label"])] == ["2"]
    db.close()


def direct_tasks_again(rc: er.Client) -> None:
    done = rc[0].apply_async(os.getpid)
    first = done.get(60)
    blocking = rc[0].apply_async(time.sleep, 60)  # it would wait behind this one
    wait_until(lambda: blocking.started is not None)
    assert rc.resubmit(done).get(60) != first
    blocking.cancel()


Check = Callable[[er.Client], None] | str


#: how a line begins → what checks it: a function of this file, or a test elsewhere
def resubmitted_alone(rc: er.Client) -> None:
    done = rc.load_balanced_view().apply_async(abs, -1)
    done.get(60)
    assert rc.resubmit(done.msg_ids[0]).get(60) == rc.get_result(done.msg_ids[0]).get(60) == 1
    assert rc.resubmit(done.msg_ids).get(60) == rc.get_result(done.msg_ids).get(60) == [1]


def limits_of_dictdb(rc: er.Client) -> None:
    from engineroom.cli.databases import DictDB

    assert (DictDB().record_limit, DictDB().size_limit) == (100_000, 1 << 30)


def no_keys(rc: er.Client) -> None:
    rc[0].apply_sync(abs, 1)
    assert list(rc.db_query({}, keys=[], limit=1)[0]) == ["msg_id"]
    assert "buffers" not in rc.db_query({}, limit=1)[0]


def open_files(rc: er.Client) -> None:
    with open(__file__) as file:
        assert rc[0].apply_sync(lambda file: (type(file).__name__, file.readline()), file)[0] == "StringIO"
    with open(__file__, "rb") as file, pytest.raises(er.SerializationError, match="argument 0"):
        rc[0].apply_async(len, file)


def wrong_flags(rc: er.Client) -> None:
    for flag in ({"retries": "x"}, {"nosuch": 1}, {"block": 3}):
        with pytest.raises(er.ConfigError, match=next(iter(flag))):
            rc.load_balanced_view(**flag)
    assert issubclass(er.ConfigError, ValueError)


def no_targets(rc: er.Client) -> None:
    with pytest.raises(er.ConfigError, match="targets name no engine"):
        rc.load_balanced_view(targets=[])


DIFFERS: dict[str, Check] = {
    "`rc.resubmit(id).get()` of one": resubmitted_alone,
    "`DictDB` keeps": limits_of_dictdb,
    "`db_query(query, keys=[])`": no_keys,
    "A memoryview arrives": "face/test_meanings.py::test_a_memoryview_arrives_as_one_everywhere",
    "Open files are refused": open_files,
    "`import numpy as np` in `sync_imports`": (
        "integration/test_views.py::test_sync_imports_binds_the_names_that_the_program_has"
    ),
    "A wrong type for a flag": wrong_flags,
    "`targets=[]` of a load-balanced view": no_targets,
    "`stop`, `join` and `start` of launchers": (
        "face/test_cluster.py::test_a_launcher_takes_signals_by_name_and_gives_its_log_away"
    ),
    "Tasks are kept in memory": the_database_is_a_file,
    "A lost engine's task": a_lost_engine,
    "A controller that dies": "integration/test_recovery.py::test_a_killed_controller_is_restarted_and_nothing_is_lost",
    "`map` on a load-balanced view": one_task_for_each_item,
    "Global names of a function": global_names,
    "An engine is an IPython kernel": engines_have_no_ipython,
    "`cancel` ends tasks": cancel_and_abort,
    "Views take attributes": attributes_of_views,
    "Futures among the arguments": results_as_arguments,
    "Several sockets": one_socket,
    "HMAC signatures": "integration/test_ssh.py::test_engines_run_on_two_hosts_and_end_with_the_cluster",
    "`purge_local_results` leaves": purges,
    "`purge_hub_results` leaves": purges_of_the_hub,
    "`client.results` has": results_of_the_client,
    "A task that is running": running_tasks_and_resubmit,
    "An unknown id in `resubmit`": unknown_ids,
    "`timeout` of a load-balanced view": timeouts_of_views,
    "A cell of a nonblocking `%autopx`": "face/test_magics.py::test_autopx_sends_every_cell_until_it_is_used_again",
    "`wait_for_send` returns None": waits_for_send,
    "A notebook's results are lost": "notebook/test_sessions.py::test_a_restarted_kernel_and_a_restarted_controller",
    "IPython shows a CompositeError": (
        "notebook/test_magics_in_a_notebook.py::test_the_error_of_a_cell_has_the_remote_tracebacks_closed"
    ),
    "`rc.spin()` matters": spins,
    "`rc.shutdown(restart=True)`": "face/test_client.py::test_engines_are_restarted",
    "`stop_engine`, `restart_engine`": (
        "face/test_client.py::test_one_engine_is_stopped_signalled_restarted_by_the_cluster"
    ),
    "Without `copy=False`": buffers,
    "A failing item": failing_items,
    "A result of several tasks": errors_of_several,
    "A task that depends on an unknown": unknown_dependencies,
    "`$gt` in the memory database": greater_than,
    "A direct task that is resubmitted": direct_tasks_again,
}


@pytest.mark.parametrize("line", lines("## What differs, and why"))
def test_what_differs_is_true(line: str, rc: er.Client):
    run_check(DIFFERS, line, rc)


def run_check(table: dict[str, Check], line: str, rc: er.Client) -> None:
    """Run what checks a line, or see that the test which does is there."""
    check = next((found for begin, found in table.items() if line.startswith(begin)), None)
    assert check is not None, f"nothing checks this line: {line}"
    if isinstance(check, str):
        file, _, name = check.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{check} is not there"
    else:
        check(rc)
        assert rc.wait(timeout=60)


# ---------------------------------------------------------------------------------------------- what does nothing


def broadcast_views(rc: er.Client) -> None:
    view = rc.broadcast_view(is_coalescing=True)
    assert view.is_coalescing
    called = view.apply_async(os.getpid)
    called.get(60)
    assert called.engine_id == rc.ids


def arguments_of_clusters(rc: er.Client) -> None:
    cluster = er.Cluster(delay=3, send_engines_connection_env=False, log=None, parent=None, load_profile=False)
    assert (cluster.delay, cluster.send_engines_connection_env) == (3, False)


def other_picklers(rc: er.Client) -> None:
    for view in (rc[:], rc):
        for name in ("use_dill", "use_cloudpickle", "use_pickle"):
            if hasattr(view, name):
                getattr(view, name)()
    assert rc[0].apply_sync(lambda: 3) == 3


def thresholds(rc: er.Client) -> None:
    small, large = er.serialize_object(b"x" * 2000, buffer_threshold=1000), er.serialize_object(np.zeros(3000))
    assert (len(small), len(large)) == (1, 2)


NOTHING: dict[str, Check] = {
    "`Client(context=…": "face/test_client.py::test_arguments_without_effect_say_what_replaces_them",
    "`Cluster(delay=…": arguments_of_clusters,
    "`use_dill`": other_picklers,
    "`BroadcastView.is_coalescing`": broadcast_views,
    "`spin`": spins,
    "`ipcontroller --ports=": "face/test_cluster.py::test_options_without_effect_are_accepted_and_named",
    "thresholds of `serialize_object`": thresholds,
}


@pytest.mark.parametrize("line", lines("These are accepted, and do nothing:"))
def test_what_does_nothing_is_accepted(line: str, rc: er.Client):
    run_check(NOTHING, line, rc)


# ---------------------------------------------------------------------------------------------- the same names

#: beginnings of lines whose names are no attributes: where they are tested
ELSEWHERE = ("`%px`", "`ipcluster`", "`after`")


@pytest.mark.parametrize("line", lines("## Names"))
def test_the_same_names_are_there(line: str, rc: er.Client):
    """Each name in backticks is an attribute of one of these, or a module."""
    import importlib
    import re

    from engineroom.cluster import launcher
    from engineroom.controller import dictdb, mongodb, sqlitedb

    if line.startswith(ELSEWHERE):
        return
    places = [er, er.Cluster, rc, rc[:], rc.load_balanced_view(), er.AsyncResult, er.serialize, er.tasks,
              launcher, dictdb, sqlitedb, mongodb, dictdb.DictDB]  # fmt: skip
    for quoted in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
        name = re.sub(r"\(.*|\[.*| = .*|^@|^with |^await |^.*\.(?=\w+$)", "", quoted).strip()
        if quoted.startswith((".", "engineroom.")) and not quoted.endswith("Launcher"):
            importlib.import_module(f"engineroom.{quoted.removeprefix('engineroom').lstrip('.')}")
        elif name.isidentifier() and name not in ("rc", "ar"):
            assert any(hasattr(place, name) for place in places) or name == "view", f"{quoted} is not there"
