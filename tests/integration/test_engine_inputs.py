"""Real engines, driven by hand: resources, what a task knows about itself, and results as arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import Hand, by_hand

import engineroom as er
from engineroom.messages import EngineDied, Hello
from engineroom.wire.input_cache import ResultOf


def look_around() -> tuple[str | None, dict[str, Any]]:
    task = er.current_task()
    assert task is not None
    about = {name: getattr(task, name) for name in task.__struct_fields__}
    return os.environ.get("CUDA_VISIBLE_DEVICES"), about


def change_devices() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "99"


def hello_of(hand: Hand, number: int) -> Hello:
    uuid = hand.engine(number).uuid
    return next(hello for hello in reversed(hand.hellos) if hello.uuid == uuid)


def test_engines_share_what_the_host_has(tmp_path: Path):
    arguments = ["--resources", "gpu=4,license=1"]
    with by_hand(tmp_path, 2, arguments, CUDA_VISIBLE_DEVICES="4,5,6,7") as hand:
        hellos = [hello_of(hand, 0), hello_of(hand, 1)]
        assert sorted(str(hello.resources) for hello in hellos) == [
            "{'gpu': [4, 5], 'license': [0]}",
            "{'gpu': [6, 7]}",
        ]
        number = next(i for i, hello in enumerate(hellos) if "license" in hello.resources)
        assert hand.value(hand.call(look_around, on=number))[0] == "4,5"
        devices, task = hand.value(hand.call(look_around, on=number, resources={"gpu": 1, "license": 1}))
        assert (devices, task["resources"]) == ("4", {"gpu": [4], "license": [0]})
        assert hand.value(hand.call(change_devices, on=number, resources={"gpu": 1})) is None
        assert hand.value(hand.call(look_around, on=number, resources={"license": 1}))[0] == "4,5"

        hand.call(os._exit, 1, on=number)
        hand.next(EngineDied)
        assert hello_of(hand, number).resources == {"gpu": [4, 5], "license": [0]}
        assert hand.value(hand.call(look_around, on=number))[0] == "4,5"


@pytest.mark.parametrize("answers", [True, False])
def test_who_replaces_an_engine_comes_when_its_death_is_known(tmp_path: Path, answers: bool):
    """Or when the controller has had time to hear of it: it may be away."""
    with by_hand(tmp_path) as hand:
        before = hand.engine().uuid
        hand.call(os._exit, 1)
        hand.answers = answers
        died = hand.next(EngineDied)
        assert (died.engine, died.restarting) == (before, True)
        assert not answers or hand.hellos[-1].uuid == before
        assert hand.engine().uuid != before
        hand.answers = True
        assert hand.value(hand.call(abs, -1)) == 1


def test_a_death_that_was_not_confirmed_is_told_again(tmp_path: Path):
    """The controller ends in between. An untold death would make the next controller wait for the engine for ever."""
    with by_hand(tmp_path) as hand:
        before = hand.engine().uuid
        hand.answers = False
        hand.call(os._exit, 3)
        assert hand.next(EngineDied).engine == before
        hand.begin_anew()
        hand.answers = True
        again = hand.next(EngineDied)
        assert (again.engine, again.exit_code, again.restarting) == (before, 3, True)
        assert hand.value(hand.call(abs, -1)) == 1


def test_an_engine_without_a_gpu_sees_none(tmp_path: Path):
    with by_hand(tmp_path, 2, ["--resources=gpu=1"]) as hand:
        seen = {hand.value(hand.call(look_around, on=number))[0] for number in (0, 1)}
        assert seen == {"0", ""}


def test_a_task_knows_itself(tmp_path: Path):
    with by_hand(tmp_path) as hand:
        id = hand.call(look_around, label="mine", metadata={"run": 3}, run_timeout=9.0)
        assert hand.value(id)[1] == {
            "msg_id": id,
            "attempt": 1,
            "engine_id": 0,
            "label": "mine",
            "metadata": {"run": 3},
            "resources": {},
            "run_timeout": 9.0,
        }
        plain = hand.call(look_around)
        assert hand.value(plain)[1]["msg_id"] == plain
    assert er.current_task() is None


def test_resources_that_make_no_sense_end_ipengine_at_once(tmp_path: Path):
    (tmp_path / "engine.json").write_text('{"url": "ipc:///nowhere", "key": "k"}')
    command = [sys.executable, "-m", "engineroom.engine", f"--file={tmp_path / 'engine.json'}"]
    for flags, environment, says in (
        (["--resources=gpu=-1"], {}, "as in gpu=4,license=1"),
        (["--resources=gpu"], {}, "'gpu' has no number"),
        (["--resources=gpu=3"], {"CUDA_VISIBLE_DEVICES": "0,1"}, "leaves 2"),
        (["--IPEngine.cancel_grace=-1"], {}, "cancel_grace"),
    ):
        done = subprocess.run([*command, *flags], env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 1
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------------------------------------- results as arguments


def spoil(array: np.ndarray) -> float:
    before = float(array.sum())
    array[:] = 0
    return before


def given(*args: Any) -> tuple[Any, ...]:
    return args


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory):
    with by_hand(tmp_path_factory.mktemp("hand")) as hand:
        yield hand


@pytest.mark.parametrize("size", [10, 300_000])
def test_each_task_has_its_own_copy_of_a_result(hand: Hand, size: int):
    argument = ResultOf((f"array{size}",), True)
    tasks = [hand.task(spoil, argument, inputs=(f"array{size}",)) for _ in range(3)]
    first = hand.run(*tasks[:2], values={f"array{size}": np.ones(size)})
    later = hand.run(tasks[2])  # the engine has it
    assert [hand.value(id) for id in (*first, *later)] == [size] * 3


def test_lists_and_functions_arrive(hand: Hand, typed: Any):
    function = typed("offset = 5\ndef shift(x):\n    return x + offset")
    values = {"a": [1, 2], "b": [3], "f": function}
    arguments = [ResultOf(("a", "b"), False), ResultOf(("b",), True)]
    [id] = hand.run(hand.task(given, *arguments, inputs=("a", "b")), values=values)
    assert hand.value(id) == ([[1, 2], [3]], [3])
    [id] = hand.run(hand.task(lambda f: f(1), ResultOf(("f",), True), inputs=("f",)), values={"f": function})
    assert hand.value(id) == 6


def test_a_result_that_nobody_has_is_asked_for_once_and_then_named(hand: Hand):
    """Messages may have been lost: the engine says Hello, holding nothing, and so the task is sent again."""
    spec, function = hand.task(given, ResultOf(("lost",), True), inputs=("lost",))
    greeted = len(hand.hellos)
    hand.run((spec, function))
    hand.until(lambda: len(hand.hellos) > greeted)
    assert hand.hellos[-1].held == []
    hand.run((spec, function))
    done = hand.outcome(spec.id)
    assert (done.status, done.error.ename) == ("error", "LookupError")
    assert "the result of task lost" in done.error.evalue
    [id] = hand.run(hand.task(given, ResultOf(("late",), True), inputs=("late",)), values={"late": 1})
    assert hand.value(id) == (1,)


def test_what_is_forgotten_at_a_welcome_comes_again(hand: Hand):
    [id] = hand.run(hand.task(given, ResultOf(("x",), True), inputs=("x",)), values={"x": 1})
    assert hand.value(id) == (1,)
    hand.greet()
    greeted = len(hand.hellos)
    again = hand.task(given, ResultOf(("x",), True), inputs=("x",))
    hand.run(again)
    hand.until(lambda: len(hand.hellos) > greeted)
    [id] = hand.run(again, values={"x": 1})
    assert hand.value(id) == (1,)


def test_a_task_in_the_queue_keeps_its_values(hand: Hand):
    """Whatever comes and goes meanwhile."""
    busy = hand.call(time.sleep, 0.2)
    hand.until(lambda: hand.has_begun(busy))
    [id] = hand.run(hand.task(given, ResultOf(("kept",), True), inputs=("kept",)), values={"kept": "here"})
    hand.greet()
    assert hand.value(id) == ("here",)
