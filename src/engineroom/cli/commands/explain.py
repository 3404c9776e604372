"""`engineroom explain`: why a task is not running, or how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

from ...client.records.explanation import Explanation
from ...errors import UnknownTask
from ...printable import one_line
from ...reading.records import Records
from ...records.record import explain_ended
from ...records.states import PENDING, RUNNING
from ..text import as_json, exact, paint
from .records import RecordsApp
from .rows import STYLES

#: The most msg_ids in one command: as many as `xargs` gives to one.
MANY = 100_000


class Explain(RecordsApp):
    """Say why tasks are not running: what they wait for, and whether that can still happen.

    For a task that has ended, say how, when and where. MSG_ID may be shortened, as for `engineroom show`.
    """

    description = __doc__
    usage = "engineroom explain MSG_ID [MSG_ID …] [options]"
    positional: ClassVar[tuple[int, int, str]] = (1, MANY, "MSG_ID")
    examples = """
engineroom explain 3f9ab2-17
engineroom explain 3f9ab2-17 3f9ab2-18 --json
engineroom tasks --state=pending --json | jq -r '.[].msg_id' | xargs engineroom explain
"""

    def start(self) -> None:
        with self.records() as records:
            found = [_explanation(name, records) for name in self.extra_args]
        if self.json:
            print(as_json(found))
            return
        for number, explanation in enumerate(found):
            if number:
                print()
            for line in _described(explanation):
                print(line)


def _explanation(name: str, records: Records) -> Explanation:
    """The explanation of the task with this msg_id, which may be shortened.

    Raises
    ------
    UnknownTask
        No task has this msg_id, or several msg_ids begin with it.
    """
    try:
        record = records.one(name)
    except UnknownTask:
        if records.client is None:
            raise
        # a controller without records still knows the tasks that have not ended
        explanation: Explanation = records.client.explain(name)
        if explanation["state"] == "unknown":
            raise
        return explanation
    if record["state"] not in (PENDING, RUNNING):
        return Explanation(explain_ended(record))
    if records.client is None:
        return Explanation(
            msg_id=record["msg_id"],
            state="recovering",
            reason="no cluster is running; the task goes on when the cluster of this profile is started again",
            details={"submitted": record["submitted"]},
        )
    current: Explanation = records.client.explain(record["msg_id"])
    if current["state"] == "ended":  # it ended since the record was read
        return Explanation(explain_ended(records.one(record["msg_id"])))
    return current


def _described(explanation: Explanation) -> Iterator[str]:
    details = dict(explanation.get("details") or {})
    state = explanation["state"]
    style = STYLES.get(details.get("outcome", ""), "yellow")
    if state == "ended":
        details = {key: details.get(key) for key in ("submitted", "started", "completed")}
    yield f"{paint('Task ' + one_line(explanation['msg_id']), 'bold')}  {paint(state, style)}"
    yield f"  {one_line(explanation['reason'])}"
    shown = [(name, _shown(value)) for name, value in details.items() if value not in (None, [], {})]
    width = max((len(name) for name, _ in shown), default=0) + 2
    for name, value in shown:
        yield f"    {name:{width}}{value}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return exact(value)
    if isinstance(value, list):
        return one_line(", ".join(map(str, value)))
    if isinstance(value, dict):
        return one_line(", ".join(f"{name}: {part}" for name, part in value.items()))
    return one_line(value)
