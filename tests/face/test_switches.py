"""Arguments that are True or False: every one of every public method refuses other values, and names itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import engineroom as er
from engineroom.cluster.manager import clean_cluster_files
from engineroom.config import is_switch

#: What a method needs so that its switches are reached.
CALLS: dict[str, tuple[Any, ...]] = {
    "apply": (abs, 1),
    "del_properties": ("a",),
    "execute": ("1",),
    "export": ("/nowhere/x.jsonl",),
    "gather": ("a",),
    "get_result": ([],),
    "get_task_result": (1,),
    "has_properties": ("a",),
    "imap": (abs, [1]),
    "map": (abs, [1]),
    "pull": ("a",),
    "push": ({"a": 1},),
    "replay": ("a",),
    "result_status": ([],),
    "run": (__file__,),
    "run_graph": ({},),
    "scatter": ("a", [1]),
    "send_signal": (10,),
    "set_properties": ({"a": 1},),
}


def switches_of(function: Callable[..., Any]) -> list[str]:
    """The parameters that are True or False (or None)."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if str(one.annotation) in ("bool", "bool | None")]


def calls(owner: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each public method of an object with each of its switches, as a call that gives the switch a value."""
    for name, function in inspect.getmembers(type(owner), inspect.isfunction):
        for switch in [] if name.startswith("_") else switches_of(function):
            call = functools.partial(getattr(owner, name), *CALLS.get(name, ()))
            yield f"{name}({switch}=)", lambda value, call=call, switch=switch: call(**{switch: value})


async def awaited(value: Any) -> Any:
    return await value


@pytest.fixture
def owners(rc: er.Client, tmp_path: Path) -> dict[str, Any]:
    view = rc.load_balanced_view()
    mapped = view.map_async(abs, range(4))
    mapped.get(60)
    return {
        "client": rc,
        "direct": rc[:],
        "balanced": view,
        "broadcast": rc.broadcast_view(),
        "map": mapped,
        "graph": view.run_graph({"a": []}, {"a": abs}),
        "executor": rc.executor(),
        "session": rc.session("mine"),
        "tasks": er.tasks.TaskClient(rc),
        "manager": er.ClusterManager(),
        "cluster": er.Cluster(n=0, profile_dir=tmp_path),
    }


def refusal(call: Callable[[Any], Any], value: Any) -> str:
    """What a call says of the value of its switch."""
    import asyncio

    try:
        made = call(value)
        if inspect.isawaitable(made):
            asyncio.run(awaited(made))
        elif hasattr(made, "__enter__"):
            with made:
                pass
        elif callable(made):  # a decorator
            made(abs)
    except er.ConfigError as error:
        return str(error)
    except Exception as error:
        return repr(error)
    return f"took {value!r}"


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "Dependency, all": (lambda value: er.Dependency(["a"], all=value), "all"),
    "Dependency, success": (lambda value: er.Dependency(["a"], success=value), "success"),
    "Dependency, failure": (lambda value: er.Dependency(["a"], failure=value), "failure"),
    "Task, clear_before": (lambda value: er.tasks.StringTask("1", clear_before=value), "clear_before"),
    "Task, clear_after": (lambda value: er.tasks.MapTask(abs, (1,), clear_after=value), "clear_after"),
    "clean_cluster_files": (lambda value: clean_cluster_files([], force=value), "force"),
    "register_joblib_backend": (lambda value: er.register_joblib_backend(make_default=value), "make_default"),
    "get_reusable_executor": (lambda value: er.get_reusable_executor(kill_workers=value), "kill_workers"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_text_is_no_switch_of_a_function(name: str):
    call, switch = FUNCTIONS[name]
    assert refusal(call, "no") == f"{switch} is True or False; got 'no'"


@pytest.mark.parametrize("value", [True, False, 1, 0, numpy.True_, numpy.False_, numpy.array(True)], ids=repr)
def test_what_is_a_switch(value: Any):
    assert is_switch(value)


@pytest.mark.parametrize("value", ["True", None, 2, -1, 1.0, [], numpy.array([True, False])], ids=repr)
def test_what_is_none(value: Any):
    assert not is_switch(value)


def test_numbers_switch_as_they_read(rc: er.Client):
    view = rc.load_balanced_view()
    assert view.map(abs, [-1, -2], block=1, ordered=0) in ([1, 2], [2, 1])
    assert isinstance(view.map(abs, [-1], block=0), er.AsyncMapResult)
    assert rc[0].apply_async(abs, -1).get(60, return_exceptions=1) == 1


@pytest.mark.parametrize("value", ["no", "false", ""])
def test_a_text_is_no_switch(owners: dict[str, Any], value: str):
    wrong = {}
    count = 0
    for owner, made in owners.items():
        for name, call in calls(made):
            switch = name.partition("(")[2][:-2]
            said = refusal(call, value)
            count += 1
            if said != f"{switch} is True or False; got {value!r}":
                wrong[f"{owner}.{name}"] = said
    assert not wrong, "\n".join(f"{k}: {v}" for k, v in wrong.items())
    assert count > 60
