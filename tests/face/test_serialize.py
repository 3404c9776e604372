"""`engineroom.serialize`, as programs written for ipyparallel use it."""

from __future__ import annotations

import functools
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import engineroom as ipp
from engineroom.compat.paths import PATHS
from engineroom.compat.serialize import canning


class Point:
    """A class that an engine knows by its name."""

    def __init__(self, x: int) -> None:
        self.x = x


class CannedPoint(ipp.serialize.canning.CannedObject):
    """A point in a form of its own."""

    def __init__(self, point: Point) -> None:
        self.text = str(point.x)

    def get_object(self, g: object = None) -> Point:
        return Point(int(self.text) * 10)


@pytest.fixture
def points() -> Iterator[None]:
    """`can_map` has an entry for points."""
    ipp.can_map[Point] = CannedPoint
    yield
    del ipp.can_map[Point]


def test_objects_are_buffers_and_objects_again():
    array = np.arange(10_000)
    buffers = ipp.serialize_object({"array": array, "text": "x"})
    assert len(buffers) == 2, "a header, and the array"
    [header, rest] = buffers[0], [bytes(buffers[1]), b"more"]
    value, left = ipp.deserialize_object([header, *rest])
    assert (value["array"] == array).all()
    assert value["text"] == "x"
    assert left == [b"more"]


def test_a_call_is_buffers_and_a_call_again():
    f, args, kwargs = ipp.unpack_apply_message(ipp.pack_apply_message(lambda x, y: x + y, (1,), {"y": 2}))
    assert f(*args, **kwargs) == 3


def test_what_pickle_refuses_can_be_canned():
    step = 3
    for thing, argument in [(lambda x: x + step, 4), (functools.partial(lambda a, b: a + b, 3), 4)]:
        sent = pickle.loads(pickle.dumps(ipp.can(thing)))
        assert ipp.uncan(sent)(argument) == 7

    class Local:
        value = 5

    assert ipp.uncan(pickle.loads(pickle.dumps(ipp.can([{"c": Local}, (1,)]))))[0]["c"].value == 5
    assert ipp.can("text") == "text"


def test_the_canned_classes_come_back():
    import numpy as np

    step = 3

    class Local:
        value = 5

    table = np.arange(6.0).reshape(2, 3)[:, ::2]
    words = np.array(["a", None], dtype=object)
    for canned, get in [
        (canning.CannedArray(table), lambda found: found.tolist() == table.tolist() and found.dtype == table.dtype),
        (canning.CannedArray(words), lambda found: found.tolist() == ["a", None]),
        (canning.CannedBytes(b"abc"), lambda found: found == b"abc"),
        (canning.CannedBuffer(bytearray(b"abc")), lambda found: type(found) is memoryview and found == b"abc"),
        (
            canning.CannedMemoryView(memoryview(bytes(8)).cast("h", (2, 2))),
            lambda found: (found.format, found.shape, found.tolist()) == ("h", (2, 2), [[0, 0], [0, 0]]),
        ),
        (canning.CannedMemoryView(memoryview(b"ab")), lambda found: type(found) is memoryview and found == b"ab"),
        (canning.CannedCell((lambda: step).__closure__[0]), lambda found: found.cell_contents == 3),
        (canning.CannedClass(Local), lambda found: found.value == 5),
        (canning.CannedPartial(functools.partial(lambda a, b: a + b, 3)), lambda found: found(4) == 7),
    ]:
        assert isinstance(canned, canning.CannedObject)
        assert get(canned.get_object())
        assert get(canning.uncan(pickle.loads(pickle.dumps(canned, 5))))
    assert canning.uncan_dict(canning.can_dict({"a": abs})) == {"a": abs}
    assert canning.uncan_sequence(canning.can_sequence([abs])) == [abs]
    assert canning.can_dict(1) == canning.can_sequence(1) == 1
    assert canning.can_class(Local) is Local
    assert canning.istype([], (list, tuple))
    assert not canning.istype(True, int)


def test_functions_of_a_script_find_their_names_in_the_given_namespace():
    code = (
        "import engineroom as ipp, pickle\n"
        "def f(): return missing + 1\n"
        "print(ipp.uncan(pickle.loads(pickle.dumps(ipp.can(f))), {'missing': 41})())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


def test_can_map_can_be_extended(cluster: ipp.Cluster, points: None):
    assert ipp.uncan(ipp.can([Point(4)]))[0].x == 40
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        assert rc[0].apply_sync(lambda point: point.x, Point(4)) == 40
    ipp.uncan_map[set] = lambda value, g: value
    del ipp.uncan_map[set]


def test_an_entry_that_is_removed_has_no_effect(points: None):
    ipp.can_map["fractions.Fraction"] = lambda value: "canned"
    from fractions import Fraction

    assert ipp.can(Fraction(1, 2)) == "canned"
    del ipp.can_map["fractions.Fraction"]
    assert ipp.can(Fraction(1, 2)) == Fraction(1, 2)
    assert pickle.loads(pickle.dumps(Fraction(1, 2))) == Fraction(1, 2)


def test_prepickled_arguments_are_pickled_once(cluster: ipp.Cluster):
    class Costly:
        pickled = 0

        def __reduce__(self):
            type(self).pickled += 1
            return list, ((1, 2),)

    table = ipp.PrePickled(Costly())
    array = ipp.PrePickled(np.arange(50_000))
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        assert rc[:].apply_sync(len, table) == [2, 2]
        assert rc.load_balanced_view().map_sync(lambda t, n: t[n], [table] * 2, [0, 1]) == [1, 2]
        assert rc[0].apply_sync(lambda a: int(a.sum()), array) == sum(range(50_000))
    assert Costly.pickled == 1


def test_old_paths_are_the_same_modules():
    assert importlib.import_module("engineroom.serialize.canning") is canning
    assert importlib.import_module("engineroom.serialize").can is canning.can
    code = "from engineroom.error import RemoteError; from engineroom.client.view import DirectView\n"
    code += "import engineroom as ipp; assert ipp.error.RemoteError is ipp.RemoteError is RemoteError\n"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("path", PATHS)
def test_old_paths_lead_somewhere(path: str):
    if path == "engineroom.joblib":
        pytest.importorskip("joblib")
    module = importlib.import_module(path)
    assert module is importlib.import_module(PATHS[path])
    assert module.__name__ == module.__spec__.name == PATHS[path]


def test_old_paths_can_be_imported_first_of_all():
    code = "".join(f"import {path}\n" for path in PATHS if path != "engineroom.joblib")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_pickles_that_name_old_paths():
    error = pickle.loads(b"cengineroom.error\nRemoteError\n(S'KeyError'\nS'x'\ntR.")
    assert isinstance(error, ipp.RemoteError)
    assert pickle.loads(b"cengineroom.client.view\nDirectView\n.") is ipp.DirectView


def test_errors_are_messages_and_errors_again():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        content = ipp.error.wrap_exception({"engine_id": 3, "method": "apply"})
    error = ipp.error.unwrap_exception(content)
    assert isinstance(error, ipp.RemoteError)
    assert str(error) == "[3:apply] ZeroDivisionError: division by zero"
    assert "1 / 0" in error.traceback
    assert isinstance(ipp.error.unwrap_exception({"ename": "TaskAborted", "evalue": "stopped"}), ipp.TaskAborted)


@pytest.mark.parametrize(
    ("url", "location", "known"),
    [
        ("tcp://0.0.0.0:50", None, "tcp://127.0.0.1:50"),
        ("tcp://*:50", "node7", "tcp://node7:50"),
        ("tcp://host:50", "node7", "tcp://host:50"),
        ("ipc:///a/b", None, "ipc:///a/b"),
    ],
)
def test_urls(url: str, location: str | None, known: str):
    assert ipp.util.disambiguate_url(url, location) == known
    assert ipp.util.is_url(url)
    for other in ("host:50", "http://a:1", 5, "tcp://host"):
        assert not ipp.util.is_url(other)
        with pytest.raises(ValueError, match="a url is"):
            ipp.util.disambiguate_url(other)
