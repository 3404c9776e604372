"""Client, views, results, records and explanations as the value of a cell: HTML beside the plain text."""

from __future__ import annotations

from support.notebooks import Cell, Notebook

HOSTILE = "<img src=x onerror=alert(1)>"


def shown(notebook: Notebook, source: str) -> tuple[str, str]:
    """(HTML, plain text) of a cell's value."""
    cell: Cell = notebook.run(source)
    assert cell.error is None, cell
    return cell.bundles[-1].get("text/html", ""), cell.bundles[-1]["text/plain"]


def test_a_client(notebook: Notebook):
    html, text = shown(notebook, "rc")
    assert text.startswith("<Client of ")
    assert "2 engines on 1 host" in html
    assert "session" in html
    assert "key" not in html


def test_views(notebook: Notebook):
    html, text = shown(notebook, f"rc.load_balanced_view(label={HOSTILE!r}, retries=2)")
    assert text == "<LoadBalancedView all>"
    assert "<b>LoadBalancedView</b>" in html
    assert "retries" in html
    assert "<img" not in html
    assert "&lt;img" in html
    assert "0, 1" in shown(notebook, "rc[[0, 1]]")[0]


def test_results_before_and_after_their_end(notebook: Notebook, tmp_path):
    gate = tmp_path / "gate"
    html, text = shown(
        notebook,
        "def wait_for(gate):\n"
        "    import os, time\n"
        "    while not os.path.exists(gate): time.sleep(0.01)\n"
        f"pending = rc[:].apply_async(wait_for, {str(gate)!r}); pending",
    )
    assert "pending" in html
    assert 'value="0" max="2"' in html
    assert "0 of 2 tasks" in html
    assert text.startswith("<AsyncResult(wait_for): pending")
    gate.touch()
    html, _ = shown(notebook, "pending.wait(); pending")
    assert "finished" in html
    assert "2 of 2 tasks" in html


def test_errors_in_a_result_are_closed_and_those_alike_are_one(notebook: Notebook):
    html, text = shown(
        notebook,
        f"def f(i):\n    if i < 8: raise ValueError({HOSTILE!r})\n"
        "ar = rc.load_balanced_view().map_async(f, range(10), label='<b>fit</b>'); ar.wait(); ar",
    )
    assert "failed" in html
    assert "10 of 10 items, 8 failed" in html
    assert html.count("<details><summary>") <= 3, "one for each engine that had errors, at most, and the msg_ids"
    assert "&lt;b&gt;fit&lt;/b&gt;" in html
    assert "<img" not in html
    html, text = shown(notebook, "ar.exception()")
    assert "<b>CompositeError</b>" in html
    assert text.startswith("CompositeError(8)")


def test_records_are_a_table(notebook: Notebook):
    notebook.run(f"rc[0].apply_async(len, {HOSTILE!r}, ).get()")
    html, text = shown(notebook, "rc.db_query({'function_name': 'len'}, keys=['arguments', 'state', 'submitted'])")
    assert html.startswith("<div><table")
    assert "<th" in html
    assert "&lt;img" in html
    assert "<img" not in html
    assert text.startswith("[{'msg_id'")
    html, _ = shown(notebook, "rc.db_query({}, limit=60)")
    assert "keys that are not in the table" in html
    assert notebook.value("rc.db_query({}, limit=0) == [], isinstance(rc.db_query({}), list)") == "(True, True)"
    html, _ = shown(notebook, "rc.db_query({'function_name': 'len'})[0]")
    assert "<b>Task</b>" in html
    assert "completed" in html
    assert "no records" in shown(notebook, "rc.db_query({'label': 'no such'})")[0]


def test_explanations(notebook: Notebook):
    html, text = shown(notebook, "done = rc[0].apply_async(abs, -1); done.wait(); rc.explain(done)")
    assert "<b>ended</b>" in html
    assert " is ended: " in text
    html, _ = shown(notebook, "rc.explain([done, done])")
    assert html.startswith("<table")


def test_a_closed_client_is_shown_as_closed(notebook: Notebook):
    html, _ = shown(notebook, "other = er.Client(rc.connection); other.close(); other")
    assert "closed" in html
