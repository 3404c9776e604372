"""Explanations of many tasks: one line for each distinct reason."""

from __future__ import annotations

from engineroom.client.records.explanation import Explanation, Explanations


def held(id: str, ahead: int, engine: int = 0) -> Explanation:
    reason = f"it was given to engine {engine} (node), which has {ahead} to do before it"
    return Explanation(msg_id=id, state="held", reason=reason, details={})


def test_one_line_for_each_reason():
    many = Explanations(held(f"a-{number}", number + 1) for number in range(1200))
    many.append(Explanation(msg_id="b", state="queued", reason="there are no engines", details={}))
    many.append(held("c", 1, engine=1))
    first, second, third = str(many).splitlines()
    assert first == (
        "1,200 tasks are held: it was given to engine 0 (node), which has … to do before it (a-0, a-1, a-2, …)"
    )
    assert {second, third} == {
        "b is queued: there are no engines",
        "c is held: it was given to engine 1 (node), which has 1 to do before it",
    }
    assert repr(many) == str(many)
    assert [len(ids) for _, _, ids in many.grouped()] == [1200, 1, 1]


def test_times_and_places_make_no_other_reason():
    ended = [
        f"it ended well on engine 0 (node) at 2026-01-31 12:00:0{n}, after 0.{n}1 s of running" for n in range(5)
    ]
    queued = [
        f"it waits for an engine, which is busy; {n} of its client's tasks with priority 0 come before it"
        for n in range(5)
    ]
    made = Explanations(
        Explanation(msg_id=str(n), state=state, reason=reason, details={})
        for state, reasons in (("ended", ended), ("queued", queued))
        for n, reason in enumerate(reasons)
    )
    assert [(state, len(ids)) for state, _, ids in made.grouped()] == [("ended", 5), ("queued", 5)]


def test_no_tasks():
    assert str(Explanations()) == "no tasks"


def test_control_characters_do_not_reach_the_terminal():
    one = Explanation(msg_id="a\x1b[2J", state="held", reason="engine \x1b]0;x\x07", details={})
    for text in (str(one), str(Explanations([one])), str(Explanations([one, one]))):
        assert text.isprintable()
