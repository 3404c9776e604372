"""What must hold after a round of the kill campaign: of tasks, of records, of what clients were told."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import msgspec

from engineroom.stores.sqlite.doctor import verify

from . import plan

#: Keys of records that are looked at.
KEYS = ["msg_id", "label", "state", "result_content", "attempts"]
#: After so many deaths of engines that ran it, a task fails, whatever its retries.
POISONOUS = 3


class Round(msgspec.Struct):
    """What is known of a round when it has ended."""

    tasks: list[plan.Task]
    notes: list[dict[str, Any]]
    #: processes that began each task, by msg_id
    runs: dict[str, list[int]]
    records: dict[str, dict[str, Any]]
    counts: collections.Counter[str]
    #: processes that began tasks and still lived at the end
    alive: set[int]

    @property
    def told(self) -> dict[str, list[tuple[int, str, str]]]:
        """(number, outcome, text) as often as a client was told, by msg_id."""
        found: dict[str, list[tuple[int, str, str]]] = {}
        for note in self.notes:
            if "told" in note:
                found.setdefault(note["told"], []).append((note["number"], note["outcome"], note["text"]))
        return found

    @property
    def accepted(self) -> set[str]:
        """Tasks that the controller has acknowledged."""
        return {id for note in self.notes for id in note.get("accepted", ())}


def runs_in(ledger: Path) -> dict[str, list[int]]:
    """The ledger, by msg_id."""
    found: dict[str, list[int]] = {}
    for line in ledger.read_text().splitlines():
        id, pid = line.split()
        found.setdefault(id, []).append(int(pid))
    return found


def notes_in(path: Path) -> list[dict[str, Any]]:
    """All notes, of all lives of the program."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def check(one: Round) -> collections.Counter[str]:
    """Raise AssertionError if something was lost, doubled, or told wrongly; returns what is counted."""
    _check_ended(one)
    _check_order(one)
    counted = collections.Counter({"tasks": len(one.records)})
    for id, told in one.told.items():
        record = one.records.get(id)
        number, outcome, text = told[-1]
        why = f"{id} ended as {outcome}: {text} {one.tasks[number]} {record}"
        assert _is_allowed(one, one.tasks[number], outcome, record), why
        counted[outcome] += 1
        differ = {end for _, end, _ in told if not _agrees(end, record)}
        assert not differ or _may_differ(one), f"{id}: the client was told {told}; the record says {record}"
        counted["told otherwise"] += bool(differ)
    for id, pids in one.runs.items():
        counted["ran twice"] += _is_doubled(one, id, pids)
    return counted


def _check_ended(one: Round) -> None:
    missing = one.accepted - one.records.keys()
    assert not missing, f"{len(missing)} accepted tasks have no record: {sorted(missing)[:3]}"
    pending = [r for r in one.records.values() if r["state"] not in ("completed", "failed", "aborted")]
    assert not pending, f"{len(pending)} tasks have not ended: {pending[:3]}"
    untold = {task.number for task in one.tasks} - {n for told in one.told.values() for n, _, _ in told}
    assert not untold, f"the client was never told of {untold}"
    never = [id for id, r in one.records.items() if r["state"] == "completed" and id not in one.runs]
    assert not never, f"{len(never)} tasks are completed and never ran: {never[:3]}"


def _check_order(one: Round) -> None:
    """Direct tasks of one life of the program began on each engine in the order of their submission."""
    balanced = {note["balanced"] for note in one.notes if "balanced" in note}
    last: dict[tuple[str, int], int] = {}
    for id, pids in one.runs.items():  # in the order in which they began
        label = one.records[id]["label"] if id in one.records else ""
        task = one.tasks[int(label[1:])] if label else None
        if task is None or task.engine is None or task.number in balanced:
            continue
        client, _, number = id.rpartition("-")
        before = last.get((client, pids[0]), -1)
        assert int(number) > before, f"{id} began after {client}-{before}, which was submitted later"
        last[client, pids[0]] = int(number)


def _agrees(outcome: str, record: dict[str, Any] | None) -> bool:
    """Whether the record says what the client was told."""
    if record is None:
        return outcome == "UnknownTask"
    state = "completed" if outcome == "completed" else "aborted" if outcome == "TaskAborted" else "failed"
    error = (record["result_content"] or {}).get("ename")
    return bool(record["state"] == state and (state != "failed" or error == outcome))


def _may_differ(one: Round) -> bool:
    """A client is told before the outcome is recorded. If the controller dies in between, the task may run again."""
    return one.counts["controller killed"] > 0


def _is_allowed(one: Round, task: plan.Task, outcome: str, record: dict[str, Any] | None) -> bool:
    """Whether a task may end like this, after these faults."""
    attempts = (record or {}).get("attempts") or []
    deaths = sum(not attempt["cause"].startswith("ValueError") for attempt in attempts)
    match outcome:
        case "completed":
            return not task.fails
        case "ValueError":
            return task.fails
        case "TaskAborted":
            return task.cancelled_after is not None
        case "EngineError":
            is_worn_out = task.retries == 0 or len(attempts) > task.retries or deaths >= POISONOUS
            return bool(one.counts) and is_worn_out
        case "UnknownTask":
            return task.at_most_once and one.counts["controller killed"] > 0
        case "InvalidDependency":  # the controller was killed before that task was recorded
            once = [n for n in (*task.inputs, *task.after) if one.tasks[n].at_most_once]
            return bool(once) and one.counts["controller killed"] > 0
        case "ImpossibleDependency":
            above = {*task.inputs, *task.after}
            ends = [(n, end == "completed" and _agrees(end, one.records.get(id))) for id, told in one.told.items()
                    for n, end, _ in told]  # fmt: skip
            return any(n in above and not is_completed for n, is_completed in ends)
    return False


def _is_doubled(one: Round, id: str, pids: list[int]) -> bool:
    """Whether a task ran more than once; only some may."""
    if len(pids) == 1:
        return False
    label = one.records[id]["label"] if id in one.records else ""
    task = one.tasks[int(label[1:])] if label else None
    assert task is None or not task.at_most_once, f"{id} runs at most once, and ran {len(pids)} times: {pids}"
    if task is not None and task.fails:
        return False
    survivors = [pid for pid in pids[:-1] if pid in one.alive]
    excuses = ["host cut off", "nanny killed", "engine stopped", "zygote killed"]
    if one.counts["client killed"] or one.counts["client stopped"]:  # its tasks were said again too late, or never
        excuses.append("controller killed")
    is_excused = not survivors or any(one.counts[name] for name in excuses)
    assert is_excused, f"{id} ran {len(pids)} times, though nothing was lost with {survivors}"
    return True


def check_database(path: Path) -> None:
    """The file is sound."""
    found = verify(path)
    assert found.sound, f"the database is damaged: {found}"
