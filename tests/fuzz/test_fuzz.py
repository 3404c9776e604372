"""Every fuzz target, for a moment and without atheris: its seeds, and some changes of them that are always the same.

`campaign.py` runs them for long, guided by coverage. Here each target also has to notice a fault that is planted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from . import campaign, catalogue, controller, samples
from .database_files import DatabaseFilesTarget
from .target import Finding, Target, TooSlow, limits, run_case

pytest.importorskip("uvicorn")  # the dashboard's target needs its extra

#: Changed cases of each target. Slow targets have fewer.
CASES = {
    "database-files": 15,
    "cluster-files": 60,
    "controller": 200,
    "dashboard": 200,
    "queries": 200,
    "templates": 300,
    "query-text": 300,
}
SEED = 18
#: Seeds of each target: the rest is left to the campaign.
MOST_SEEDS = 60


def cases_of(target: Target, count: int, seed: int = SEED) -> list[bytes]:
    """The seeds, and changes of them."""
    rng = Random(f"{target.name} {seed}")
    seeds = target.seeds()
    chosen = seeds if len(seeds) <= MOST_SEEDS else rng.sample(seeds, MOST_SEEDS)
    if target.name == "database-files":
        chosen = rng.sample(seeds, 15)
    changed = [target.mutate(rng.choice(seeds), rng) for _ in range(count)]
    return [*chosen, *(case for case in changed if len(case) <= target.longest)]


@pytest.mark.slow
@pytest.mark.fault(20, 26)
@pytest.mark.parametrize("name", catalogue.TARGETS)
def test_no_case_raises_what_is_not_promised(name: str):
    with catalogue.load(name) as target, limits():
        for case in cases_of(target, CASES.get(name, 1000)):
            run_case(target, case)


def test_every_message_of_the_protocol_is_a_seed():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "wire.json").read_text())
    for direction, names in golden["directions"].items():
        assert {type(each).__name__ for each in samples.of(direction)} == set(names)


def test_the_controllers_seeds_bring_tasks_to_every_end(monkeypatch: pytest.MonkeyPatch):
    """A case that the door refuses tests the door alone."""
    states: set[str] = set()
    before = controller._Recorded.compare

    def compare(store: controller._Recorded) -> None:
        states.update(record["state"] for record in store.find_records({}, "state"))
        before(store)

    monkeypatch.setattr(controller._Recorded, "compare", compare)
    with catalogue.load("controller") as target, limits():
        for case in target.seeds():
            run_case(target, case)
    assert states >= {"pending", "completed", "failed", "aborted"}


def test_the_controllers_target_notices_a_store_that_loses_entries(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineroom.stores.sqlite.store.SQLiteDB.write", lambda self, entries: None)
    with catalogue.load("controller") as target, limits():
        story = next(case for case in target.seeds() if b"findrecords" in case and b"results" in case)
        with pytest.raises(Finding, match="SQLite"):
            run_case(target, story)


# ------------------------------------------------------------------------------------------ a planted fault is noticed


def _raise(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("planted")


#: target → where a fault is planted: module, name in it, and what stands there instead
FAULTS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "stream": ("engineroom.transport.stream", "Reader._check", lambda self, head: None),
    "decoding": ("engineroom.wire.frames", "ProtocolError", RuntimeError),
    "controller": ("engineroom.controller.loop", "Controller._on_need_functions", _raise),
    "query-text": ("engineroom.reading.query_text", "moment", _raise),
    "queries": ("engineroom.stores.sqlite.store", "SQLiteDB.count", lambda self, query: 3),
    "database-files": ("engineroom.stores.sqlite.file", "_described", _raise),
    "cluster-files": ("engineroom.config", "ConnectionFileError", RuntimeError),
    "templates": ("engineroom.launchers.batch.script", "ConfigError", RuntimeError),
    "batch-answers": ("engineroom.launchers.batch.sge", "LaunchError", RuntimeError),
    "dashboard": ("engineroom.dashboard.security", "Access.is_bearer", lambda self, headers: True),
}


def test_every_target_has_a_planted_fault():
    assert FAULTS.keys() == catalogue.TARGETS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    module, path, fault = FAULTS[name]
    with catalogue.load(name) as target, limits():
        monkeypatch.setattr(f"{module}.{path}", fault)
        found: list[BaseException] = []
        for case in cases_of(target, 300):
            try:
                run_case(target, case)
            except Exception as error:
                found.append(error)
                break
        monkeypatch.undo()
        assert found, "the target does not notice it"


def test_the_sample_of_database_files_is_the_same_each_time():
    """A case names places in it: else a finding could not be replayed."""
    samples = []
    for _ in range(2):
        with catalogue.load("database-files") as target:
            assert isinstance(target, DatabaseFilesTarget)
            samples.append(target.sample)
    assert samples[0] == samples[1]


class Planted(Target):
    """A target whose cases hang, or take a gigabyte and more."""

    name = "planted"

    def seeds(self) -> list[bytes]:
        return [b"hang", b"memory"]

    def run(self, case: bytes) -> None:
        while case == b"hang":
            try:
                sum(range(1000))
            except Exception:  # as the product may have it
                continue
        bytearray(2 << 30)


def test_a_hang_and_a_waste_of_memory_are_noticed():
    with Planted() as target, limits():
        with pytest.raises(TooSlow):
            run_case(target, b"hang", seconds=0.05)
        with pytest.raises(MemoryError):
            run_case(target, b"memory")


def test_an_error_in_the_log_is_noticed():
    import logging

    from .target import Complaints

    with Complaints() as complaints:
        complaints.check()
        logging.getLogger("engineroom.anything").error("a bug: %s", "planted")
        with pytest.raises(Finding, match="planted"):
            complaints.check()
        complaints.check()


# ------------------------------------------------------------------------------------------ the campaign


SAID = """\
#2\tINITED cov: 3 ft: 3 corp: 1/1b exec/s: 0 rss: 48Mb
#700\tNEW    cov: 5 ft: 5 corp: 2/9b lim: 4096 exec/s: 0 rss: 48Mb
Done 20000 runs in 4 second(s)
stat::number_of_executed_units: 20000
stat::average_exec_per_sec:     5000
stat::new_units_added:          7
"""


def test_the_statistics_are_read():
    assert campaign.read_statistics(SAID) == {"cases": 20000, "per_second": 5000, "new": 7}
    cut = "".join(SAID.splitlines(keepends=True)[:2])
    assert campaign.read_statistics(cut) == {"cases": 700, "per_second": 0, "new": 1}


def test_a_case_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "case"
    path.write_bytes(b"{'label': 'a'}")
    assert campaign.replay("query-text", path) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    monkeypatch.setattr("engineroom.stores.sqlite.store.SQLiteDB.count", lambda self, query: -1)
    with pytest.raises(Finding, match="memory answers"):
        campaign.replay("query-text", path)
