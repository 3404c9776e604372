"""Whether an engine's properties allow tasks with certain functions (`depend` of classic tasks).

The `depend` of the function decides. Its answer is kept until the properties change. Everything is called with the
link's lock held, except that any thread may set `changed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from ..ids import Digest
from ..messages import Message, NeedFunctions, PropertiesChanged, PropertiesChecked, PropertyCheck

#: How often a question is repeated because the properties changed while `depend` was running.
CHANGES_AWAITED = 3


class PropertyChecks:
    """Answers the controller's questions about our properties."""

    def __init__(
        self, knows: Callable[[Digest], bool], ask: Callable[[Digest], str], send: Callable[[Message], None]
    ) -> None:
        """`knows`: whether we have a function; `ask`: run its `depend`; `send`: tell the controller."""
        self._knows, self._ask, self._send = knows, ask, send
        #: the properties have changed, and the controller has not been told
        self.changed = False
        self._questions: deque[Digest] = deque()
        #: questions whose function has been asked for
        self._unanswered: set[Digest] = set()
        #: why each function is forbidden, valid until the properties change
        self._reasons: dict[Digest, str] = {}

    def asked(self, functions: Collection[Digest]) -> None:
        """The controller asks about tasks with these functions."""
        self._questions.extend(functions)

    def came(self, function: Digest) -> None:
        """We have this function now: answer the question that waits for it."""
        if function in self._unanswered:
            self._unanswered.remove(function)
            self._questions.append(function)

    def is_missing(self, function: Digest) -> None:
        """The controller does not have the function either. We allow its tasks: they come, and end with that error."""
        if function in self._unanswered:
            self._unanswered.remove(function)
            self._send(PropertiesChecked([PropertyCheck(function, "")]))

    def answer(self, is_leaving: Callable[[], bool]) -> None:
        """Answer the questions that we can answer; ask for the functions of the others."""
        if self.changed:
            self.tell_change()
        answers = []
        while self._questions and not is_leaving():
            digest = self._questions.popleft()
            if self._knows(digest):
                answers.append(PropertyCheck(digest, self._decide(digest)))
            else:
                self._unanswered.add(digest)
                self._send(NeedFunctions([digest]))
        if answers:
            self._send(PropertiesChecked(answers))

    def refusal_reason(self, function: Digest) -> str:
        """The reason why our properties do not allow tasks with a function that we have; "": they do."""
        reason = self._reasons.get(function)
        return self._decide(function) if reason is None else reason

    def _decide(self, function: Digest) -> str:
        reason = self._ask(function)
        for _ in range(CHANGES_AWAITED):
            if not self.changed:
                break
            self.tell_change()  # a thread of a task has changed them meanwhile
            reason = self._ask(function)
        self._reasons[function] = reason
        return reason

    def tell_change(self) -> None:
        """Tell the controller that our earlier answers are not valid any more."""
        self.changed = False
        self._reasons.clear()
        self._send(PropertiesChanged())
