"""What an engine's properties have against tasks with certain functions (`depend` of classic tasks).

The function itself decides, once: its answer is kept until the properties change. Called with the link's lock held, but
for `changed`, which any thread may set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from ..ids import Digest
from ..messages import Message, NeedFunctions, PropertiesChanged, PropertiesChecked, PropertyCheck

#: Properties that change while somebody is asked about them: so often the question is repeated.
CHANGES_AWAITED = 3


class PropertyChecks:
    """Answers the controller's questions."""

    def __init__(
        self, knows: Callable[[Digest], bool], ask: Callable[[Digest], str], send: Callable[[Message], None]
    ) -> None:
        """`knows`: whether we have a function; `ask`: run its `depend`; `send`: tell the controller."""
        self._knows, self._ask, self._send = knows, ask, send
        #: properties are not what they were, and the controller does not know
        self.changed = False
        self._questions: deque[Digest] = deque()
        #: questions whose function has been asked for
        self._unanswered: set[Digest] = set()
        #: what holds until properties change
        self._against: dict[Digest, str] = {}

    def asked(self, functions: Collection[Digest]) -> None:
        """The controller wants to know about these."""
        self._questions.extend(functions)

    def came(self, function: Digest) -> None:
        """We know this function now."""
        if function in self._unanswered:
            self._unanswered.remove(function)
            self._questions.append(function)

    def is_missing(self, function: Digest) -> None:
        """The function cannot be had. Nothing is said against its tasks: they come, and end with that error."""
        if function in self._unanswered:
            self._unanswered.remove(function)
            self._send(PropertiesChecked([PropertyCheck(function, "")]))

    def answer(self, is_leaving: Callable[[], bool]) -> None:
        """Say what speaks against tasks that the controller asks about."""
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

    def against(self, function: Digest) -> str:
        """What speaks against tasks with a function that we know; "": nothing."""
        against = self._against.get(function)
        return self._decide(function) if against is None else against

    def _decide(self, function: Digest) -> str:
        against = self._ask(function)
        for _ in range(CHANGES_AWAITED):
            if not self.changed:
                break
            self.tell_change()  # by a thread, meanwhile
            against = self._ask(function)
        self._against[function] = against
        return against

    def tell_change(self) -> None:
        """What we have answered holds no more."""
        self.changed = False
        self._against.clear()
        self._send(PropertiesChanged())
