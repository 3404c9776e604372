"""What may stand in a graph dependency, when it is met, and the flags of a view: all without a cluster."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

import engineroom as er
from engineroom.client.views import flags
from engineroom.messages import GraphDependency, TaskOptions


def test_all_of_the_tasks_or_any():
    every, some = er.Dependency(["a", "b"]), er.Dependency(["a", "b"], all=False)
    assert not every.check({"a"})
    assert every.check({"a", "b"})
    assert some.check({"b"})
    assert not some.check({"c"})


def test_which_ends_count():
    failed = er.Dependency(["a"], success=False, failure=True)
    either = er.Dependency(["a", "b"], failure=True)
    assert not failed.check({"a"})
    assert failed.check(set(), {"a"})
    assert either.check({"a"}, {"b"})
    assert not er.Dependency(["a"]).check(set(), {"a"})


def test_a_dependency_on_nothing_is_met():
    assert er.Dependency().check(set())
    assert not er.Dependency().unreachable(set(), {"a"})


@pytest.mark.parametrize(
    ("options", "completed", "failed", "lost"),
    [
        ({}, {"a"}, set(), False),
        ({}, {"a"}, {"b"}, True),
        ({"all": False}, set(), {"a"}, False),
        ({"all": False}, set(), {"a", "b"}, True),
        ({"success": False, "failure": True}, {"a"}, set(), True),
        ({"success": False, "failure": True, "all": False}, {"a"}, {"b"}, False),
        ({"success": False, "failure": True, "all": False}, {"a", "b"}, set(), True),
        ({"failure": True}, {"a"}, {"b"}, False),
    ],
)
def test_when_it_can_no_longer_be_met(options, completed, failed, lost):
    assert er.Dependency(["a", "b"], **options).unreachable(completed, failed) is lost


def test_what_never_could_be_met_is_refused():
    with pytest.raises(ValueError, match="never be met"):
        er.Dependency(["a"], success=False, failure=False)


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ("a", {"a"}),
        (["a", "b", "a"], {"a", "b"}),
        ({"a"}, {"a"}),
        (("a", ["b", ("c",)]), {"a", "b", "c"}),
        ([], set()),
        (er.Dependency(["a"], all=False), {"a"}),
        ([er.Dependency(["a"]), "b"], {"a", "b"}),
        ((id for id in "ab"), {"a", "b"}),
    ],
)
def test_tasks_are_named_by_id_or_by_collections_of_ids(given, ids):
    assert er.Dependency(given) == ids


@pytest.mark.parametrize("bad", [5, None, "", " ", b"a", 1.5, [5], [None], [""], {"a": 1}, [["a", 3]], object()])
def test_what_names_no_task_is_refused(bad):
    with pytest.raises(TypeError, match="names tasks by msg_id or AsyncResult"):
        er.Dependency(bad)


def test_as_dict_and_back():
    dependency = er.Dependency(["b", "a"], all=False, failure=True)
    described = json.loads(json.dumps(dependency.as_dict()))
    assert described == {"dependencies": ["a", "b"], "all": False, "success": True, "failure": True}
    for same in (er.Dependency.from_dict(described), copy.copy(dependency), pickle.loads(pickle.dumps(dependency))):
        assert same == dependency
        assert same.as_dict() == dependency.as_dict()
    assert dependency.copy() is not dependency
    assert dependency != er.Dependency(["a", "b"]), "other ends count"


def test_it_shows_what_it_is():
    assert repr(er.Dependency(["b", "a"])) == "Dependency(['a', 'b'], all=True, success=True, failure=False)"


# ---------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(("given", "kept"), [(None, None), (0, None), (0.0, None), (2, 2.0), (1.5, 1.5)])
def test_a_timeout_of_nothing_is_none(given, kept):
    assert flags.timeout(given) == kept


@pytest.mark.parametrize("bad", [-1, -0.1, "2", float("nan"), float("inf"), True, [1]])
def test_a_timeout_that_makes_no_sense_is_refused(bad):
    with pytest.raises(er.ConfigError, match="timeout is a number of seconds"):
        flags.timeout(bad)
    with pytest.raises(er.ConfigError, match="run_timeout is a number of seconds"):
        flags.run_timeout(bad)


def test_a_task_must_be_allowed_to_run_for_some_time():
    assert flags.run_timeout(None) is None
    assert flags.run_timeout(3) == 3.0
    with pytest.raises(er.ConfigError, match="more than 0"):
        flags.run_timeout(0)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert flags.timeout(numpy.float32(1.5)) == 1.5
    assert flags.resources({"gpu": numpy.int64(2)}) == {"gpu": 2}


@pytest.mark.parametrize("bad", [5, ["gpu"], {"gpu": 0}, {"gpu": -1}, {"gpu": 1.5}, {"gpu": True}, {"": 1}, {3: 1}])
def test_resources_that_make_no_sense_are_refused(bad):
    with pytest.raises(er.ConfigError, match=r"resource"):
        flags.resources(bad)


def test_no_resources_are_none():
    assert flags.resources({}) is None
    assert flags.resources({"gpu": 1, "license": 2}) == {"gpu": 1, "license": 2}


@pytest.mark.parametrize("name", [None, *flags.SCHEMES, "mine.schemes:nearest"])
def test_schemes_are_known_by_name(name):
    assert flags.scheme(name) == name


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("leastlaod", "did you mean 'leastload'"),
        ("LRU", "It is one of leastload, lru"),
        ("", "there is no scheme ''"),
        ("a b:c", "there is no scheme"),
        (5, "named by a str"),
        ([], "named by a str"),
    ],
)
def test_an_unknown_scheme_is_refused_and_the_nearest_named(bad, said):
    with pytest.raises(er.ConfigError, match=said):
        flags.scheme(bad)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"retries": 1}, "retries="),
        ({"targets": (0,)}, "targets="),
        ({"after": GraphDependency(("a",))}, "after="),
        ({"follow": GraphDependency(("a",))}, "follow="),
        ({"timeout": 2.0}, "timeout="),
        ({"priority": -1}, "priority="),
        ({"resources": {"gpu": 1}}, "resources="),
        ({"inputs": ("a",)}, "AsyncResults as arguments"),
    ],
)
def test_pure_refuses_what_it_cannot_honour(options, named):
    with pytest.raises(er.ConfigError, match=f"The view's scheme is 'pure', which cannot honour {named}"):
        flags.check_pure(TaskOptions(scheme="pure", **options), "leastload")
    with pytest.raises(er.ConfigError, match="The controller's scheme is 'pure'"):
        flags.check_pure(TaskOptions(**options), "pure")
    flags.check_pure(TaskOptions(scheme="lru", **options), "pure")
    flags.check_pure(TaskOptions(**options), "leastload")


def test_pure_honours_what_needs_no_decision():
    flags.check_pure(TaskOptions(scheme="pure", label="a", metadata={"b": 1}, run_timeout=2.0), "leastload")
