"""Plain tasks have a shorter way to their document: the same as the long one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import TaskDone, TaskSpec
from engineroom.records.entry import Entry, instant
from engineroom.stores.mongodb import documents

times = st.floats(0, 2e9)
few = st.sampled_from


@st.composite
def plain_entries(draw: st.DrawFn) -> Entry:
    id = TaskId("some-id")
    spec = TaskSpec(
        id, Digest(draw(few([b"", b"digest"]))), draw(st.binary()), draw(times), EngineId(draw(few([-1, 3])))
    )
    done = None
    if draw(st.booleans()):
        done = TaskDone(
            id, draw(st.integers(1, 3)), "ok", draw(times), draw(times), draw(st.binary()),
            EngineId(draw(few([-1, 0, 3]))), (), draw(st.text()), draw(st.text()), None, None,
            draw(st.none() | st.integers(0, 1 << 40)), draw(few([None, TaskId("other-id")])),
        )  # fmt: skip
    return Entry(
        spec, ClientId("client"), (), done, (), draw(st.none() | times), draw(few([None, EngineUuid("engine")])), None,
        draw(few([None, "host"])), draw(few([None, "name"])), draw(few([None, "environment"])),
    )  # fmt: skip


@given(plain_entries())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_plain_document_is_the_document(entry: Entry) -> None:
    assert documents._is_plain(entry)
    short, apart = documents.document_of(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_is_plain", lambda entry: False)
        long, also_apart = documents.document_of(entry)
    for made in (short, long):  # one has the seconds as they came, the other as a datetime holds them
        made["_seconds"]["attempts"] = [instant(seconds) for seconds in made["_seconds"]["attempts"]]
    assert short == long
    assert apart == also_apart == {}
    assert list(map(type, short.values())) == [type(long[key]) for key in short]
