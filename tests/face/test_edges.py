"""What each method says to a wrong type, an empty sequence, no engines, a dead engine, a closed client, Ctrl-C."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until

import engineroom as ipp


@pytest.fixture(scope="module")
def rc(memory_cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    with memory_cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client


def not_yet(rc: ipp.Client) -> str:
    """A msg_id that the client may make later."""
    return f"{rc.session.session}-999999"


def results_of(rc: ipp.Client) -> Any:
    """The results of the client's session, which has a task."""
    rc[0].apply_sync(abs, -1)
    return rc.session("mine")


WRONG: dict[str, tuple[Callable[[ipp.Client], Any], type[Exception], str]] = {
    "apply": (lambda rc: rc[:].apply_async(3), TypeError, "a function is needed, got 3"),
    "apply, balanced": (lambda rc: rc.load_balanced_view().apply_async(3), TypeError, "a function is needed"),
    "execute": (lambda rc: rc[:].execute(3), TypeError, "code is a str, got int"),
    "run": (lambda rc: rc[:].run("/no/file.py"), FileNotFoundError, "/no/file.py"),
    "push": (lambda rc: rc[:].push(3), TypeError, "push needs a dict"),
    "push, name": (lambda rc: rc[:].push({1: 2}), TypeError, "a name is a str, got 1"),
    "pull": (lambda rc: rc[:].pull(3), TypeError, "a name is a str, got 3"),
    "push, no name": (lambda rc: rc[:].push({"a b": 1}), ValueError, "nothing can be bound to 'a b'"),
    "push, empty name": (lambda rc: rc[:].push({"": 1}), ValueError, "nothing can be bound to ''"),
    "push, a value": (lambda rc: rc[:].push({"f()": 1}), ValueError, r"nothing can be bound to 'f\(\)'"),
    "push, code": (lambda rc: rc[:].push({"a = 1; b": 1}), ValueError, "nothing can be bound to"),
    "push, item": (lambda rc: rc[:].__setitem__("a b", 1), ValueError, "nothing can be bound to 'a b'"),
    "scatter, no name": (lambda rc: rc[:].scatter("a b", [1]), ValueError, "nothing can be bound to 'a b'"),
    "pull, no name": (lambda rc: rc[:].pull(["a", "a b"]), ValueError, "'a b' is no name"),
    "gather, no name": (lambda rc: rc[:].gather("a b"), ValueError, "'a b' is no name"),
    "pull, code": (lambda rc: rc[:].pull("a = 1"), ValueError, "'a = 1' is no name"),
    "has_properties": (lambda rc: rc[:].has_properties(None), TypeError, "a property is named by a str, .* got None"),
    "get_properties": (lambda rc: rc[:].get_properties([3]), TypeError, "a property is named by a str, .* got 3"),
    "reload_modules": (lambda rc: rc.reload_modules(names=3.5), TypeError, "a module is named by a str, .* got 3.5"),
    "reload_modules, name": (lambda rc: rc[:].reload_modules([3]), TypeError, "a module is named by a str, .* got 3"),
    "run, path": (lambda rc: rc[:].run(3), TypeError, "filename is the path of a file with code; got 3"),
    "export": (lambda rc: rc.export(3), TypeError, "path is the path of the file to write; got 3"),
    "plot_history": (lambda rc: rc.plot_history(3), ipp.QueryError, "a query is a dict, got int"),
    "replay": (lambda rc: rc.replay("x", namespace=3), TypeError, "namespace is a dict of names and values; got 3"),
    "run_graph, tasks": (lambda rc: rc.load_balanced_view().run_graph({}, 3), TypeError, "tasks is a dict of nodes"),
    "remote, block": (lambda rc: rc[:].remote(block="x")(abs), ipp.ConfigError, "block is True or False; got 'x'"),
    "parallel, dist": (lambda rc: rc[:].parallel(dist="x")(abs), ValueError, "dist is 'b'"),
    "executor, initargs": (lambda rc: rc.executor(initializer=print, initargs=3), TypeError, "initargs is a tuple"),
    "db_iter": (lambda rc: rc.db_iter(3), ipp.QueryError, "a query is a dict"),
    "db_iter, keys": (lambda rc: rc.db_iter({}, 3.5), ipp.QueryError, "keys are a key or a list of keys, got 3.5"),
    "db_iter, batch": (lambda rc: rc.db_iter({}, batch=0), ipp.QueryError, "batch is a whole number, 1 or more"),
    "wait_for_engines, negative": (lambda rc: rc.wait_for_engines(-7), TypeError, "a number of engines, .*got -7"),
    "wait_for_engines, block": (lambda rc: rc.wait_for_engines(1, block="x"), ipp.ConfigError, "block is True or"),
    "wait_for_send": (lambda rc: rc[0].apply_async(abs, 1).wait_for_send("x"), TypeError, "timeout is a number"),
    "wait_interactive, interval": (lambda rc: rc.wait_interactive(interval="x"), TypeError, "interval is a number"),
    "pickled client": (pickle.dumps, TypeError, "a Client is a connection of one process.* makes one of its own"),
    "copied client": (copy.deepcopy, TypeError, "a Client is a connection of one process"),
    "pickled view": (lambda rc: pickle.dumps(rc[:]), TypeError, "a DirectView belongs to the client of one process"),
    "copied view": (lambda rc: copy.deepcopy(rc.load_balanced_view()), TypeError, "a LoadBalancedView belongs to"),
    "pickled executor": (lambda rc: pickle.dumps(rc.executor()), TypeError, "a LoadBalancedView belongs to"),
    "client as argument": (lambda rc: rc[:].apply_async(len, rc), ipp.SerializationError, "a Client is a connection"),
    "pickled cluster": (lambda rc: pickle.dumps(ipp.Cluster()), TypeError, "Another process attaches to it"),
    "scatter": (lambda rc: rc[:].scatter("a", 3), TypeError, "a sequence of items is needed, got 3"),
    "scatter, name": (lambda rc: rc[:].scatter(3, []), TypeError, "a name is a str"),
    "scatter, dist": (lambda rc: rc[:].scatter("a", [1], dist="q"), ValueError, "dist is 'b'"),
    "gather": (lambda rc: rc[:].gather(3), TypeError, "a name is a str"),
    "map": (lambda rc: rc[:].map_async(abs, 3), TypeError, "a sequence of items is needed, got 3"),
    "map, function": (lambda rc: rc[:].map_async(3, [1]), TypeError, "a function is needed"),
    "map, nothing": (lambda rc: rc[:].map_async(abs), TypeError, "at least one sequence"),
    "map, balanced": (lambda rc: rc.load_balanced_view().map_async(abs, 3), TypeError, "a sequence of items"),
    "imap": (lambda rc: rc.load_balanced_view().imap(abs, 3), TypeError, "a sequence of items"),
    "targets": (lambda rc: rc[:].set_flags(targets="x"), TypeError, "targets are an int"),
    "after": (lambda rc: rc.load_balanced_view(after=3), TypeError, "after: a dependency names tasks"),
    "wait": (lambda rc: rc.wait(3.5), TypeError, "tasks are named by"),
    "abort": (lambda rc: rc.abort(3.5), TypeError, "tasks are named by"),
    "get_result": (lambda rc: rc.get_result(3.5), TypeError, "tasks are named by"),
    "get_result, unknown": (lambda rc: rc.get_result("nope").get(60), ipp.UnknownTask, "nope"),
    "get_result, bytes": (lambda rc: rc[:].get_result(b"nope"), TypeError, "tasks are named by"),
    "wait, unknown": (lambda rc: rc.wait("nope"), ipp.UnknownTask, "no such task: nope; nothing was waited for"),
    "wait, nothing": (lambda rc: rc.wait(" "), TypeError, "tasks are named by .* got ' '"),
    "wait, not yet": (lambda rc: rc.wait(not_yet(rc)), ipp.UnknownTask, "this client has not submitted it"),
    "wait, unknown, view": (lambda rc: rc[0].wait("nope", timeout=1), ipp.UnknownTask, "nothing was waited for"),
    "wait_interactive, unknown": (lambda rc: rc.wait_interactive("nope"), ipp.UnknownTask, "no such task: nope"),
    "wait_async": (lambda rc: asyncio.run(rc.wait_async(["nope"])), ipp.UnknownTask, "no such task: nope"),
    "abort, unknown": (lambda rc: rc.abort("nope"), ipp.UnknownTask, "no such task: nope; nothing was aborted"),
    "abort, number": (lambda rc: rc.abort(999), IndexError, "there is no number 999"),
    "abort, view": (lambda rc: rc[0].abort(["nope"]), ipp.UnknownTask, "nothing was aborted"),
    "cancel, unknown": (lambda rc: rc.cancel(["nope"]), ipp.UnknownTask, "nothing was cancelled"),
    "cancel, not yet": (lambda rc: rc.cancel(not_yet(rc)), ipp.UnknownTask, "nothing was cancelled"),
    "after, not yet": (
        lambda rc: rc.load_balanced_view(after=not_yet(rc)).apply_async(abs, 1).get(60),
        ipp.InvalidDependency,
        "this client has not submitted it",
    ),
    "purge_local_results": (lambda rc: rc.purge_local_results("nope"), ipp.UnknownTask, "no task of this client"),
    "results": (lambda rc: rc.results[99], ipp.UnknownTask, "no such task: 99"),
    "metadata of all": (lambda rc: rc.metadata[99], ipp.UnknownTask, "no such task: 99"),
    "session, index": (lambda rc: results_of(rc)[99], IndexError, "there is no number 99"),
    "session, key": (lambda rc: results_of(rc)["x"], TypeError, "numbered; got 'x'"),
    "result_status": (lambda rc: rc.result_status(3.5), TypeError, "tasks are named by"),
    "resubmit": (lambda rc: rc.resubmit("nope"), ipp.UnknownTask, "nothing was resubmitted"),
    "resubmit, subheader": (lambda rc: rc.resubmit(0, subheader=3), ipp.ConfigError, "subheader is a dict"),
    "db_query": (lambda rc: rc.db_query(3), ipp.QueryError, "a query is a dict"),
    "purge_results": (lambda rc: rc.purge_results(3.5), TypeError, "tasks are named by"),
    "send_signal": (lambda rc: rc.send_signal(1.5), TypeError, "a signal is a number"),
    "send_signal, name": (lambda rc: rc.send_signal("SIGX"), ValueError, "no signal 'SIGX'"),
    "shutdown": (lambda rc: rc.shutdown("x"), TypeError, "targets are an int"),
    "shutdown, engine": (lambda rc: rc.shutdown(9), IndexError, "no engine 9"),
    "queue_status": (lambda rc: rc.queue_status(9), IndexError, "no engine 9"),
    "index": (lambda rc: rc["x"], TypeError, "engines are indexed by int"),
    "activate": (lambda rc: rc.activate(9), IndexError, "no engine 9"),
    "executor": (lambda rc: rc.executor("x"), TypeError, "targets are an int"),
    "broadcast_view": (lambda rc: rc.broadcast_view(is_coalescing=3), ipp.ConfigError, "True or False"),
    "wait_for_engines": (lambda rc: rc.wait_for_engines("x"), TypeError, "n is a number"),
    "remote": (lambda rc: ipp.remote(3)(abs), TypeError, "a view is needed, got 3"),
    "parallel": (lambda rc: ipp.parallel(rc[:])(3), TypeError, "a function is needed, got 3"),
    "join": (lambda rc: ipp.AsyncResult.join(), ValueError, "nothing to join"),
    "join, number": (lambda rc: ipp.AsyncResult.join(5), TypeError, r"join takes AsyncResults, got 5 \(int\)"),
    "item": (lambda rc: rc[:].apply_async(abs, 1)[9], IndexError, "this result has 2 tasks; there is no number 9"),
    "item, map": (lambda rc: rc[:].map_async(abs, [1] * 4)[-5], IndexError, "has 4 items; there is no number -5"),
    "item, balanced": (
        lambda rc: rc.load_balanced_view().map_async(abs, [1])[1],
        IndexError,
        "this result has 1 item; there is no number 1",
    ),
    "item, growing": (
        lambda rc: rc.load_balanced_view().map_async(abs, range(2000))[2000],
        IndexError,
        "has 2000 items; there is no number 2000",
    ),
    "item, gather": (lambda rc: rc[:].gather("__name__")[7], IndexError, "has 2 items; there is no number 7"),
    "flag block": (lambda rc: rc[:].set_flags(block="no"), ipp.ConfigError, "block is True or False; got 'no'"),
    "flag track": (lambda rc: rc.direct_view(track=3), ipp.ConfigError, "track is True or False; got 3"),
    "flag of a decorator": (lambda rc: rc[:].remote(block="no")(abs)(1), ipp.ConfigError, "block is True or False"),
    "block": (lambda rc: rc[:].map(abs, [1], block="no"), ipp.ConfigError, "block is True or False; got 'no'"),
    "block, push": (lambda rc: rc[:].push({"a": 1}, block=5), ipp.ConfigError, "block is True or False; got 5"),
    "block, balanced": (lambda rc: rc.load_balanced_view().map(abs, [1], block=""), ipp.ConfigError, "block is True"),
    "block, client": (lambda rc: setattr(rc, "block", "no"), ipp.ConfigError, "block is True or False; got 'no'"),
    "block, result": (lambda rc: rc.get_result([], block="no"), ipp.ConfigError, "block is True or False"),
    "record_arguments": (lambda rc: setattr(rc, "record_arguments", "no"), ipp.ConfigError, "is True or False"),
    "shutdown, hub": (lambda rc: rc.shutdown([], hub="no"), ipp.ConfigError, "hub is True or False; got 'no'"),
    "shutdown, restart": (lambda rc: rc.shutdown([], restart="no"), ipp.ConfigError, "restart is True or False"),
    "history of a view": (
        lambda rc: rc[:].get_result(999),
        IndexError,
        "this view has submitted 0 tasks; there is no number 999",
    ),
    "history of a client": (lambda rc: rc.get_result([0, 10**6]), IndexError, "there is no number 1000000"),
    "ids and dependencies": (lambda rc: ipp.Dependency("a", ids="b"), TypeError, "two names of one argument"),
    "cluster": (lambda rc: ipp.Cluster(nn=1), ipp.ConfigError, "no option 'nn'; did you mean the argument n?"),
    "cluster, far": (lambda rc: ipp.Cluster(zzz=1), ipp.ConfigError, "no option 'zzz'; its options are: none"),
    "get": (lambda rc: rc[0].apply_async(abs, 1).get("x"), TypeError, "timeout is a number of seconds"),
    "exception": (lambda rc: rc[0].apply_async(abs, 1).exception("x"), TypeError, "timeout is a number of seconds"),
    "get, nan": (lambda rc: rc[0].apply_async(abs, 1).get(float("nan")), ValueError, "timeout is .* got nan"),
    "wait, timeout": (lambda rc: rc.wait(timeout="x"), TypeError, "timeout is a number of seconds, or None; got 'x'"),
    "wait, view": (lambda rc: rc[:].wait(timeout=[]), TypeError, "timeout is a number of seconds"),
    "wait_interactive": (lambda rc: rc.wait_interactive(timeout="x"), TypeError, "timeout is a number of seconds"),
    "wait_for_engines, timeout": (lambda rc: rc.wait_for_engines(2, timeout="x"), TypeError, "timeout is a number"),
    "track, push": (lambda rc: rc[:].push({"a": 1}, track="x"), ipp.ConfigError, "track is True or False; got 'x'"),
    "track, map": (lambda rc: rc[:].map(abs, [1], track=[]), ipp.ConfigError, "track is True or False"),
    "apply_with_flags": (lambda rc: rc.load_balanced_view().apply_with_flags(abs, (1,), 5), TypeError, "mapping"),
    "get, when": (lambda rc: rc[:].apply_async(abs, 1).get(return_when="x"), ValueError, "return_when is FIRST_"),
    "metadata": (lambda rc: rc[0].apply_async(abs, 1)["x"], KeyError, "no metadata 'x'"),
    "display": (lambda rc: rc[0].apply_async(abs, 1).display_outputs(groupby="x"), ValueError, "groupby is 'type'"),
    "Reference": (lambda rc: ipp.Reference(3), TypeError, "made from a str"),
    "depend": (lambda rc: ipp.depend(3)(abs), ipp.ConfigError, "must be callable"),
    "require": (lambda rc: ipp.require(3)(abs), ipp.ConfigError, "require takes modules"),
    "Dependency": (lambda rc: ipp.Dependency(3), TypeError, "a dependency names tasks"),
    "deserialize_object": (lambda rc: ipp.deserialize_object([]), ValueError, "no buffers"),
    "PrePickled": (lambda rc: ipp.PrePickled(threading.Lock()), ipp.SerializationError, "lock"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named(rc: ipp.Client, name: str):
    call, error, said = WRONG[name]
    with pytest.raises(error, match=said):
        call(rc)


EMPTY: dict[str, tuple[Callable[[ipp.Client], Any], Any]] = {
    "map": (lambda rc: rc[:].map_sync(abs, []), []),
    "map, balanced": (lambda rc: rc.load_balanced_view().map_sync(abs, iter([])), []),
    "map, broadcast": (lambda rc: rc.broadcast_view().map_sync(abs, []), []),
    "imap": (lambda rc: list(rc.load_balanced_view().imap(abs, [])), []),
    "executor": (lambda rc: list(rc.executor().map(abs, [])), []),
    "scatter, gather": (lambda rc: (rc[:].scatter("e", [], block=True), rc[:].gather("e", block=True))[1], []),
    "push": (lambda rc: rc[:].push({}, block=True), [None, None]),
    "pull": (lambda rc: rc[:].pull([], block=True), [[], []]),
    "execute": (lambda rc: len(rc[:].execute("").get()), 2),
    "parallel": (lambda rc: ipp.parallel(rc[:], block=True)(sorted)([]), []),
    "wait": (lambda rc: rc.wait([]), True),
    "wait_interactive": (lambda rc: rc.wait_interactive([]), None),
    "get_result": (lambda rc: rc.get_result([]).get(), []),
    "result_status": (lambda rc: rc.result_status([]), {"pending": [], "completed": []}),
    "resubmit": (lambda rc: rc.resubmit([]).get(), []),
    "abort": (lambda rc: rc.abort([]), None),
    "shutdown": (lambda rc: rc.shutdown([], block=True), None),
    "shutdown, restart": (lambda rc: rc.shutdown([], restart=True, block=True), None),
    "send_signal": (lambda rc: rc.send_signal("SIGTERM", []), None),
    "db_query": (lambda rc: rc.db_query({"msg_id": {"$in": iter([])}}), []),
}


#: argument of a cluster → a value of a wrong type, and what the error says
WRONG_OF_A_CLUSTER: dict[str, tuple[Any, str]] = {
    "n": ("x", "n is a number of engines, 0 or more; got 'x'"),
    "profile": (3, "profile is a str; got 3"),
    "profile_dir": (3, "profile_dir is a path: a str or a Path; got 3"),
    "cluster_id": (3, "cluster_id is a str; got 3"),
    "cluster_file": (3, "cluster_file is a path"),
    "database": (3, "database is a str; got 3"),
    "controller_ip": (3, "controller_ip is a str; got 3"),
    "controller_location": (3, "controller_location is a str; got 3"),
    "controller_args": (3, r'controller_args is a list of str, as \["--debug"\]; got 3'),
    "engine_args": ("--debug", "engine_args is a list of str, .* got '--debug'"),
    "resources": (3, "resources are a mapping of names to numbers, not 3"),
    "retention": (3, "retention is a dict; got 3"),
    "durability": (3, "durability is .*; got 3"),
    "engines": (3.5, "there is no launcher 3.5; the launchers there are: local,"),
    "controller": (3, "controller is the name of a launcher"),
    "controller_options": (3, "controller_options is a dict; got 3"),
    "controller_host": (3, "controller_host is a str; got 3"),
    "engine_launcher_class": (3, "engine_launcher_class is the name of a launcher"),
    "controller_launcher_class": (3, "controller_launcher_class is the name of a launcher"),
    "engine_timeout": ("x", "engine_timeout is a number of seconds, more than 0; got 'x'"),
    "shutdown_atexit": ("x", "shutdown_atexit is True or False; got 'x'"),
    "keep": (2, "keep is True or False; got 2"),
    "load_profile": ("x", "load_profile is True or False; got 'x'"),
    "config": ({"Cluster": 3}, "config is a dict of sections"),
    "dashboard": ("x", "dashboard is True or False; got 'x'"),
    "adaptive": (3, "adaptive is"),
}


@pytest.mark.parametrize("name", WRONG_OF_A_CLUSTER)
def test_a_wrong_setting_of_a_cluster_is_named(tmp_path, name: str):
    value, message = WRONG_OF_A_CLUSTER[name]
    with pytest.raises(ipp.ConfigError, match=message):
        ipp.Cluster(**{"profile_dir": tmp_path, name: value})


def test_a_wrong_setting_in_a_configuration_is_named(tmp_path):
    with pytest.raises(ipp.ConfigError, match=r"c\.Cluster\.engine_timeout is a number of seconds, .* got None"):
        ipp.Cluster(profile_dir=tmp_path, config={"Cluster": {"engine_timeout": None}})


def test_each_argument_of_a_cluster_has_a_wrong_value_here():
    without_effect = {"delay", "send_engines_connection_env", "log", "log_level", "parent"}
    named = set(inspect.signature(ipp.Cluster).parameters) - {"launcher_options"}
    assert named == {*WRONG_OF_A_CLUSTER, *without_effect}


#: argument of a client → a value of a wrong type, and what the error says
WRONG_OF_A_CLIENT: dict[str, tuple[Any, str]] = {
    "connection_info": (3, "connection_info is the path of a connection file, or what is in one; got 3"),
    "profile": (3, "profile is a str; got 3"),
    "profile_dir": (3, "profile_dir is a path: a str or a Path; got 3"),
    "ipython_dir": (3, "ipython_dir is a path: a str or a Path; got 3"),
    "cluster_id": (3, "cluster_id is a str; got 3"),
    "timeout": ("x", "timeout is a number of seconds, 0 or more; got 'x'"),
    "sshserver": (3, "sshserver is a str; got 3"),
    "sshkey": (3, "sshkey is a path: a str or a Path; got 3"),
}


@pytest.mark.parametrize("name", WRONG_OF_A_CLIENT)
def test_a_wrong_setting_of_a_client_is_named(tmp_path, name: str):
    value, message = WRONG_OF_A_CLIENT[name]
    with pytest.raises(ipp.ConfigError, match=message):
        ipp.Client(**{"profile_dir": tmp_path, "timeout": 0.0, name: value})


@pytest.mark.parametrize("given", ["", b"file.json"])
def test_what_is_no_path_is_no_connection_file(given: Any):
    with pytest.raises(ipp.ConfigError, match="connection_info is the path of a connection file"):
        ipp.Client(given)


@pytest.mark.parametrize("word", ["workers", "n_jobs", "max_workers", "processes"])
def test_another_librarys_word_for_the_number_of_engines_is_explained(tmp_path, word: str):
    with pytest.raises(ipp.ConfigError, match=f"Cluster has no argument '{word}': the number of engines is n=4"):
        ipp.Cluster(profile_dir=tmp_path, **{word: 4})


def test_a_preview_of_no_number_of_engines_is_refused(tmp_path):
    with pytest.raises(ipp.ConfigError, match="n is a number of engines, 0 or more; got 'x'"):
        ipp.Cluster(profile_dir=tmp_path).dry_run("x")  # type: ignore[arg-type]


def test_a_cluster_that_runs_says_how_to_use_it(rc: ipp.Client):
    with pytest.raises(RuntimeError, match=r"is running already: connect_client_sync\(\) gives a client"):
        memory_cluster_of(rc).start_controller_sync()


def memory_cluster_of(rc: ipp.Client) -> ipp.Cluster:
    cluster: ipp.Cluster = rc.cluster
    return cluster


#: what users of other libraries try → what the error says
HABITS: dict[str, tuple[Callable[[ipp.Client], Any], str]] = {
    "map": (lambda rc: rc.map, r"a view has it: rc\.load_balanced_view\(\)\.map\(…\)"),
    "push": (lambda rc: rc.push, r"a direct view has it: rc\[:\]\.push"),
    "submit": (lambda rc: rc.submit, r"an executor has it: rc\.executor\(\)\.submit"),
    "view, submit": (lambda rc: rc[:].submit, r"view\.executor\.submit"),
    "view, starmap": (lambda rc: rc[:].starmap, r"write map\(f, \*zip\(\*arguments\)\)"),
    "view, imap_unordered": (lambda rc: rc.load_balanced_view().imap_unordered, "ordered=False"),
    "view, close": (lambda rc: rc[:].close(), "a view needs no closing; rc.close()"),
    "view, join": (lambda rc: rc.load_balanced_view().join(), "view.wait()"),
    "view, terminate": (lambda rc: rc[:].terminate(), "rc.cancel()"),
    "client, engines": (lambda rc: rc.engines, "rc.ids"),
    "client, stop": (lambda rc: rc.stop(), r"rc.shutdown\(hub=True\)"),
    "client, join": (lambda rc: rc.join(), r"rc.wait\(\)"),
    "client, terminate": (lambda rc: rc.terminate(), r"rc.cancel\(\)"),
    "view, eval": (lambda rc: rc[:].eval, r"write pull\('a \+ 1'\), which takes any expression"),
    "view, push": (lambda rc: rc.load_balanced_view().push, "a direct view has it"),
    "another": (lambda rc: rc.nothing, "'Client' object has no attribute 'nothing'$"),
    "view, another": (lambda rc: rc[0].nothing, "'DirectView' object has no attribute 'nothing'$"),
}


@pytest.mark.parametrize("name", HABITS)
def test_a_method_of_another_library_is_explained(rc: ipp.Client, name: str):
    call, message = HABITS[name]
    with pytest.raises(AttributeError, match=message):
        call(rc)


def test_what_is_written_for_other_libraries_does_the_same(rc: ipp.Client):
    lb = rc.load_balanced_view()
    assert lb.map_sync(pow, *zip(*[(2, 3), (3, 2)], strict=True)) == [8, 9]
    assert sorted(lb.imap(abs, [-1, -2], ordered=False)) == [1, 2]
    assert rc.executor().submit(abs, -3).result(60) == 3
    assert not hasattr(lb, "push")


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_comes_of_nothing(rc: ipp.Client, name: str):
    call, expected = EMPTY[name]
    assert call(rc) == expected
    assert len(rc) == 2


def test_a_wrong_flag_is_told_before_anything_is_sent(rc: ipp.Client):
    done = rc[0].apply_async(abs, 1)
    assert rc.wait(timeout=60)
    before = len(rc.hub_history())
    for call in (
        lambda: rc[:].execute("1", block="no"),
        lambda: rc[:].scatter("a", [1], block="no"),
        lambda: rc[:].gather("a", block="no"),
        lambda: rc[:].push({"a": 1}, block="no"),
        lambda: rc[:].map(abs, [1], block="no"),
        lambda: rc.load_balanced_view().map(abs, [1], block="no"),
        lambda: rc.resubmit(done, block="no"),
        lambda: rc.abort(done, block="no"),
        lambda: rc[:].push({"a": 1}, track="no"),
    ):
        with pytest.raises(ipp.ConfigError, match="True or False"):
            call()
    assert rc.outstanding == set()
    assert len(rc.hub_history()) == before


@pytest.mark.parametrize("timeout", [float("inf"), 10**30, 1e300, None, -1])
def test_a_timeout_without_end_is_no_limit(rc: ipp.Client, timeout: Any):
    assert rc[0].apply_async(time.sleep, 0.05).get(timeout) is None
    assert rc[0].apply_async(time.sleep, 0.05).exception(timeout) is None
    result = rc[0].apply_async(time.sleep, 0.05)
    assert result.wait(timeout)
    assert rc.wait(rc[0].apply_async(time.sleep, 0.05), timeout)
    rc.wait_interactive(rc[0].apply_async(time.sleep, 0.05), timeout=timeout)
    assert rc.wait_for_engines(2, timeout=timeout) is None


def test_a_view_without_engines_says_so(rc: ipp.Client):
    said = r"these targets name no engine: \[\]; there are engines \[0, 1\]"
    for call in (rc[[]].apply_async, rc[5:].map_async):
        with pytest.raises(ipp.NoEnginesRegistered, match=said):
            call(abs, [1])


def test_a_cluster_without_engines_says_so(tmp_path):
    with ipp.Cluster(n=0, profile_dir=tmp_path, database="none") as rc:
        direct, balanced = rc[:], rc.load_balanced_view()
        for call in (
            lambda: direct.apply_async(abs, 1),
            lambda: direct.execute("1"),
            lambda: direct.push({"a": 1}),
            lambda: direct["a"],
            lambda: direct.scatter("a", [1]),
            lambda: direct.gather("a"),
            lambda: direct.use_dill(),
            lambda: rc.broadcast_view().map_async(abs, [1]),
            lambda: rc.clear(),
            lambda: balanced.apply_async(abs, 1),
            lambda: balanced.map_async(abs, [1]),
            lambda: list(balanced.imap(abs, [1])),
            lambda: balanced.executor.submit(abs, 1),
        ):
            with pytest.raises(ipp.NoEnginesRegistered, match="ipcluster engines"):
                call()
        rc.shutdown(block=True)
        rc.shutdown(restart=True, block=True)
        with pytest.raises(IndexError, match="there are none"):
            rc[0]
        with pytest.raises(TimeoutError, match="0 of 1 engines"):
            rc.wait_for_engines(1, timeout=0.1)


def test_a_closed_client_says_so(memory_cluster: ipp.Cluster):
    rc = memory_cluster.connect_client_sync()
    rc.wait_for_engines(2, timeout=30)
    direct, balanced = rc[:], rc.load_balanced_view()
    done = balanced.apply_async(abs, -1)
    assert done.get() == 1
    never = balanced.apply_async(time.sleep, 600)
    assert not rc.closed
    rc.close()
    assert rc.closed
    for call in (
        lambda: rc[0],
        lambda: rc.load_balanced_view().apply_async(abs, 1),
        lambda: rc.broadcast_view().apply_async(abs, 1),
        lambda: rc.executor().submit(abs, 1),
        lambda: rc.db_query({}),
        lambda: rc.queue_status(),
        lambda: rc.hub_history(),
        lambda: rc.get_result(done.msg_ids[0]).get(),
        lambda: rc.resubmit(done),
        lambda: rc.abort(),
        lambda: rc.send_signal(2),
        lambda: rc.shutdown(),
        lambda: rc.shutdown(restart=True),
        lambda: rc.shutdown(hub=True),
        lambda: rc.wait_for_engines(3),
        lambda: rc.purge_results("all"),
        lambda: direct.apply_async(abs, 1),
        lambda: direct.execute("1"),
        lambda: direct.push({"a": 1}),
        lambda: balanced.map_async(abs, [1]),
        lambda: list(balanced.imap(abs, [1])),
        lambda: never.get(),
    ):
        with pytest.raises(ipp.ControllerLost, match="this client is closed"):
            call()
    assert done.get() == 1
    rc.close()
    with memory_cluster.connect_client_sync() as other:
        other.cancel(never.msg_ids, block=True)


def test_a_dead_engine_says_so(tmp_path):
    with ipp.Cluster(3, profile_dir=tmp_path, database="none") as rc:
        for result in (
            rc[0].execute("import os; os._exit(3)"),
            rc.broadcast_view(1).apply_async(os._exit, 3),
            rc.load_balanced_view(targets=[2]).apply_async(os._exit, 3),
        ):
            with pytest.raises(ipp.EngineError, match="exited with code 3"):
                result.get(60)


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("wait", ["get", "wait", "rc.wait", "stream_output", "executor", "imap"])
def test_a_wait_is_interrupted_and_the_task_goes_on(rc: ipp.Client, tmp_path, wait: str):
    def until(path: str) -> str:
        import pathlib
        import time

        while not pathlib.Path(path).exists():
            time.sleep(0.01)
        return "done"

    view = rc.load_balanced_view()
    result = view.apply_async(until, str(tmp_path / "go"))
    main = threading.main_thread().ident
    assert main is not None
    calls: dict[str, Callable[[], Any]] = {
        "get": result.get,
        "wait": result.wait,
        "rc.wait": lambda: rc.wait(result),
        "executor": lambda: list(view.executor.map(until, [str(tmp_path / "go")])),
        "imap": lambda: list(view.imap(until, [str(tmp_path / "go")])),
    }

    def streamed() -> None:
        with result.stream_output():
            result.wait()

    def interrupt() -> None:
        wait_until(lambda: result.started)
        signal.pthread_kill(main, signal.SIGINT)

    watcher = threading.Thread(target=interrupt)

    def interrupted() -> None:
        watcher.start()
        calls.get(wait, streamed)()
        watcher.join()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    watcher.join()
    (tmp_path / "go").touch()
    assert result.get(60) == "done"
    view.wait()


def test_signals_reach_the_engines_of_the_set_that_is_named(tmp_path):
    cluster = ipp.Cluster(n=1, profile_dir=tmp_path, database="none")
    with cluster as rc:
        cluster.start_engines_sync(1, "two")
        rc.wait_for_engines(2, timeout=30)
        with pytest.raises(KeyError, match="there is no engine set 'three'"):
            cluster.signal_engines_sync(2, "three")
        first, second = rc[0].apply_async(time.sleep, 600), rc[1].apply_async(time.sleep, 600)
        wait_until(lambda: all(rc.queue_status()[id]["running"] for id in (0, 1)))
        cluster.signal_engines_sync(2, "two")
        with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
            second.get(60)
        assert not first.done()


@pytest.mark.parametrize("number", ["a", 1.5, 0, -1, True])
def test_a_number_of_engines_that_is_none_is_an_error_of_the_call(number, memory_cluster: ipp.Cluster):
    sets = list(memory_cluster.engines)
    with pytest.raises(ipp.ConfigError, match="the number of engines is an int, 1 or more"):
        memory_cluster.start_engines_sync(number)
    assert list(memory_cluster.engines) == sets


def test_engines_without_a_controller_are_not_started(tmp_path):
    with pytest.raises(ipp.ConfigError, match="no controller runs"):
        ipp.Cluster(n=1, profile_dir=tmp_path).start_engines_sync(1)


def test_a_purge_of_all_changes_nothing_while_a_task_is_outstanding(memory_cluster: ipp.Cluster):
    with memory_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        ended = rc[0].apply_async(abs, -1)
        assert ended.get(60) == 1
        outstanding = rc[1].apply_async(time.sleep, 600)
        for purge in (lambda: rc.purge_results("all"), rc.purge_everything, lambda: rc.purge_local_results("all")):
            with pytest.raises(RuntimeError, match="1 of these tasks are outstanding"):
                purge()
        assert {*ended.msg_ids, *outstanding.msg_ids} <= set(rc.hub_history())
        assert len(rc.history) == 2
        rc.cancel(outstanding, block=True)


def test_keywords_of_a_dependency_function_have_any_name():
    def met(x, f=0, g=0):
        return (x, f, g) == (1, 2, 3)

    assert ipp.depend(met, 1, f=2, g=3)(abs)(-1) == 1
    assert ipp.dependent(abs, met, 1, f=2, g=3)(-1) == 1


def test_errors_without_a_place_can_be_printed():
    error = ipp.CompositeError("two", [("ValueError", "bad", "traceback", None)])
    assert "ValueError: bad" in str(error)


@pytest.mark.parametrize("name", ["a" * 300, "\u00e9" * 150])
def test_a_name_that_no_file_can_have(tmp_path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with pytest.raises(ipp.ConfigError, match="a profile's name has at most 200 bytes"):
        ipp.Cluster(n=1, profile=name)
    with pytest.raises(ipp.ConfigError, match="a cluster's id has at most 200 bytes"):
        ipp.Cluster(n=1, cluster_id=name).start_and_connect_sync()


def test_a_client_waits_for_no_negative_time(rc: ipp.Client):
    with pytest.raises(ipp.ConfigError, match="timeout is a number of seconds, 0 or more; got -1"):
        ipp.Client(rc.connection, timeout=-1)
