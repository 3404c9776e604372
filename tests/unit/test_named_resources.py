"""Named resources: how they are written, and dealt out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom import resources
from engineroom.errors import ConfigError


@pytest.mark.parametrize(
    ("count", "engines", "expected"),
    [
        (4, 2, [[0, 1], [2, 3]]),
        (1, 4, [[0], None, None, None]),
        (5, 2, [[0, 1, 2], [3, 4]]),
        (0, 2, [None, None]),
    ],
)
def test_indices_are_dealt_evenly(count: int, engines: int, expected: list[list[int] | None]):
    assert [share.get("gpu") for share in resources.deal({"gpu": count}, engines)] == expected


@given(st.dictionaries(st.sampled_from(["gpu", "license", "tape"]), st.integers(0, 20)), st.integers(0, 9))
def test_each_index_is_dealt_once_and_nobody_has_two_more_than_another(counts: dict[str, int], engines: int):
    shares = resources.deal(counts, engines)
    assert len(shares) == engines
    for name, count in counts.items():
        parts = [share.get(name, []) for share in shares]
        if engines:
            assert [index for part in parts for index in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_gpus_are_those_that_the_host_lets_us_see():
    assert resources.deal({"gpu": 2, "tape": 2}, 2, "2, 3,5") == [{"gpu": [2], "tape": [0]}, {"gpu": [3], "tape": [1]}]
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=2,3 leaves 2"):
        resources.deal({"gpu": 3}, 1, "2,3")
    with pytest.raises(ConfigError, match="Give their numbers"):
        resources.deal({"gpu": 1}, 1, "GPU-8932f937")
    assert resources.deal({"tape": 1}, 1, "GPU-8932f937") == [{"tape": [0]}]


def test_text_and_mapping_mean_the_same():
    assert resources.read("gpu=4, license=1,") == resources.read({"gpu": 4, "license": 1}) == {"gpu": 4, "license": 1}
    assert resources.parse(resources.spell({"gpu": 4, "big-disk": 1})) == {"gpu": 4, "big-disk": 1}
    assert resources.read("") == {}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("gpu", "'gpu' has no number"),
        ("gpu=-1", "gpu needs a number from 0"),
        ("gpu=many", "got 'many'"),
        ("gpu=1.5", "got '1.5'"),
        ("gpu=99999999999", "gpu needs a number from 0"),
        ("4=4", "got '4'"),
        ("my gpu=1", "got 'my gpu'"),
        ("gpu=1,gpu=2", "given twice"),
        ({"gpu": True}, "got True"),
        ({"gpu": 1.0}, "got 1.0"),
        ({"gpu": 65_537}, "to 65536"),
        ({3: 1}, "got 3"),
        ({"": 1}, "got ''"),
        (["gpu"], "a mapping of names to numbers"),
    ],
)
def test_nonsense_is_refused_with_a_hint(bad: Any, says: str):
    with pytest.raises(ConfigError, match="as in gpu=4,license=1") as caught:
        resources.read(bad)
    assert says in str(caught.value)
