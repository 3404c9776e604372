"""The soak, in short: it does all that users do, sees every process, and finds what grows."""

from __future__ import annotations

import pytest

from benchmarks import soak as module
from benchmarks.soak import soak, verdict

PROCESSES = {"controller", "dashboard", "nanny", "zygote", "engine 0", "engine 1", "the user's program"}
FILES = {"database", "large buffers", "logs", "other files"}


def test_everything_is_used_and_every_process_and_file_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KILL_EVERY", 2)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    monkeypatch.setattr(module, "REST_EVERY", 2)
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)
    said: list[str] = []
    samples = soak(0, rounds=5, say=said.append).samples
    assert {name for name, _ in samples} == PROCESSES | FILES | {"shared buffers"}
    assert samples["shared buffers", "memory"][-1] > 0
    at_rest = {(name, "descriptors") for name in PROCESSES} | {("shared buffers", "memory")}
    assert {what for what, values in samples.items() if len(values) == 2} == at_rest
    assert {len(values) for what, values in samples.items() if what not in at_rest} == {5}
    quantities = ("memory", "descriptors", "threads")
    assert all(samples[name, quantity][-1] > 0 for name in PROCESSES for quantity in quantities)
    assert all(samples[name, "size"][-1] > 0 for name in FILES)
    assert "0 min, 1 rounds" in said[0]


STEADY = [10.0 + i % 2 for i in range(100)]


@pytest.mark.parametrize(
    ("quantity", "values", "is_bad"),
    [
        ("memory", STEADY, False),
        ("memory", [10 + 0.02 * i for i in range(100)], True),
        ("memory", [10 + min(i, 40) for i in range(100)], False),
        ("descriptors", [20 + i // 10 for i in range(100)], True),
        ("threads", [4 + (i > 70) for i in range(100)], False),
        ("threads", [4 + 2 * (i > 70) for i in range(100)], True),
        ("size", [0.0] * 50 + [1.0] * 50, True),
    ],
)
def test_what_grows_in_the_second_half_is_found(quantity: str, values: list[float], is_bad: bool):
    said: list[str] = []
    assert verdict({("nanny", quantity): values, ("zygote", "memory"): STEADY}, said.append) == int(is_bad)
    assert ("GREW" in said[1]) is is_bad
    assert said[2].endswith("ok")
