"""Streams of random numbers for the items of a map. No cluster."""

from __future__ import annotations

import functools
import os
import pickle
import random
import warnings

import numpy as np
import pytest

import engineroom as er
from engineroom.client.views import submission_warnings
from engineroom.on_engine.random_streams import Seeded, reseed, seeded, task_rng
from engineroom.wire.functions import FunctionCache, load_function


def draw(n: int) -> list[float]:
    return [*task_rng().random(n), *task_rng().random(n), random.random(), float(np.random.rand())]


def test_an_item_draws_from_its_own_child_of_the_seed():
    f = seeded(draw, 7)
    children = [np.random.default_rng(child) for child in np.random.SeedSequence(7).spawn(3)]
    found = [f(item, 2) for item in range(3)]
    assert [item[:4] for item in found] == [list(child.random(4)) for child in children]
    assert len({tuple(item) for item in found}) == len({item[4] for item in found}) == len({i[5] for i in found}) == 3
    assert [f(item, 2) for item in (2, 0, 1)] == [found[2], found[0], found[1]]
    assert seeded(draw, 8)(0, 2) != found[0]


def test_items_are_counted_from_the_first_one_in_steps():
    f = seeded(draw, 7)
    call = f.items(4, 3)
    assert [call(1), call(1)] == [f(4, 1), f(7, 1)]
    assert pickle.loads(pickle.dumps(f)).items(4, 3)(1) == f(4, 1)


def test_the_states_of_the_process_are_left_as_they_were():
    def fail() -> None:
        random.random(), np.random.rand(), task_rng().random()
        raise ValueError

    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1), np.random.seed(1)
    seeded(draw, 7)(0, 5)
    with pytest.raises(ValueError):
        seeded(fail, 7)(0)
    assert (random.random(), np.random.rand()) == expected


@pytest.mark.parametrize(
    "seed", [0, np.int64(5), [1, 2], (3,), np.arange(3), np.random.SeedSequence(5, spawn_key=(1,))], ids=str
)
def test_seeds_are_those_of_numpy(seed: object):
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    expected = np.random.default_rng(sequence.spawn(2)[1]).random(2)
    assert seeded(draw, seed)(1, 1)[:2] == list(expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, [1, -2], [1.5], object()])
def test_what_is_no_seed_is_named(seed: object):
    with pytest.raises(ValueError, match="seed is a whole number, 0 or more"):
        seeded(draw, seed)


def test_without_a_seed_the_function_is_itself_and_the_generator_is_of_the_process():
    assert seeded(draw, None) is draw
    assert task_rng() is task_rng()
    assert er.task_rng is task_rng
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, repr(task_rng().random()).encode())
        finally:
            os._exit(0)
    os.wait()
    os.close(write)
    with os.fdopen(read) as pipe:
        assert float(pipe.read()) != task_rng().random()


def test_an_engine_gets_states_of_its_own():
    random.seed(1), np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    reseed()
    assert random.getstate() != before[0]
    assert np.random.get_state()[1].tolist() != before[1]


@pytest.mark.parametrize(
    "function", [random.random, random.gauss, np.random.rand, np.random.normal], ids=lambda function: function.__name__
)
def test_functions_with_the_state_of_their_module_travel_by_name(function, typed):
    for sent in (function, seeded(function, 1)):
        there = load_function(FunctionCache().get(sent)).call
        assert (there.f if isinstance(there, Seeded) else there) == function
        assert len(FunctionCache().get(sent).payload) < 400
    use = typed("pass\ndef use(): return function")
    use.__globals__["function"] = function
    assert load_function(FunctionCache().get(use)).call() == function


def test_a_generator_of_ones_own_travels_with_its_state():
    own = random.Random(3)
    assert load_function(FunctionCache().get(own.random)).call() == random.Random(3).random()


RNG = np.random.default_rng(1)


def closure(rng: object) -> object:
    return lambda: rng.random()


class Simulation:
    """Holds a value that may be a random generator, or hold one."""

    def __init__(self, held: object) -> None:
        self.held = held

    def draw(self) -> None: ...

    def __call__(self) -> None: ...


class Chooses(Simulation):
    """Decides itself what travels."""

    def __getstate__(self) -> dict[str, object]:
        return {}


def with_default(x: int, rng: object = RNG, *, other: object = random.Random(1)) -> None: ...


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (closure(np.random.default_rng(1)), ["rng, a numpy.Generator"]),
        (closure(np.random.RandomState(1)), ["rng, a numpy.RandomState"]),
        (closure(np.random.PCG64(1)), ["rng, a numpy.PCG64"]),
        (closure(random.Random(1)), ["rng, a random.Random"]),
        (seeded(closure(random.Random(1)), 5), ["rng, a random.Random"]),
        (lambda: closure(RNG), ["RNG, a numpy.Generator"]),
        (RNG.random, ["self, a numpy.Generator"]),
        (with_default, ["rng, a numpy.Generator", "other, a random.Random"]),
        (Simulation(np.random.default_rng(1)).draw, ["self.held, a numpy.Generator"]),
        (Simulation(np.random.RandomState(1)), ["self.held, a numpy.RandomState"]),
        (Simulation([0, random.Random(1)]).draw, ["self.held[1], a random.Random"]),
        (Simulation({"a": random.Random(1)}).draw, ["self.held['a'], a random.Random"]),
        (Simulation(Simulation(random.Random(1))).draw, ["self.held.held, a random.Random"]),
        (closure(Simulation(random.Random(1))), ["rng.held, a random.Random"]),
        (functools.partial(len, Simulation(random.Random(1))), ["argument 0.held, a random.Random"]),
        (Simulation([0] * 1000 + [random.Random(1)]).draw, []),
        (Simulation(Simulation([random.Random(1)])).draw, []),
        (Simulation(random.SystemRandom()).draw, []),
        (Chooses(random.Random(1)).draw, []),
        (closure(random.SystemRandom()), []),
        (closure(random), []),
        (random.random, []),
        (np.random.rand, []),
        (draw, []),
        (len, []),
    ],
    ids=lambda value: getattr(value, "__name__", "")
)  # fmt: skip
def test_a_generator_that_a_function_takes_along_is_named_once(function, named, monkeypatch):
    monkeypatch.setattr(submission_warnings, "_told", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        submission_warnings.look(function, {})
        submission_warnings.look(function, {})
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(named)
    assert all(name in text and "er.task_rng()" in text for name, text in zip(named, texts, strict=True))


def test_an_object_is_looked_into_once_for_a_function_that_is_sent_again(monkeypatch):
    simulation = Simulation([random.Random(1)])
    looked_at = []
    monkeypatch.setattr(submission_warnings, "_told", {("generator", "Simulation.draw", "self.held[0]")})
    monkeypatch.setattr(submission_warnings, "_items", lambda value: looked_at.append(value) or ())
    for _ in range(3):
        submission_warnings.look(simulation.draw, {})
    assert looked_at == [simulation.held]
    key = id(simulation), "Simulation.draw"
    assert key in submission_warnings._looked_into
    del simulation
    assert key not in submission_warnings._looked_into
