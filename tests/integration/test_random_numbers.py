"""Each item of a map draws its own random numbers, and the same ones however it comes to run."""

from __future__ import annotations

import random

import numpy as np
import pytest

import engineroom as er


@pytest.fixture
def draw(typed):
    return typed(
        "import random\nimport engineroom as er\n"
        "def draw(x):\n"
        "    import numpy as np\n"
        "    return x, float(er.task_rng().random()), random.random(), float(np.random.rand())"
    )


def test_the_numbers_depend_on_the_seed_and_the_item_alone(rc, draw):
    view = rc.load_balanced_view()
    n = 40
    expected = view.map_sync(draw, range(n), seed=5)
    assert [item[1] for item in expected] == [
        np.random.default_rng(child).random() for child in np.random.SeedSequence(5).spawn(n)
    ]
    assert len({item[1] for item in expected}) == len({item[2] for item in expected}) == n
    assert view.map_sync(draw, range(n), seed=5, chunksize=7) == expected
    assert rc.load_balanced_view(targets=[1]).map_sync(draw, range(n), seed=5) == expected
    assert rc[:].map_sync(draw, range(n), seed=5) == expected
    assert rc[:].map_sync(draw, range(n), seed=5, dist="r") == expected
    assert list(view.imap(draw, range(n), seed=5)) == expected
    for sender in (view, rc[:]):
        assert sender.map_sync(draw, range(n), seed=5, labels=["each"] * n) == expected
    assert view.map_sync(draw, range(n), seed=6) != expected


def test_large_maps_count_their_items_across_chunks(rc, draw):
    n = 3000
    found = rc.load_balanced_view().map_sync(draw, range(n), seed=5)
    children = np.random.SeedSequence(5).spawn(n)
    assert [item[1] for item in found] == [np.random.default_rng(child).random() for child in children]


def test_a_retry_a_resubmission_and_a_replay_draw_the_same_numbers(rc, typed, tmp_path):
    flaky = typed(
        "import engineroom as er\nfrom pathlib import Path\n"
        "def flaky(path):\n"
        "    drawn = float(er.task_rng().random())\n"
        "    if not Path(path).exists():\n"
        "        Path(path).touch()\n"
        "        raise ValueError(drawn)\n"
        "    return drawn"
    )
    view = rc.load_balanced_view(retries=1)
    paths = [str(tmp_path / str(i)) for i in range(3)]
    result = view.map_async(flaky, paths, seed=3)
    expected = [np.random.default_rng(child).random() for child in np.random.SeedSequence(3).spawn(3)]
    assert result.get(60) == expected
    again = rc.resubmit(result.msg_ids)
    assert again.get(60) == expected
    assert rc.replay(result.msg_ids[2]) == [expected[2]] or rc.replay(result.msg_ids[2]) == expected[2]


def test_engines_have_states_of_their_own(rc):
    drawn = rc[:].apply_sync(lambda: __import__("numpy").random.rand()), rc[:].apply_sync(random.random)
    assert all(len(set(values)) == 2 for values in drawn)
    before = rc[:].apply_sync(random.getstate)
    rc[:].map_sync(random.gauss, [0, 0], [1, 1], seed=1)
    assert rc[:].apply_sync(random.getstate) == before, "a seed is for its map alone"


def test_functions_of_random_use_the_state_of_the_engine(rc, typed):
    view = rc.load_balanced_view()
    use = typed("from random import random\nfrom numpy.random import rand\ndef use(_): return random(), rand()")
    for drawn in (
        [view.apply_sync(np.random.randint, 1 << 30) for _ in range(6)],
        view.map_sync(random.uniform, [0] * 6, [1] * 6),
        rc[:].map_sync(random.uniform, [0] * 6, [1] * 6),
        view.map_sync(use, range(6)),
    ):
        assert len(set(drawn)) == 6
    rc[:].apply_sync(np.random.seed, 1)
    assert rc[:].apply_sync(np.random.rand) == [np.random.RandomState(1).rand()] * 2, "as one seeds engines by hand"
    rc[:].apply_sync(np.random.seed)


def test_a_generator_that_travels_is_named_once(rc, typed):
    typed("import numpy as np\nrng_of_test = np.random.default_rng(1)")
    draw = typed("def draws(_): return rng_of_test.random()")
    view = rc.load_balanced_view()

    def send() -> None:
        for sender in (view, view, rc[:]):
            sender.map_sync(draw, range(3))

    with pytest.warns(RuntimeWarning, match="draws uses rng_of_test, a numpy.Generator") as caught:
        send()
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_answers_are_reused_by_seed_and_item(rc, draw):
    view = rc.load_balanced_view(cache=True)
    first = view.map_async(draw, [0, 0, 0], seed=11)
    values = first.get(60)
    assert len(set(values)) == 3
    again = view.map_async(draw, [0, 0, 0], seed=11)
    assert again.get(60) == values
    assert [row["cached_from"] for row in again.metadata] == first.msg_ids
    assert view.map_sync(draw, [0, 0, 0], seed=12) != values


def test_a_wrong_seed_is_refused_before_anything_is_sent(rc):
    for wrong in (-1, "x", 1.5, True):
        with pytest.raises(ValueError, match="seed is a whole number"):
            rc.load_balanced_view().map(abs, [1], seed=wrong)
        with pytest.raises(ValueError, match="seed is a whole number"):
            rc[:].map(abs, [1], seed=wrong)
    assert rc[0].map_sync(er.Reference("abs"), [-1], seed=1) == [1]
