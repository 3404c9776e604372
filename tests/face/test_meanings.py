"""What calls mean that programs written for ipyparallel make: results, errors and names in their smallest cases."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

import engineroom as ipp


def fail_or_wait(path: str) -> None:
    """Fails at once without a path; else waits for the file."""
    import os
    import time

    if not path:
        raise ValueError("no path")
    while not os.path.exists(path):
        time.sleep(0.01)


def test_a_name_with_dots_reaches_into_attributes(rc: ipp.Client):
    view = rc[:]
    view.execute("class A: pass\na = A(); a.b = A(); a.b.c = 1", block=True)
    view["a.b.c"] = 5
    assert view["a.b.c"] == [5, 5]
    view.push({"a.b.d": 6, "e": 7}, block=True)
    assert view.pull(["a.b.d", "e"], block=True) == [[6, 7], [6, 7]]
    view.scatter("a.part", range(4), block=True)
    assert view.gather("a.part", block=True) == [0, 1, 2, 3]
    assert not any(view.apply_sync(lambda: [name for name in globals() if "." in name]))
    with pytest.raises(ipp.RemoteError, match="'nobody' is not defined"):
        view["nobody.x"] = 1


def test_a_dependency_takes_its_ids_by_either_name():
    assert ipp.Dependency(ids=["a", "b"], all=False) == ipp.Dependency(dependencies=["a", "b"], all=False)
    assert ipp.Dependency(ids="a").check({"a"})


VIEWS = {
    "numbers": memoryview(array("d", [1.5, 2.5])),
    "large": memoryview(array("l", range(9000))),
    "two dimensions": memoryview(bytes(range(24))).cast("i", (2, 3)),
}


def about(view: memoryview) -> tuple[str, tuple[int, ...], bytes]:
    return view.format, view.shape, view.tobytes()


@pytest.mark.parametrize("name", VIEWS)
def test_a_memoryview_arrives_as_one_everywhere(rc: ipp.Client, name: str):
    view, direct, balanced = VIEWS[name], rc[:], rc.load_balanced_view()
    expected = about(view)
    assert direct.apply_sync(lambda x: (x.format, x.shape, x.tobytes()), view) == [expected] * 2
    assert balanced.apply_sync(lambda x: (x[0]["a"].format, x[0]["a"].shape), [{"a": view}]) == expected[:2]
    assert about(balanced.apply_sync(lambda x=view: x)) == expected
    assert about(balanced.apply_sync(ipp.Reference("memoryview"), bytearray(3))) == ("B", (3,), bytes(3))
    direct["view"] = view
    assert list(map(about, direct["view"])) == [expected] * 2
    [pulled, _] = rc[0].pull(["view", "__name__"], block=True)
    assert about(pulled) == expected
    assert [about(x) for x in balanced.map_sync(lambda x: x, [view] * 3)] == [expected] * 3


def test_parts_of_a_memoryview_are_memoryviews(rc: ipp.Client):
    rc[:].scatter("part", VIEWS["numbers"], block=True)
    assert [about(part) for part in rc[:]["part"]] == [("d", (1,), array("d", [x]).tobytes()) for x in (1.5, 2.5)]
    assert rc[:].gather("part", block=True) == [1.5, 2.5]
    assert rc[:].map_sync(abs, VIEWS["numbers"]) == [1.5, 2.5]
    rc[:].scatter("part", VIEWS["two dimensions"], block=True)
    assert rc[:]["part"] == [[row] for row in VIEWS["two dimensions"].tolist()]


def test_expressions_are_pulled_and_targets_are_pushed(rc: ipp.Client):
    view = rc[:]
    view.push({"a": [1, 2, 3], "d": {"k": [4]}}, block=True)
    assert view["a[0]"] == [1, 1]
    assert view.pull(["len(a)", "d['k'][0] + 1", "a"], block=True) == [[3, 5, [1, 2, 3]]] * 2
    view["a[-1]"] = 9
    view.push({"d['k'][0]": 5, "x, y": (1, 2)}, block=True)
    assert view.pull(["a", "d", "x", "y"], block=True) == [[[1, 2, 9], {"k": [5]}, 1, 2]] * 2
    view.scatter("d['part']", range(4), block=True)
    assert view.gather("d['part']", block=True) == [0, 1, 2, 3]
    for call in (lambda: view["a["], lambda: view.push({"a b": 1}, block=True)):
        with pytest.raises(ValueError, match=r"'a\[' is no name, nor another expression|nothing can be bound to 'a b'"):
            call()
    assert not view.outstanding, "nothing was sent"
    assert not any(view.apply_sync(lambda: [name for name in globals() if "pushed" in name]))


def test_a_task_that_is_named_twice_is_given_twice(rc: ipp.Client):
    pair, single = rc[:].apply_async(abs, -1), rc[0].apply_async(abs, -2)
    joined = ipp.AsyncResult.join(pair, single, pair)
    assert joined.get(60) == [1, 1, 2, 1, 1]
    assert (joined.done(), len(joined)) == (True, 5)
    assert rc.get_result([single.msg_ids[0]] * 2).get(60) == [2, 2]
    assert rc.get_result([-1, -1]).get(60) == [2, 2]
    slow = rc[0].apply_async(time.sleep, 0.2)
    assert ipp.AsyncResult.join(slow, slow).get(60) == [None, None]
    with rc.cluster.connect_client_sync() if rc.cluster else ipp.Client(rc.connection) as other:
        assert other.get_result([*pair.msg_ids, pair.msg_ids[0]]).get(60) == [1, 1, 1]


def test_an_execute_reply_has_each_type_of_its_value(rc: ipp.Client):
    rc[0].execute("from IPython.display import HTML, Image", block=True)
    picture = rc[0].execute("Image(data=b'no picture', format='png', width=10)", silent=False).get()
    data, metadata = picture._repr_png_()
    assert (data.strip(), metadata) == ("bm8gcGljdHVyZQ==", {"width": 10})
    assert picture._repr_html_() is None
    assert rc[0].execute("HTML('<b>bold</b>')", silent=False).get()._repr_html_() == "<b>bold</b>"


@pytest.mark.parametrize("return_when", [ipp.FIRST_EXCEPTION, ipp.FIRST_COMPLETED])
def test_wait_interactive_returns_at_the_first(rc: ipp.Client, tmp_path: Path, return_when: str):
    result = rc[:].map_async(fail_or_wait, ["", str(tmp_path / "gate")])
    result.wait_interactive(timeout=60, return_when=return_when)
    assert not result.done(), "one task waits for the file"
    done, pending = result.wait(timeout=60, return_when=return_when)
    assert (len(done), len(pending)) == (1, 1)
    (tmp_path / "gate").touch()
    result.wait_interactive(timeout=60)
    assert result.done()
    with pytest.raises(ValueError, match="return_when is"):
        result.wait_interactive(return_when="whenever")


def test_the_one_part_of_a_single_result_is_itself(rc: ipp.Client):
    parts = rc[:].apply_async(abs, -1).split()
    assert [part.split() == (part,) for part in parts] == [True, True]
    listed = rc[[0]].apply_async(abs, -2)
    assert [part.get() for part in listed.split()] == [2]
    assert listed.get() == [2]


def test_a_pending_task_of_another_client_has_an_elapsed_time(cluster: ipp.Cluster, rc: ipp.Client, tmp_path: Path):
    result = rc[:].apply_async(fail_or_wait, str(tmp_path / "gate"))
    time_before = time.time()
    with cluster.connect_client_sync() as other:
        fetched = other.get_result(result.msg_ids)
        while rc.db_count({"msg_id": {"$in": result.msg_ids}}) < 2:
            pass
        assert fetched.elapsed > 0
        assert not fetched.done()
        (tmp_path / "gate").touch()
        fetched.get(60)
        assert 0 < fetched.elapsed < time.time() - time_before + 30
    result.get(60)


OUTCOMES: dict[str, tuple[Callable[[ipp.Client], ipp.AsyncResult], type[ipp.RemoteError]]] = {
    "unknown task": (
        lambda rc: rc.load_balanced_view(after="12345").apply_async(abs, 1),
        ipp.InvalidDependency,
    ),
    "several engines": (
        lambda rc: rc.load_balanced_view(
            follow=[rc.load_balanced_view(targets=[engine]).apply_async(abs, 1) for engine in (0, 1)]
        ).apply_async(abs, 1),
        ipp.ImpossibleDependency,
    ),
    "too slow": (
        lambda rc: rc.load_balanced_view().apply_with_flags(time.sleep, (60,), run_timeout=0.05),
        ipp.TaskTimeout,
    ),
    "a dependency too slow": (
        lambda rc: rc.load_balanced_view(
            after=rc.load_balanced_view().apply_async(time.sleep, 2), timeout=0.05
        ).apply_async(abs, 1),
        ipp.DependencyTimeout,
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_the_scheduler_ends_is_a_remote_error_with_its_name(rc: ipp.Client, name: str):
    make, kind = OUTCOMES[name]
    result = make(rc)
    with pytest.raises(ipp.RemoteError) as caught:
        result.get(60)
    error = caught.value
    assert type(error) is kind
    assert error.ename == kind.__name__
    assert error.msg_id == error.engine_info["msg_id"] == result.msg_ids[0]
    assert str(error) == error.evalue
    assert error.render_traceback()[0] == f"{error.ename}: {error.evalue}"


def test_tracebacks_are_printed_to_stdout(rc: ipp.Client, capsys: pytest.CaptureFixture[str]):
    result = rc[:].execute("1 / 0")
    result.exception(30).print_traceback()
    result.exception(30).print_traceback(1)
    said = capsys.readouterr()
    assert said.out.count("ZeroDivisionError: division by zero") >= 3
    assert said.err == ""


def test_a_purge_is_one_here_and_in_the_database(fresh_cluster: Callable[..., ipp.Client]):
    rc = fresh_cluster(n=2, database="memory")
    first = rc[0].apply_async(abs, -1)
    second = rc[1].apply_async(abs, -2)
    third = rc[0].apply_async(abs, -3)
    rc.wait()
    rc.purge_results(third)
    assert (rc.history, rc.hub_history()) == (first.msg_ids + second.msg_ids,) * 2
    rc.purge_local_results(targets=0)
    assert (rc.history, len(rc.hub_history())) == (second.msg_ids, 2)
    with pytest.raises(ValueError, match="name what to forget"):
        rc.purge_local_results()
    rc.purge_local_results([])
    rc.purge_results(targets=[1])
    assert (rc.history, rc.hub_history()) == ([], first.msg_ids)
    rc[0].apply_sync(abs, 1)
    rc.purge_results("all")
    assert (rc.history, rc.hub_history(), len(rc.results), len(rc.metadata)) == ([], [], 0, 0)


def test_the_session_of_a_client_has_the_key_of_its_cluster(rc: ipp.Client):
    assert rc.session.key == rc.connection.key.encode()
    assert rc.session.key.decode() not in repr(rc) + rc._repr_html_() + repr(rc.session)
