"""Pictures of tasks that have really run: timelines of results, the history of records."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest
from conftest import wait_until

import engineroom as er


def fail(x):
    raise ValueError(x)


def test_the_timeline_of_a_map(lb):
    ar = lb.map_async(time.sleep, [0.01] * 6, labels=["fit", "fit", "fit", "score", "score", None])
    ar.wait(60)
    rows = ar.timeline()
    assert {row.node for row in rows} == set(ar.msg_ids)
    assert {row.engine for row in rows} <= {0, 1}
    assert [row.started for row in rows] == sorted(row.started for row in rows)
    assert all((row.completed - row.started).total_seconds() >= 0.01 for row in rows)
    assert sorted(str(row.label) for row in rows) == ["None", "fit", "fit", "fit", "score", "score"]
    assert {row.function for row in rows} == {"sleep"}
    assert rows.by == "label"
    assert "fit 3" in rows._repr_html_()


def test_the_timeline_of_results_of_several_functions(lb):
    with lb.temp_flags(label="bad"):
        failed = lb.apply_async(fail, 1)
    done = lb.apply_async(abs, -1)
    both = er.AsyncResult.join(failed, done)
    both.wait(60)
    assert {(row.function, row.label, row.state) for row in both.timeline()} == {
        ("fail", "bad", "failed"),
        ("abs", None, "completed"),
    }
    assert [part.metadata["label"] for part in both.split()] == ["bad", None]
    assert [row.state for row in failed.timeline(by="state")] == ["failed"]


def test_tasks_that_run_and_that_wait_are_in_the_timeline(lb, tmp_path):
    gate = tmp_path / "gate"

    def wait_for(path):
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)

    with lb.temp_flags(targets=[0]):
        ar = lb.map_async(wait_for, [str(gate)] * 2)
    try:
        wait_until(lambda: [row.state for row in ar.timeline()] == ["running", "pending"])
        running, waiting = ar.timeline()
        assert (running.engine, running.completed) == (0, None)
        assert waiting.started is None
        assert "1 task on 1 engine" in repr(ar.timeline())
    finally:
        gate.touch()
        ar.wait(60)


def test_the_timeline_of_tasks_of_another_client(lb, rc):
    with lb.temp_flags(label="other"):
        ar = lb.map_async(abs, range(3), chunksize=1)
    ar.wait(60)
    with er.Client(rc.connection) as other:
        fetched = other.get_result(ar.msg_ids)
        fetched.wait(60)
        rows = fetched.timeline()
        assert {(row.function, row.label) for row in rows} == {("abs", "other")}
        assert rows == ar.timeline()


def test_a_graph_shows_its_nodes_in_their_states(lb):
    done = lb.run_graph(
        {"b": ["a"], "c": ["b"]}, {"a": abs, "b": fail, "c": abs} | {"a": (abs, [-1])}, pass_results=True
    )
    done.wait(60)
    html = done._repr_html_()
    assert "<svg" in html
    assert "2 failed" in html, "b, and c, which needs it"
    assert "ValueError" in html
    assert "1 completed, 2 failed" in repr(done.picture())
    assert [row.node for row in done.timeline()][:2] == ["a", "b"]


def test_the_history_of_records(lb, rc, tmp_path):
    for label in ("plot-a", "plot-b"):
        with lb.temp_flags(label=label):
            lb.map_async(abs, range(5), chunksize=1).wait(60)
    with lb.temp_flags(label="plot-b"):
        lb.apply_async(fail, 1).wait(60)
    query = {"label": {"$glob": "plot-*"}}
    wait_until(lambda: rc.db_count({**query, "completed": {"$ne": None}}) == 11)
    history = rc.plot_history(query)
    counts: dict[str | None, int] = {}
    for span in history.spans:
        counts[span.name] = counts.get(span.name, 0) + span.tasks
        assert span.median is not None
        assert span.median <= span.p95
    assert counts == {"plot-a": 5, "plot-b": 6}
    assert sum(history.failed.values()) == 1
    assert "11 tasks ended" in history._repr_html_()
    assert ElementTree.parse(history.save(tmp_path / "history.svg"))
    by_function = rc.plot_history(query, by="function", spans=1, session="mine")
    assert {span.name for span in by_function.spans} == {"abs", f"{__name__}.fail"}
    assert repr(rc.plot_history({"label": "no such"})).startswith("<HistoryPlot: no task that matches has ended.")


@pytest.mark.parametrize(
    ("query", "options"), [({"lable": 1}, {}), ({}, {"spans": 0}), ({}, {"spans": 1e9}), ({}, {"by": "lable"})]
)
def test_a_history_that_cannot_be_is_refused(rc, query, options):
    with pytest.raises(er.QueryError):
        rc.plot_history(query, **options)
