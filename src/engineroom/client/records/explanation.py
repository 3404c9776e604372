"""Why a task is not running, or what has become of it."""

from __future__ import annotations

import re
from typing import Any

from ... import markup
from ...printable import one_line

#: How many msg_ids are named of tasks that share a reason.
NAMED = 3
#: Numbers that differ from task to task without making another reason: places in a queue, times.
_OWN_NUMBERS = re.compile(
    r"\d[\d,.]*(?:e[+-]?\d+)?(?= of its client's tasks| to do before| tasks to do| s\b)"
    r"|(?<= at )[\d-]+ [\d:]+|(?<=attempt )\d+"
)


class Explanation(dict[str, Any]):
    """The controller's answer about one task: a dict whose keys are attributes, too. It prints as a sentence.

    Attributes
    ----------
    msg_id : str
    state : str
        waiting (for other tasks), queued (for an engine), held (by an engine), recovering (the controller was
        restarted, and its engine has not come back yet), ended, or unknown.
    reason : str
        One sentence.
    details : dict
        The facts from which the sentence is made.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"an explanation has no {name!r}; it has {', '.join(self)}") from None

    def __str__(self) -> str:
        return one_line(f"{self['msg_id']} is {self['state']}: {self['reason']}")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        id = markup.code(self["msg_id"])
        return markup.block(id, " is ", markup.bold(self["state"]), ": ", one_line(self["reason"]))


class Explanations(list[Explanation]):
    """What the controller says about several tasks: a list. It prints one line for each distinct reason."""

    def grouped(self) -> list[tuple[str, str, list[str]]]:
        """(state, reason, msg_ids), the most frequent first. Numbers that differ from task to task are left out."""
        groups: dict[tuple[str, str], list[Explanation]] = {}
        for each in self:
            groups.setdefault((each["state"], _OWN_NUMBERS.sub("…", each["reason"])), []).append(each)
        found = [
            (state, alike[0]["reason"] if len(alike) == 1 else reason, [each["msg_id"] for each in alike])
            for (state, reason), alike in groups.items()
        ]
        return sorted(found, key=lambda group: -len(group[2]))

    def __str__(self) -> str:
        if not self:
            return "no tasks"
        lines = []
        for state, reason, ids in self.grouped():
            if len(ids) == 1:
                lines.append(f"{ids[0]} is {state}: {reason}")
            else:
                named = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
                lines.append(f"{len(ids):,} tasks are {state}: {reason} ({named})")
        return "\n".join(map(one_line, lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self:
            return markup.block("no tasks")
        rows = []
        for state, reason, ids in self.grouped():
            named = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
            rows.append((f"{len(ids):,}", state, one_line(reason), markup.code(named)))
        return markup.table(("tasks", "state", "reason", "msg_ids"), rows)
