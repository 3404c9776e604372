"""Views: whom work goes to, and how it is called."""

from __future__ import annotations

import copy
import itertools
import operator
import os
import re
import threading
import time
from collections import deque

import numpy as np
import pytest
from conftest import wait_until

import engineroom as er

# ------------------------------------------------------------------------------------------ the client as a container


def test_a_client_knows_its_engines(rc):
    assert rc.ids == [0, 1]
    assert len(rc) == 2
    assert rc
    rc.ids.append(7)
    assert rc.ids == [0, 1], "ids is a fresh copy"
    assert [view.targets for view in rc] == [0, 1]


@pytest.mark.parametrize(
    ("key", "targets"),
    [
        (0, 0),
        (1, 1),
        (-1, 1),
        (-2, 0),
        (slice(None), [0, 1]),
        (slice(None, None, -1), [1, 0]),
        (slice(1, None), [1]),
        ([1, 0], [1, 0]),
        ((0,), [0]),
        ([-1], [1]),
    ],
)
def test_indexing_a_client_gives_a_direct_view(rc, key, targets):
    assert rc[key].targets == targets


@pytest.mark.parametrize("key", [2, -3, [0, 5], 99])
def test_an_engine_that_is_not_there_is_an_index_error(rc, key):
    with pytest.raises(IndexError, match="no engine"):
        rc[key]


@pytest.mark.parametrize("key", ["0", 1.5, None, {0: 1}, True, ["0"]])
def test_a_key_that_cannot_name_engines_is_a_type_error(rc, key):
    with pytest.raises(TypeError):
        rc[key]


def test_a_view_of_all_engines_means_those_at_each_call(rc):
    view = rc.direct_view()
    assert view.targets == "all"
    assert len(view) == 2
    assert view.apply_sync(os.getpid) == [rc[0].apply_sync(os.getpid), rc[1].apply_sync(os.getpid)]
    with pytest.raises(TypeError):
        rc.direct_view("some")


def test_a_load_balanced_view_can_be_restricted_to_targets(rc):
    for targets, expected in ((1, {1}), ([0], {0}), (None, {0, 1})):
        view = rc.load_balanced_view(targets=targets)
        results = [view.apply_async(time.sleep, 0.002) for _ in range(12)]
        assert {r.engine_id for r in results if r.wait(60)} <= expected
    with pytest.raises(IndexError):
        rc.load_balanced_view(targets=[0, 9])


# ---------------------------------------------------------------------------------------------- apply


def test_apply_calls_with_all_kinds_of_arguments(rc):
    view = rc[0]
    assert view.apply_sync(lambda *a, **k: (a, k), 1, "two", three=3) == ((1, "two"), {"three": 3})
    assert view.apply_sync(operator.add, 2, 3) == 5
    asynchronous = view.apply_async(operator.mul, 6, 7)
    assert isinstance(asynchronous, er.AsyncResult)
    assert asynchronous.get(60) == 42


@pytest.mark.parametrize("name", ["f", "func", "function", "self", "block", "args", "kwargs", "targets"])
def test_a_keyword_may_have_any_name(rc, name):
    for view in (rc[0], rc.load_balanced_view()):
        assert view.apply_sync(lambda **k: k, **{name: 5}) == {name: 5}


def test_block_decides_what_apply_gives(rc):
    view = rc.load_balanced_view()
    assert isinstance(view.apply(abs, -1), er.AsyncResult)
    view.block = True
    assert view.apply(abs, -1) == 1
    assert view.map(abs, [-1, -2]) == [1, 2]
    assert isinstance(view.apply_async(abs, -1), er.AsyncResult)
    rc.block = True
    assert rc[0].block is True
    assert rc[0].apply(abs, -3) == 3


def test_one_target_gives_a_bare_value_and_several_a_list(rc):
    assert rc[0].apply_sync(abs, -1) == 1
    assert rc[[0]].apply_sync(abs, -1) == [1]
    assert rc[:].apply_sync(abs, -1) == [1, 1]


@pytest.mark.parametrize("thing", [5, None, "os.getpid"])
def test_what_cannot_be_called_is_refused_at_once(rc, thing):
    for view in (rc[0], rc.load_balanced_view()):
        with pytest.raises(TypeError, match="function is needed"):
            view.apply_async(thing)
        with pytest.raises(TypeError, match="function is needed"):
            view.map_async(thing, [1])


# ---------------------------------------------------------------------------------------------- flags


def test_flags_are_set_for_good_or_for_a_while(rc):
    view = rc.load_balanced_view()
    assert view.set_flags(label="always", retries=2) is view
    with view.temp_flags(label="once", retries=0, targets=[1]) as same:
        assert same is view
        assert (view.label, view.retries) == ("once", 0)
        assert view.apply_async(abs, -1).get_dict(10) == {1: 1}
    assert (view.label, view.retries, view.targets) == ("always", 2, None)
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=True):
        raise ZeroDivisionError
    assert view.block is False


def test_temporary_targets_are_forgotten_again(rc):
    view = rc.load_balanced_view(targets=0)
    with view.temp_flags(targets=1):
        assert view.apply_async(abs, -1).get_dict(10) == {1: 1}
    assert view.apply_async(abs, -1).get_dict(10) == {0: 1}


@pytest.mark.parametrize(
    "flags", [{"nonsense": 1}, {"retries": -1}, {"retries": "many"}, {"retries": True}, {"label": 5}, {"metadata": 5}]
)
def test_flags_that_make_no_sense_are_refused(rc, flags):
    view = rc.load_balanced_view()
    with pytest.raises(ValueError):
        view.set_flags(**flags)
    with pytest.raises(er.ConfigError), view.temp_flags(**flags):
        pass
    assert (view.retries, view.label) == (0, None)


@pytest.mark.parametrize(
    ("misspelt", "told"),
    [
        ("prority", "LoadBalancedView has no flag 'prority': did you mean 'priority'? It has after, "),
        ("target", "did you mean 'targets'?"),
        ("run_time_out", "did you mean 'run_timeout'?"),
        ("xyz", "LoadBalancedView has no flag 'xyz': it has after, "),
    ],
)
def test_a_misspelt_flag_is_told_the_right_one(rc, misspelt, told):
    view = rc.load_balanced_view()
    with pytest.raises(AttributeError, match=re.escape(told)):
        setattr(view, misspelt, 5)
    with pytest.raises(er.ConfigError, match=re.escape(told)), view.temp_flags(**{misspelt: 5}):
        pass
    with pytest.raises(er.ConfigError, match=re.escape(told)):
        rc.load_balanced_view(**{misspelt: 5})
    assert not hasattr(view, misspelt)


def test_a_direct_view_has_fewer_flags(rc):
    with pytest.raises(AttributeError, match="DirectView has no flag 'priority'"):
        rc[:].priority = 5


class Named(er.LoadBalancedView):
    """As users derive their own."""

    purpose = "none"
    count: int

    def __init__(self, client, purpose):
        self._secret = 1
        super().__init__(client)
        self.purpose = purpose
        self.count = 0

    @property
    def twice(self):
        return 2 * self.count

    @twice.setter
    def twice(self, value):
        self.count = value // 2


def test_views_of_your_own_have_the_attributes_they_declare(rc):
    view = Named(rc, "fits")
    view.twice = 8
    view._cache, view.history = {}, []
    assert (view.purpose, view.count, view._secret, view.history) == ("fits", 4, 1, [])
    with pytest.raises(AttributeError, match=r"'purposes'.* is declared in the class body of a subclass"):
        view.purposes = 1
    view.priority = 3
    assert view.apply_sync(abs, -1) == 1
    assert copy.copy(view).purpose == "fits"


def test_the_history_of_a_view_can_be_set(rc):
    view = rc.load_balanced_view()
    results = [view.apply_async(abs, -i) for i in range(3)]
    view.history = results[1].msg_ids
    assert view.history == results[1].msg_ids
    assert view.get_result(-1).get(60) == 1
    with pytest.raises(ValueError, match="'another-1' is none of these"):
        view.history = ["another-1"]
    view.history = []
    latest = view.apply_async(abs, -7)
    assert view.history == latest.msg_ids
    assert view.wait(timeout=60)
    assert not view.outstanding


# ---------------------------------------------------------------------------------------------- map


def test_map_keeps_the_order(any_rc):
    lb = any_rc.load_balanced_view()
    assert lb.map_sync(lambda x: x * x, range(100)) == [x * x for x in range(100)]
    assert any_rc[:].map_sync(lambda x: x * x, range(101)) == [x * x for x in range(101)]
    assert lb.map(abs, [-1]).get(60) == [1]


@pytest.mark.parametrize("chunksize", [1, 3, 7, 100])
def test_map_in_chunks(lb, chunksize):
    result = lb.map_async(lambda x: -x, range(20), chunksize=chunksize)
    assert result.get(60) == [-x for x in range(20)]
    assert len(result.msg_ids) == -(-20 // chunksize)


@pytest.mark.parametrize("chunksize", [0, -1, 1.5, "2"])
def test_a_chunksize_that_makes_no_sense_is_refused(lb, chunksize):
    with pytest.raises(ValueError, match="chunksize"):
        lb.map(abs, [1], chunksize=chunksize)


def test_large_maps_are_chunked_by_themselves(lb):
    result = lb.map_async(lambda x: x + 1, range(5000))
    assert result.get(60) == list(range(1, 5001))
    assert len(result.msg_ids) < 1000
    assert len(result) == result.progress == 5000
    assert list(lb.map_async(lambda x: x + 1, range(1500))) == list(range(1, 1501))
    assert sorted(lb.map_async(lambda x: x + 1, range(1500), ordered=False)) == list(range(1, 1501))


def test_map_over_nothing(rc):
    assert rc.load_balanced_view().map_sync(abs, []) == []
    assert rc[:].map_sync(abs, []) == []
    assert list(rc.load_balanced_view().map_async(abs, iter(()))) == []
    assert list(rc.load_balanced_view().imap(abs, [])) == []


def test_map_stops_at_the_shortest_and_takes_any_iterable(rc):
    for view in (rc[:], rc.load_balanced_view()):
        assert view.map_sync(operator.add, [1, 2, 3], (10, 20)) == [11, 22]
        assert view.map_sync(pow, (x for x in range(4)), range(1, 9)) == [0, 1, 8, 81]
        assert view.map_sync(str.upper, {"a": 1, "b": 2}) == ["A", "B"]
        assert sorted(view.map_sync(abs, {-1, -2})) == [1, 2]
        assert view.map_sync(float, np.arange(3)) == [0.0, 1.0, 2.0]
        with pytest.raises(TypeError):
            view.map_sync(abs)


def test_a_failing_item_fails_the_map_or_takes_its_place(lb):
    with pytest.raises(er.RemoteError, match="ZeroDivisionError"):
        lb.map_sync(lambda x: 1 / x, [1, 0, 2])
    good, bad, better = lb.map_sync(lambda x: 1 / x, [1, 0, 2], return_exceptions=True)
    assert (good, better) == (1.0, 0.5)
    assert isinstance(bad, er.RemoteError)
    assert bad.ename == "ZeroDivisionError"


def test_a_failing_item_among_many_is_told(lb):
    result = lb.map_async(lambda x: 1 / (x - 1700), range(2500))
    with pytest.raises(er.RemoteError, match="ZeroDivisionError"):
        result.get(60)
    values = lb.map_async(lambda x: 1 / (x - 1200), range(1201), return_exceptions=True).get(60)
    assert [isinstance(v, er.RemoteError) for v in values].count(True) == 1


def test_an_unordered_map_gives_items_as_they_come(rc, tmp_path):
    gate = tmp_path / "gate"

    def item(x, gate):
        import os.path
        import time

        while x == 0 and not os.path.exists(gate):
            time.sleep(0.005)
        return x

    result = rc.load_balanced_view().map_async(item, range(4), [str(gate)] * 4, ordered=False)
    items = iter(result)
    assert sorted(itertools.islice(items, 3)) == [1, 2, 3]
    gate.touch()
    assert list(items) == [0]


def test_imap_reads_endless_input_as_results_are_taken(lb):
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(number)
            yield number

    squares = lb.imap(lambda x: x * x, numbers(), max_outstanding=5)
    assert list(itertools.islice(squares, 20)) == [x * x for x in range(20)]
    assert len(taken) <= 26
    squares.cancel()
    assert list(squares) == []


def test_imap_unordered_and_with_errors(lb):
    assert sorted(lb.imap(abs, range(-30, 0), ordered=False)) == list(range(1, 31))
    with pytest.raises(er.RemoteError):
        list(lb.imap(lambda x: 1 / x, [1, 0]))
    results = list(lb.imap(lambda x: 1 / x, [1, 0, 2], return_exceptions=True))
    assert isinstance(results[1], er.RemoteError)
    assert results[::2] == [1.0, 0.5]


@pytest.mark.parametrize("most", [-1, "plenty", 1.5])
def test_imap_refuses_a_limit_that_makes_no_sense(lb, most):
    with pytest.raises((ValueError, TypeError)):
        list(lb.imap(abs, [1], max_outstanding=most))


def test_a_direct_view_can_map_lazily(rc):
    assert list(rc[:].imap(abs, [-1, -2, -3])) == [1, 2, 3]


# ---------------------------------------------------------------------------------------------- namespaces


def test_push_pull_and_the_dictionary_way(rc):
    view = rc[:]
    view.push({"a": 1, "b": [1, 2]}, block=True)
    assert view.pull("a", block=True) == [1, 1]
    assert view.pull(["a", "b"], block=True) == [[1, [1, 2]], [1, [1, 2]]]
    assert rc[0].pull("a").get(60) == 1
    view["c"] = "see"
    assert view["c"] == ["see", "see"]
    assert rc[0]["c"] == "see"
    view.update({"d": 4})
    assert view.get("d") == [4, 4]
    assert view.get(("a", "d")) == [[1, 4], [1, 4]]
    rc[1]["a"] = 11
    assert view["a"] == [1, 11]


def test_dotted_names_reach_into_attributes(rc):
    rc[0].execute("import types; box = types.SimpleNamespace(inner=types.SimpleNamespace(value=5))", block=True)
    assert rc[0]["box.inner.value"] == 5
    assert rc[0].pull(["box.inner.value", "types.__name__"], block=True) == [5, "types"]
    with pytest.raises(er.RemoteError, match="AttributeError"):
        rc[0]["box.outer"]


def test_an_unknown_name_is_a_name_error(rc):
    with pytest.raises(er.RemoteError, match=r"NameError.*'nowhere'") as caught:
        rc[0]["nowhere"]
    assert caught.value.ename == "NameError"


@pytest.mark.parametrize("names", [5, [5], None])
def test_names_are_strings(rc, names):
    with pytest.raises(TypeError):
        rc[0].pull(names)


def test_what_is_pushed_is_a_dict(rc):
    with pytest.raises(TypeError, match="dict"):
        rc[0].push([("a", 1)])


def test_clear_empties_the_namespaces(rc):
    rc[:].push({"a": 1}, block=True)
    rc[0].clear(block=True)
    assert rc[1]["a"] == 1
    with pytest.raises(er.RemoteError, match="NameError"):
        rc[0]["a"]
    assert rc[0].apply_sync(len, "builtins are still there") == 24
    rc.clear(block=True)
    with pytest.raises(er.RemoteError, match="NameError"):
        rc[1]["a"]


# ---------------------------------------------------------------------------------------------- scatter and gather


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 16])
def test_scatter_and_gather_are_inverse(rc, dist, length):
    view = rc[:]
    view.scatter("part", list(range(length)), dist=dist, block=True)
    assert view.gather("part", dist=dist, block=True) == list(range(length))
    assert sorted(map(len, view["part"])) == sorted([length // 2, length - length // 2])


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("shape", [(9,), (8, 3), (1, 2), (100_000,)])
def test_scattered_arrays_stay_arrays(rc, dist, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    view = rc[:]
    view.scatter("part", array, dist=dist, block=True)
    assert view.apply_sync(lambda p: type(p).__name__, er.Reference("part")) == ["ndarray"] * 2
    whole = view.gather("part", dist=dist, block=True)
    assert whole.dtype == array.dtype
    assert (whole == array).all()
    assert whole.shape == array.shape


@pytest.mark.parametrize("dist", ["b", "r"])
def test_scattered_frames_and_series_stay_what_they_are(rc, dist):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}, index=[7.0, 8.0, 9.0])
    view = rc[:]
    view.scatter("part", frame, dist=dist, block=True)
    assert [len(part) for part in view.pull("part", block=True)] == [2, 1]
    pandas.testing.assert_frame_equal(view.gather("part", dist=dist, block=True), frame)
    view.scatter("part", frame["a"], dist=dist, block=True)
    pandas.testing.assert_series_equal(view.gather("part", dist=dist, block=True), frame["a"])


def test_gather_keeps_masks_and_takes_sets_as_items(rc):
    view = rc[:]
    view.push({"masked": np.ma.array([1, 2], mask=[False, True]), "scalar": np.array(3), "set": {4}}, block=True)
    assert view.gather("masked", block=True).tolist() == [1, None, 1, None]
    assert view.gather("scalar", block=True) == [3, 3]
    assert view.gather("set", block=True) == [{4}, {4}]


def test_maps_have_the_items_of_the_builtin_map(rc):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]}, index=[5, 6])
    for items in (frame, frame["a"], deque([1, 2, 3]), memoryview(np.arange(2.0)), memoryview(b"ab")):
        expected = list(map(_same, items))
        assert rc.load_balanced_view().map_sync(_same, items) == expected
        assert rc[:].map_sync(_same, items) == expected
    [first, second] = rc.load_balanced_view().map_sync(_key_and_size, frame.groupby("a"))
    assert (first, second) == ((1, 1), (2, 1))


def _same(item):
    return item


def _key_and_size(item):
    key, group = item
    return key, len(group)


def test_scatter_flatten_binds_single_items(rc):
    rc[:].scatter("rank", rc.ids, flatten=True, block=True)
    assert rc[:]["rank"] == [0, 1]
    assert rc[:].gather("rank", block=True) == [0, 1]


def test_scatter_flatten_binds_single_items_of_a_series(rc):
    pandas = pytest.importorskip("pandas")
    rc[:].scatter("rank", pandas.Series([1, 2], index=["x", "y"]), flatten=True, block=True)
    assert rc[:].gather("rank", block=True) == [1, 2]
    rc[:].scatter("few", [5], flatten=True, block=True)
    assert rc[0]["few"] == 5
    assert rc[1]["few"] == []


def test_scatter_in_another_order_of_targets(rc):
    rc[[1, 0]].scatter("x", "abcd", block=True)
    assert rc[1]["x"] == "ab"
    with pytest.raises(ValueError, match="dist"):
        rc[:].scatter("x", [1], dist="q")
    with pytest.raises(ValueError, match="dist"):
        rc[:].gather("x", dist="q")


# ---------------------------------------------------------------------------------------------- decorators


def test_remote_functions(rc):
    @rc[:].remote(block=True)
    def double(x):
        """Twice x."""
        return 2 * x

    assert double(4) == [8, 8]
    assert double.__name__ == "double"
    assert "Twice x." in double.__doc__

    @er.remote(rc.load_balanced_view(), block=False)
    def triple(x):
        return 3 * x

    assert triple(2).get(60) == 6


@pytest.mark.parametrize("dist", ["b", "r"])
def test_parallel_functions(rc, dist):
    @rc[:].parallel(dist=dist, block=True)
    def doubled(part):
        return [2 * x for x in part]

    assert doubled(range(9)) == [2 * x for x in range(9)]

    @er.parallel(rc.load_balanced_view(), dist=dist, block=True)
    def added(a, b):
        return [x + y for x, y in zip(a, b, strict=True)]

    assert added(range(9), range(9)) == [2 * x for x in range(9)]
    assert added.map([[1], [2]], [[3], [4]]) == [[4], [6]]


def test_parallel_functions_on_arrays(rc):
    @rc[:].parallel(block=True)
    def squared(part):
        return part**2

    assert (squared(np.arange(10)) == np.arange(10) ** 2).all()


# ------------------------------------------------------------------------------------------ references, imports, names


def test_references_are_evaluated_on_each_engine(rc):
    rc[:].scatter("part", range(10), block=True)
    view = rc[:]
    part = er.Reference("part")
    assert view.apply_sync(sum, part) == [10, 35]
    assert view.apply_sync(lambda **k: k["x"][0]["deep"][1], x=[{"deep": (0, er.Reference("len(part)"))}]) == [5, 5]
    rc[0]["g"] = 3
    assert rc[0].apply_sync(er.Reference("part.__len__")) == 5
    assert view.apply_sync(er.Reference("max"), 3, 4) == [4, 4]
    assert rc.load_balanced_view(targets=0).map_sync(er.Reference("pow"), [2, 3], [2, 2]) == [4, 9]
    assert view.map_sync(er.Reference("abs"), [-1, -2, -3]) == [1, 2, 3]
    with pytest.raises(er.RemoteError, match="NameError"):
        rc[0].apply_sync(abs, er.Reference("nowhere"))
    with pytest.raises(TypeError):
        er.Reference(5)


def test_sync_imports_imports_here_and_there(rc, capsys):
    with rc[:].sync_imports():
        import colorsys
        import xml.dom
        from fractions import Fraction
        from os.path import join as put_together

    assert colorsys
    assert xml
    assert Fraction
    assert put_together
    assert "importing colorsys on engine(s)" in capsys.readouterr().out
    assert rc[:]["colorsys.__name__"] == ["colorsys"] * 2
    assert rc[0]["xml.dom.__name__"] == "xml.dom"
    assert rc[0].apply_sync(er.Reference("Fraction"), 1, 2).denominator == 2
    assert rc[0].apply_sync(er.interactive(lambda: colorsys.__name__)) == "colorsys"
    with rc[:].importer:
        import wave
    assert rc[1]["wave.__name__"] == wave.__name__


def test_sync_imports_quietly_and_only_there(rc, capsys):
    rc[:].execute("import sys, types; sys.modules['only_there'] = types.ModuleType('only_there')", block=True)
    with rc[:].sync_imports(local=False, quiet=True):
        import only_there  # noqa: F401
    assert capsys.readouterr().out == ""
    assert rc[:]["only_there.__name__"] == ["only_there"] * 2
    nowhere = pytest.raises(er.RemoteError, match=r"ModuleNotFoundError.*'nowhere_at_all'")
    with nowhere, rc[0].sync_imports(local=False, quiet=True):
        import nowhere_at_all  # noqa: F401


def test_sync_imports_binds_the_names_that_the_program_has(rc):
    rc[:].clear(block=True)
    with rc[:].sync_imports(quiet=True):
        import email
        import email.message as email_message
        import os.path as os
        import wave as waves
        from email import mime  # noqa: F401 — a module, which nobody has imported
        from os.path import join as put_together
        from os.path import split

    assert all((email, email_message, os, put_together, split))
    assert rc[:]["waves.__name__"] == [waves.__name__] * 2
    assert rc[:]["email_message.__name__"] == ["email.message"] * 2
    assert rc[0]["os.__name__"] == "posixpath"
    assert rc[0]["email.__name__"] == "email"
    assert rc[0].apply_sync(er.Reference("put_together"), "a", "b") == "a/b"
    assert rc[0].apply_sync(er.Reference("split"), "a/b") == ("a", "b")
    assert rc[0]["mime.__name__"] == "email.mime"
    for missing in ("wave", "join"):
        with pytest.raises(er.RemoteError, match="NameError"):
            rc[0][missing]


def test_sync_imports_of_all_names_and_from_the_same_package(rc):
    code = """if True:
        with view.sync_imports(quiet=True):
            from colorsys import *
            from . import dom
            from .dom import minidom as mini
    """
    exec(code, {"view": rc[:], "__package__": "xml", "__name__": "xml.here"})
    assert rc[0].apply_sync(er.Reference("rgb_to_hls"), 0, 0, 0) == (0.0, 0.0, 0.0)
    assert rc[:]["dom.__name__"] == ["xml.dom"] * 2
    assert rc[:]["mini.__name__"] == ["xml.dom.minidom"] * 2


def test_sync_imports_leaves_the_imports_of_other_threads_alone(rc):
    rc[:].clear(block=True)
    with rc[:].sync_imports(quiet=True):
        import wave as waves

        thread = threading.Thread(target=lambda: __import__("colorsys"))
        thread.start()
        thread.join()
    assert rc[0]["waves.__name__"] == waves.__name__
    with pytest.raises(er.RemoteError, match="NameError"):
        rc[0]["colorsys"]


def test_names_imported_on_the_engines_alone_are_of_use_there(rc, typed):
    with rc[:].sync_imports(local=False, quiet=True):
        import wave as waves
        import xml.dom
        from os.path import join as put_together
    with pytest.raises(ImportError, match=r"wave.Error was imported on the engines alone.* sync_imports\(local="):
        waves.Error("x")
    assert rc[0].apply_sync(put_together, "a", "b") == "a/b"
    assert rc[0].apply_sync(lambda: (waves.__name__, xml.dom.__name__)) == ("wave", "xml.dom")
    with pytest.raises(er.RemoteError, match=r"ImportError.*cannot import name 'nothing' from 'wave'"):  # noqa: SIM117
        with rc[0].sync_imports(local=False, quiet=True):
            from wave import nothing  # noqa: F401


def test_names_of_the_engine_win(rc, typed):
    which = typed("place = 'client'\ndef which(): return place")
    assert rc[0].apply_sync(which) == "client"
    rc[0]["place"] = "engine"
    assert rc[0].apply_sync(which) == "engine"
    assert rc.load_balanced_view(targets=0).map_sync(typed("def of(x): return place"), [1]) == ["engine"]
    assert rc[1].apply_sync(which) == "client"


def test_helpers_travel_and_nothing_is_left_behind(rc, typed):
    f = typed("import math\ndef half(x): return math.floor(x / 2)\ndef f(x): return half(x) + 1")
    before = rc[0].apply_sync(er.Reference("sorted"), er.Reference("list(globals())"))
    assert rc[0].apply_sync(f, 7) == 4
    assert rc[0].map_sync(f, [7]) == [4]
    assert rc[0].apply_sync(er.Reference("sorted"), er.Reference("list(globals())")) == before


def test_global_statements_write_to_the_engines_namespace(rc, typed):
    count = typed("def count():\n    global counter\n    counter = counter + 1\n    return counter")
    rc[:]["counter"] = 5
    assert rc[0].apply_sync(count) == 6
    assert rc[0].apply_sync(count) == 7
    assert rc[:]["counter"] == [7, 5]
    typed("counter = 100")
    assert rc[0].apply_sync(count) == 8


def test_a_changed_helper_is_used_at_the_next_call(rc, typed):
    f = typed("def helper(): return 1\ndef f(): return helper()")
    assert rc[0].apply_sync(f) == 1
    typed("def helper(): return 2")
    assert rc[0].apply_sync(f) == 2


def test_functions_given_as_arguments_find_their_helpers(rc, typed):
    inner = typed("def helper(x): return x + 1\ndef inner(x): return helper(x)")
    assert rc[:].map_sync(inner, [1, 2, 3]) == [2, 3, 4]
    assert rc[0].apply_sync(lambda f, x: f(x), inner, 1) == 2


def test_recursive_functions_and_classes_travel(rc, typed):
    fib = typed("def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)")
    assert rc.load_balanced_view().map_sync(fib, range(8)) == [0, 1, 1, 2, 3, 5, 8, 13]
    point = typed("class Point:\n    def __init__(self, x): self.x = x\n    def moved(self): return Point(self.x + 1)")
    assert rc[0].apply_sync(lambda p: p.moved(), point(1)).x == 2
    assert isinstance(rc[0].apply_sync(lambda p: p.moved(), point(1)), point)


def test_interactive_functions_see_the_engines_names(rc):
    @er.interactive
    def weighted(x):
        return x * weight  # noqa: F821

    rc[0]["weight"] = 3
    assert rc[0].apply_sync(weighted, 2) == 6
    with pytest.raises(er.RemoteError, match="NameError"):
        rc[1].apply_sync(weighted, 2)


# ---------------------------------------------------------------------------------------------- views and their tasks


def test_a_view_remembers_its_tasks(rc):
    view = rc.load_balanced_view()
    results = [view.apply_async(abs, -x) for x in range(3)]
    assert view.history == [r.msg_ids[0] for r in results]
    assert view.wait(timeout=60)
    assert view.outstanding == set()
    assert view.get_result(0).get(60) == 0
    assert view.get_result(-1).get(60) == 2
    assert view.get_result([0, 2]).get(60) == [0, 2]
    assert view.results[view.history[1]] == 1
    assert rc.history[-3:] == view.history
    assert rc.metadata[view.history[1]].status == "ok"


def test_an_executor_behaves_like_one(rc):
    from concurrent.futures import Executor, as_completed

    executor = rc.executor()
    assert isinstance(executor, Executor)
    futures = [executor.submit(pow, x, 2) for x in range(5)]
    assert sorted(f.result() for f in as_completed(futures, timeout=10)) == [0, 1, 4, 9, 16]
    assert list(executor.map(abs, [-1, -2])) == [1, 2]
    executor.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
    assert len(rc) == 2
    with rc.executor(targets=[1]) as one:
        assert one.submit(abs, -1).get_dict(10) == {1: 1}


def test_waiting_for_engines(rc):
    assert rc.wait_for_engines(2, timeout=5) is None
    assert rc.wait_for_engines(1, block=False).result(60) is None
    with pytest.raises((TimeoutError, er.EngineError)):
        rc.wait_for_engines(9, timeout=0.1)


def test_without_engines_calls_say_so(fresh_cluster):
    rc = fresh_cluster(n=0)
    wait_until(lambda: rc.ids == [])
    for call in (
        lambda: rc[:].apply_async(abs, 1),
        lambda: rc.load_balanced_view().apply_async(abs, 1),
        lambda: rc.load_balanced_view().map_async(abs, [1]),
        lambda: rc[:].map_async(abs, [1]),
        lambda: rc[:].scatter("a", [1]),
    ):
        with pytest.raises(er.NoEnginesRegistered, match="ipcluster"):
            call()
    rc.cluster.start_engines_sync(1)
    rc.wait_for_engines(1, timeout=20)
    assert rc[:].apply_sync(abs, -1) == [1]
