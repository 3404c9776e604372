"""What an engine's properties have refusal_reason tasks."""

from __future__ import annotations

import pytest

from engineroom.engine.property_checks import CHANGES_AWAITED, PropertyChecks
from engineroom.ids import Digest
from engineroom.messages import Message, NeedFunctions, PropertiesChanged, PropertiesChecked, PropertyCheck

F, G = Digest(b"f"), Digest(b"g")


class Engine:
    """Knows functions, and what each has to say."""

    def __init__(self) -> None:
        self.says: dict[Digest, str] = {F: "not here"}
        self.asked: list[Digest] = []
        self.sent: list[Message] = []
        self.changes = 0
        self.checks = PropertyChecks(lambda digest: digest in self.says, self.ask, self.sent.append)

    def ask(self, digest: Digest) -> str:
        self.asked.append(digest)
        if self.changes:
            self.changes -= 1
            self.checks.changed = True
        return self.says[digest]

    def answer(self) -> list[Message]:
        self.checks.answer(lambda: False)
        sent, self.sent[:] = list(self.sent), []
        return sent


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_an_answer_is_kept_until_properties_change(engine: Engine):
    engine.checks.asked([F])
    assert engine.answer() == [PropertiesChecked([PropertyCheck(F, "not here")])]
    assert engine.checks.refusal_reason(F) == "not here"
    assert engine.asked == [F]
    engine.checks.changed = True
    assert engine.answer() == [PropertiesChanged()]
    engine.says[F] = ""
    assert engine.checks.refusal_reason(F) == ""
    assert engine.asked == [F, F]


def test_a_function_that_is_not_known_is_asked_for(engine: Engine):
    engine.checks.asked([G])
    assert engine.answer() == [NeedFunctions([G])]
    engine.says[G] = ""
    engine.checks.came(G)
    engine.checks.came(F)  # nobody asked
    assert engine.answer() == [PropertiesChecked([PropertyCheck(G, "")])]


def test_nothing_is_said_against_tasks_whose_function_cannot_be_had(engine: Engine):
    """They are sent here, and end with an error that says so: they do not wait for ever."""
    engine.checks.asked([G])
    engine.answer()
    engine.checks.is_missing(G)
    engine.checks.is_missing(F)  # nobody asked
    assert engine.answer() == [PropertiesChecked([PropertyCheck(G, "")])]
    assert engine.asked == []


def test_properties_that_change_all_the_time_are_not_asked_about_for_ever(engine: Engine):
    engine.changes = 100
    engine.checks.asked([F])
    sent = engine.answer()
    assert sent[-1] == PropertiesChecked([PropertyCheck(F, "not here")])
    assert len(engine.asked) == 1 + CHANGES_AWAITED


def test_a_leaving_engine_answers_nothing_more(engine: Engine):
    engine.checks.asked([F])
    engine.checks.answer(lambda: True)
    assert engine.sent == []
