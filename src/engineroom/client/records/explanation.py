"""Why a task is not running, or what has become of it."""

from __future__ import annotations

from typing import Any


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
        return f"{self['msg_id']} is {self['state']}: {self['reason']}"

    __repr__ = __str__
