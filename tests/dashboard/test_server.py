"""The dashboard over real HTTP: on a running cluster, and on the database of one that has ended."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import processes_of, wait_until
from support.dashboards import HOSTILE, Dead, Shown, Site

import engineroom as er
from engineroom.config import dashboard_file

pytestmark = pytest.mark.slow


@pytest.fixture(params=["live", "dead"])
def place(request: pytest.FixtureRequest) -> tuple[Site, dict[str, str]]:
    """Both kinds of dashboards."""
    if request.param == "live":
        found: Shown = request.getfixturevalue("shown")
        return found.site, found.ids
    both: tuple[Site, dict[str, str]] = request.getfixturevalue("dead")
    return both


def find(site: Site, query: Any = None, **params: Any) -> list[Any]:
    found: list[Any] = site.get("tasks", query="" if query is None else json.dumps(query), **params)["rows"]
    return found


# ---------------------------------------------------------------------------------------------- who may ask


def test_the_link_is_in_a_private_file_and_on_no_command_line(shown: Shown):
    connection = shown.rc.connection
    path = dashboard_file(Path(connection.profile_dir), connection.cluster_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["url"] == shown.site.url == shown.rc.dashboard_url
    lines = [argument for process in psutil.process_iter(["cmdline"]) for argument in process.info["cmdline"] or []]
    assert [line for line in lines if shown.site.token in line] == []
    for log in Path(connection.profile_dir, "log").iterdir():
        assert shown.site.token not in log.read_text()


def test_it_listens_on_this_host_alone(shown: Shown):
    pid = json.loads(
        dashboard_file(Path(shown.rc.connection.profile_dir), shown.rc.connection.cluster_id).read_text()
    )["pid"]
    process = psutil.Process(pid)
    connections = process.net_connections if hasattr(process, "net_connections") else process.connections  # psutil 5
    listening = [c.laddr.ip for c in connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


@pytest.mark.parametrize("path", ["/", "/api/about", "/api/tasks", "/api/events", "/static/app.js", "/metrics"])
def test_nothing_is_shown_without_the_token(shown: Shown, path: str):
    status, headers, text = shown.site.ask(path)
    assert status == 401
    assert "engineroom dashboard" in text
    assert "set-cookie" not in headers
    assert shown.site.ask(path, cookie=shown.site.cookie[:-1] + "x")[0] == 401
    assert shown.site.ask(path, authorization="Bearer x")[0] == 401


def test_a_wrong_token_is_refused(shown: Shown):
    for token in ("", "x", shown.site.token[:-1], shown.site.token + "x"):
        status, headers, text = shown.site.ask(f"/?token={token}")
        assert status == 401
        assert "set-cookie" not in headers
        assert "not valid" in text


def test_the_token_becomes_a_cookie_that_only_this_site_sends(shown: Shown):
    status, headers, text = shown.site.ask(f"/?token={shown.site.token}")
    assert status == 200
    cookie = headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=" not in cookie, "a proxy's prefix is its path"
    assert shown.site.token not in headers["set-cookie"]
    assert shown.site.token not in text


def test_every_answer_has_the_headers_that_bind_the_browser(shown: Shown):
    for path in ("/", "/api/about", "/static/app.js", "/nothing"):
        headers = shown.site.ask(path, cookie=shown.site.cookie)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "[x"])
def test_another_host_name_is_refused(shown: Shown, name: str):
    status, headers, _ = shown.site.ask(f"/?token={shown.site.token}", host=name)
    assert status == 421
    assert "set-cookie" not in headers


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:99", "[::1]:8700"])
def test_the_names_of_this_host_are_good_at_any_port(shown: Shown, name: str):
    assert shown.site.ask("/api/about", host=name, cookie=shown.site.cookie)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"},
     {"sec_fetch_site": "same-site"}, {"origin": "http://127.0.0.1:1"}],
)  # fmt: skip
def test_other_web_sites_are_refused(shown: Shown, headers: dict[str, str]):
    assert shown.site.ask("/api/about", cookie=shown.site.cookie, **headers)[0] == 403
    body = json.dumps({"query": '{"state": "completed"}', "dry_run": False, "seen": 10**9})
    status = shown.site.ask("/api/act/purge", "POST", body, cookie=shown.site.cookie, x_engineroom_key=shown.site.key,
                            content_type="application/json", **headers)[0]  # fmt: skip
    assert status == 403


def test_an_action_needs_the_key_of_the_page_and_json(shown: Shown):
    body = json.dumps({"query": '{"state": "completed"}', "dry_run": True})
    site = shown.site
    right = {"cookie": site.cookie, "x_engineroom_key": site.key, "content_type": "application/json"}
    assert site.ask("/api/act/purge", "POST", body, **right)[0] == 200
    for name in right:
        assert site.ask("/api/act/purge", "POST", body, **{k: v for k, v in right.items() if k != name})[0] >= 400
    assert site.ask("/api/act/purge", "POST", body, **{**right, "content_type": "text/plain"})[0] == 415
    assert site.ask("/api/act/purge", "GET", **right)[0] == 405
    assert site.ask("/api/act/purge", "DELETE", **right)[0] == 405


def test_a_program_shows_the_token_in_a_header(shown: Shown):
    assert shown.site.ask("/api/about", authorization=f"Bearer {shown.site.token}")[0] == 200


def test_no_file_outside_of_its_own_is_given(shown: Shown):
    for name in ("../security.py", "%2e%2e/security.py", "/etc/passwd", "..%2fserver.py"):
        assert shown.site.ask(f"/static/{name}", cookie=shown.site.cookie)[0] == 404


def test_read_only_refuses_every_action(dead_file: tuple[Path, dict[str, str]]):
    running = Dead(dead_file[0], "--read-only")
    try:
        about = running.site.get("about")
        assert (about["read_only"], about["action_key"]) == (True, "")
        body = json.dumps({"query": '{"state": "completed"}', "dry_run": True})
        for path in ("act/purge", "act/resubmit", "engines/interrupt", "database/verify"):
            status, _, text = running.site.ask(f"/api/{path}", "POST", body, content_type="application/json",
                                               authorization=f"Bearer {running.site.token}")  # fmt: skip
            assert status == 403
            assert "--read-only" in text
        assert len(find(running.site)) == 38
    finally:
        assert running.stop() == 0


def test_a_proxy_with_another_name_is_named(dead_file: tuple[Path, dict[str, str]]):
    running = Dead(dead_file[0], "--allow-host=hub.example.org")
    try:
        site = running.site
        headers = {"host": "hub.example.org", "origin": "https://hub.example.org"}
        assert site.ask("/api/about", cookie=site.cookie, **headers)[0] == 200
        assert site.ask("/api/about", host="other.example.org", cookie=site.cookie)[0] == 421
    finally:
        running.stop()


def test_a_token_of_the_users_own_stays(dead_file: tuple[Path, dict[str, str]], tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("T" * 32)
    file.chmod(0o644)
    command = [sys.executable, "-m", "engineroom.cli.engineroom", "dashboard", str(dead_file[0])]
    done = subprocess.run([*command, f"--token-file={file}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    file.chmod(0o600)
    running = Dead(dead_file[0], f"--token-file={file}")
    assert running.site.token == "T" * 32
    running.stop()


# ---------------------------------------------------------------------------------------------- pages


def test_the_overview(place: tuple[Site, dict[str, str]], request: pytest.FixtureRequest):
    site, _ = place
    news = site.get("overview")
    assert news["problem"] is None
    is_live = "live" in request.node.name
    assert news["live"] == is_live
    assert news["states"] == {"completed": 35, "failed": 3}
    assert {failure["ename"] for failure in news["failures"]} == {"ZeroDivisionError"}
    if is_live:
        assert [engine["id"] for engine in news["engines"]] == [0, 1]
        assert news["hosts"][0]["engines"] == 2
        assert news["completed"] > 0
    else:
        news = wait_until(lambda: (now := site.get("overview")) and "past_engines" in now and now)
        assert sum(engine["completed"] for engine in news["past_engines"]) == 38
        rates, width = news["throughput"], news["bar_seconds"]
        assert round(sum(rate for _, rate in rates) * width) == 38


def test_news_come_as_a_stream(shown: Shown):
    link = http.client.HTTPConnection("127.0.0.1", shown.site.port, timeout=60)
    try:
        link.request("GET", "/api/events", headers={"Cookie": shown.site.cookie})
        answer = link.getresponse()
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        found = []
        while len(found) < 2:
            line = answer.readline().decode()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
        assert found[1]["now"] > found[0]["now"]
        assert found[1]["throughput"]
    finally:
        link.close()


def test_a_query_finds_sorts_and_pages(place: tuple[Site, dict[str, str]]):
    site, ids = place
    assert site.get("count", query='{"state": "failed"}') == {"count": 3}
    assert {row["error"] for row in find(site, {"state": "failed"})} == {"ZeroDivisionError: division by zero"}
    rows = find(site, sort="submitted", limit=10)
    assert rows[0]["msg_id"] == ids["ok"]
    assert rows[0]["what"].endswith("square")
    assert [row["msg_id"] for row in rows[5:]] == [
        row["msg_id"] for row in find(site, sort="submitted", skip=5, limit=5)
    ]
    assert len(site.get("tasks", query="{'metadata.run': 7}")["rows"]) == 3, "as a Python dict, too"
    assert len(site.get("tasks", query='{"submitted": {"$gt": "-1d"}}')["rows"]) == 38
    assert site.get("count", session="last") == {"count": 38}


@pytest.mark.parametrize(
    ("query", "words"),
    [('{"state": ', "a query is JSON or a Python dict"), ('{"stat": 1}', "stat"), ('{"state": "broken"}', "broken"),
     ('{"label": {"$near": 1}}', "$near"), ("[1]", "a query is a dict"), ('{"submitted": {"$gt": "soon"}}', "soon")],
)  # fmt: skip
def test_a_wrong_query_is_explained(place: tuple[Site, dict[str, str]], query: str, words: str):
    status, text = place[0].problem("tasks", query=query)
    assert status == 400
    assert words in text


def test_groups_have_counts_and_lead_to_their_tasks(place: tuple[Site, dict[str, str]]):
    site, _ = place
    by_label = {row["name"]: row["count"] for row in site.get("groups", by="label")["rows"]}
    assert by_label == {None: 30, HOSTILE: 3, "sweep": 3, "graph": 2}
    [error] = site.get("groups", by="error")["rows"]
    assert (error["name"], error["count"], error["evalue"]) == ("ZeroDivisionError", 3, "division by zero")
    assert error["first_seen"] <= error["last_seen"]
    assert len(find(site, error["query"])) == 3
    functions = {row["name"].rpartition(".")[2]: row for row in site.get("groups", by="function")["rows"]}
    assert {name: row["count"] for name, row in functions.items()} == {"square": 32, "divide": 6}
    assert site.get("count", query=json.dumps(functions["divide"]["query"])) == {"count": 6}
    assert site.problem("groups", by="colour")[0] == 400


def test_a_task_with_all_that_is_known(place: tuple[Site, dict[str, str]]):
    site, ids = place
    found = site.get(f"task/{ids['failed']}")
    record = found["record"]
    assert record["label"] == HOSTILE
    assert record["result_content"]["ename"] == "ZeroDivisionError"
    assert "divide" in str(record["result_content"]["traceback"])
    assert record["stdout"] == "dividing by 0\n"
    assert record["arguments"] == "(3)"
    assert "def divide" in found["provenance"]["function"]["source"]
    assert found["provenance"]["environment"]["packages"]
    assert ids["failed"] in found["code"]
    assert site.get(f"task/{ids['child']}")["parents"] == [ids["parent"]]
    assert [child["msg_id"] for child in site.get(f"task/{ids['parent']}/children")] == [ids["child"]]
    assert site.get(f"task/{ids['failed']}/output") == {"stdout": "dividing by 0\n", "stderr": "", "ended": True}


def test_the_stream_of_tasks(place: tuple[Site, dict[str, str]]):
    site, ids = place
    for by in ("label", "function", "state"):
        found = site.get("stream", by=by)
        assert found["count"] == len(found["tasks"]) == 38
        assert set(found["engines"]) <= {0, 1}
        of_failed = next(task for task in found["tasks"] if task[4] == ids["failed"])
        assert of_failed[5:7] == ["failed", HOSTILE]
        assert found["first"] <= of_failed[1] <= of_failed[2] <= found["last"]
    start, end = of_failed[1:3]
    assert ids["failed"] in [task[4] for task in site.get("stream", **{"from": start, "to": end})["tasks"]]
    assert site.problem("stream", by="size")[0] == 400
    assert site.problem("stream", **{"from": "x", "to": "y"})[0] == 400


def test_the_graph_around_a_task_and_of_a_query(place: tuple[Site, dict[str, str]]):
    site, ids = place
    for found in (
        site.get("graph", task=ids["child"]),
        site.get("graph", task=ids["parent"]),
        site.get("graph", query=json.dumps({"label": "graph"})),
    ):
        assert {node["id"]: node["layer"] for node in found["nodes"]} == {ids["parent"]: 0, ids["child"]: 1}
        assert found["edges"] == [[ids["parent"], ids["child"], "after"]]
    assert site.problem("graph", task="nosuch-1")[0] == 404


def test_the_database_and_a_check_of_it(place: tuple[Site, dict[str, str]]):
    site, _ = place
    found = site.get("database")
    assert found["records"] == 38
    assert found["used"] > 0
    assert found["can_check"]
    status, _ = site.post("database/verify")
    assert status == 200
    check = wait_until(lambda: (now := site.get("database")["check"]) and not now["running"] and now)
    assert check["findings"]["sound"]
    assert check["findings"]["good"] == 38


def test_prometheus_reads_metrics(place: tuple[Site, dict[str, str]]):
    site, _ = place
    status, headers, text = site.ask("/metrics", authorization=f"Bearer {site.token}")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'engineroom_tasks{state="failed"} 3' in text.splitlines()
    assert f"engineroom_up {int(site.get('overview')['live'])}" in text.splitlines()


def test_an_unknown_task_is_said(place: tuple[Site, dict[str, str]]):
    status, text = place[0].problem("task/nosuch-1")
    assert status == 404
    assert "nosuch-1" in text
    assert place[0].problem("task/nosuch-1/output")[0] == 404


# ---------------------------------------------------------------------------------------------- actions


def chat(folder: str) -> str:
    import time
    from pathlib import Path

    print("I have begun", flush=True)
    while not Path(folder, "enough").exists():
        time.sleep(0.01)
    return "done"


def test_what_a_running_task_prints_is_shown_and_it_can_be_cancelled(shown: Shown, tmp_path: Path):
    site, rc = shown.site, shown.rc
    with (view := rc.load_balanced_view()).temp_flags(label="chat"):
        result = view.apply(chat, str(tmp_path))
    id = result.msg_ids[0]
    try:
        wait_until(lambda: site.get(f"task/{id}/output") == {"stdout": "I have begun\n", "stderr": "", "ended": False})
        assert site.get(f"task/{id}")["explanation"]
        running = wait_until(lambda: [e["running"] for e in site.get("overview")["engines"] if e["running"]])
        assert running[0]["label"] == "chat"
        query = json.dumps({"label": "chat"})
        status, told = site.post("act/cancel", query=query, dry_run=True)
        assert (status, told["count"], told["dry_run"]) == (200, 1, True)
        assert not result.ready()
        assert site.post("act/cancel", query=query, dry_run=False)[0] == 409, "nothing was shown"
        assert site.post("act/cancel", query=query, dry_run=False, seen=1)[0] == 200
        with pytest.raises(er.TaskAborted):
            result.get(timeout=60)
    finally:
        (tmp_path / "enough").touch()
    wait_until(lambda: site.get(f"task/{id}/output")["ended"])
    assert site.post("act/purge", query=query, dry_run=False, seen=1)[1]["count"] == 1


def test_engines_are_interrupted_and_restarted(shown: Shown, tmp_path: Path):
    site, rc = shown.site, shown.rc
    result = rc[0].apply_async(chat, str(tmp_path))
    wait_until(lambda: "I have begun" in result.stdout)  # a signal that comes before that interrupts nothing
    wait_until(lambda: [e["running"] for e in site.get("overview")["engines"] if e["id"] == 0] != [None])
    assert site.post("engines/interrupt", engines=[0])[0] == 200
    with pytest.raises(er.RemoteError, match="KeyboardInterrupt"):
        result.get(timeout=60)
    before = {e["id"]: e["pid"] for e in site.get("overview")["engines"]}
    assert site.post("engines/restart", engines=[1])[0] == 200
    wait_until(lambda: {e["id"]: e["pid"] for e in site.get("overview")["engines"]}.get(1) not in (None, before[1]))
    assert any("engine 1" in warning["text"] for warning in site.get("overview")["warnings"])
    for path, engines in (("interrupt", []), ("interrupt", ["0"]), ("interrupt", [99]), ("explode", [0])):
        assert site.post(f"engines/{path}", engines=engines)[0] == 400
    rc.purge_results(jobs=result.msg_ids)


def test_logs_are_read_and_nothing_else(shown: Shown):
    site = shown.site
    names = [log["name"] for log in site.get("logs")]
    assert any(name.startswith("ipengine") for name in names)
    assert site.get("log", name=names[0])["name"] == names[0]
    for name in ("../security/cluster-shown.json", "/etc/passwd", "", "nosuch.log"):
        assert site.problem("log", name=name)[0] == 400


def test_failed_tasks_are_resubmitted_and_purged(shown: Shown):
    site, query = shown.site, json.dumps({"label": HOSTILE})
    before = site.get("count")["count"]
    assert site.post("act/resubmit", query=query, dry_run=False, seen=3)[1]["count"] == 3
    wait_until(lambda: site.get("count", query=json.dumps({"label": HOSTILE, "state": "failed"}))["count"] == 6)
    new = json.dumps({"label": HOSTILE, "resubmitted": None})
    assert site.post("act/purge", query=query, dry_run=False, seen=3)[0] == 409, "there are more than were shown"
    assert site.get("count")["count"] == before + 3
    assert site.post("act/purge", query=new, dry_run=True)[1]["count"] == 3
    assert site.post("act/purge", query=new, dry_run=False, seen=3)[1]["count"] == 3
    assert site.get("count")["count"] == before


@pytest.mark.parametrize("query", ["", "  ", "{}"])
def test_an_empty_query_acts_on_nothing(shown: Shown, query: str):
    status, told = shown.site.post("act/purge", query=query, dry_run=False, seen=10**9)
    assert status == 400
    assert "empty query" in told["error"]


def test_a_dead_file_can_be_purged_but_nothing_runs(dead_file: tuple[Path, dict[str, str]], tmp_path: Path):
    copy = tmp_path / "copy.db"
    shutil.copy(dead_file[0], copy)
    running = Dead(copy)
    try:
        query = json.dumps({"label": "sweep"})
        status, told = running.site.post("act/resubmit", query=query, dry_run=False, seen=3)
        assert status == 503
        assert "no cluster is running" in told["error"]
        assert running.site.post("act/purge", query=query, dry_run=False, seen=3)[1]["count"] == 3
        assert running.site.get("count") == {"count": 35}
    finally:
        running.stop()


# ---------------------------------------------------------------------------------------------- its process


def test_it_follows_a_cluster_whose_controller_is_killed_and_its_end(tmp_path: Path):
    cluster = er.Cluster(n=1, profile_dir=tmp_path / "profile_default", cluster_id="", dashboard=True)
    rc = cluster.start_and_connect_sync()
    try:
        shown = Shown(rc, {})
        first = shown.site.get("overview")
        assert first["live"]
        pid = cluster.controller.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: cluster.controller is not None and cluster.controller.pid != pid)
        wait_until(lambda: (news := shown.site.get("overview"))["live"] and news["engine_count"] == 1)
        assert rc.load_balanced_view().apply_sync(abs, -1) == 1
        wait_until(lambda: shown.site.get("count")["count"] == 1)
    finally:
        cluster.stop_cluster_sync()
    with pytest.raises(OSError):
        shown.site.ask("/")


def test_it_ends_with_a_cluster_that_is_killed(tmp_path: Path):
    script = tmp_path / "script.py"
    folder = str(tmp_path / "profile_default")
    script.write_text(
        "import engineroom as er, sys, time\n"
        f"cluster = er.Cluster(n=1, profile_dir={folder!r}, cluster_id='k', dashboard=True)\n"
        "cluster.start_cluster_sync(); print(cluster.dashboard_url, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    site = Site(process.stdout.readline().strip())
    site.log_in()
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not processes_of(tmp_path))
    assert list((tmp_path / "profile_default" / "security").iterdir()) == []


def test_a_file_that_is_not_there_or_is_none_is_said_at_once(tmp_path: Path):
    (tmp_path / "text.db").write_text("this is no database, and long enough to be looked at " * 100)
    for name in ("none.db", "text.db"):
        done = subprocess.run([sys.executable, "-m", "engineroom.cli.engineroom", "dashboard", str(tmp_path / name)],
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said(shown: Shown):
    command = [sys.executable, "-m", "engineroom.cli.engineroom", "dashboard", str(shown.database)]
    done = subprocess.run([*command, f"--port={shown.site.port}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"port {shown.site.port}" in done.stderr


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(er.ConfigError, match=r"engineroom\[dashboard\]"):
        er.Cluster(n=1, profile_dir=tmp_path / "profile_default", dashboard=True)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_export_has_every_record_that_matches(place: tuple[Site, dict[str, str]], kind: str):
    site, ids = place
    status, headers, text = site.ask(f"/api/export?format={kind}", cookie=site.cookie)
    assert (status, headers["content-disposition"]) == (200, f'attachment; filename="tasks.{kind}"')
    if kind == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
    found = [row["msg_id"] for row in rows]
    assert len(found) == len(set(found)) == site.get("count")["count"]
    assert set(ids.values()) <= set(found)
    assert "buffers" not in rows[0]


def test_an_export_that_cannot_be_is_explained(place: tuple[Site, dict[str, str]]):
    site, _ = place
    assert site.problem("export", query="{bad") == (400, site.problem("tasks", query="{bad")[1])
    assert "jsonl or csv" in site.problem("export", format="exe")[1]
    assert site.ask("/api/export")[0] == 401, "without the cookie"
    status, _, text = site.ask('/api/export?format=jsonl&query={"label":"nosuch"}', cookie=site.cookie)
    assert (status, text) == (200, "")


def test_the_past_ends_as_the_overview_is(dead: tuple[Site, dict[str, str]]):
    site, _ = dead
    now = site.get("overview")
    begin, end = now["throughput"][0][0] - 60, now["throughput"][-1][0] + 60
    before, after = site.get("past", at=begin), site.get("past", at=end)
    assert (before["states"], before["then_running"], before["failures"]) == ({}, [], [])
    assert after["states"] == now["states"]
    assert after["failures"] == now["failures"]
    assert after["labels"] == now["labels"]


def test_an_instant_of_the_past(dead_file: tuple[Path, dict[str, str]], dead: tuple[Site, dict[str, str]]):
    """While a task ran: it is there with its engine, and nothing of what came later is."""
    site, ids = dead
    records = [json.loads(line) for line in site.ask("/api/export", cookie=site.cookie)[2].splitlines()]
    [task] = [record for record in records if record["msg_id"] == ids["failed"]]
    times = [datetime.fromisoformat(task[key]).timestamp() for key in ("started", "completed")]
    found = site.get("past", at=sum(times) / 2)
    assert ids["failed"] in [row["running"]["msg_id"] for row in found["then_running"]]
    [row] = [row for row in found["then_running"] if row["running"]["msg_id"] == ids["failed"]]
    assert (row["id"], row["running"]["label"]) == (task["engine_id"], HOSTILE)
    submitted = sum(record["submitted"] <= task["completed"] for record in records)
    assert sum(found["states"].values()) <= submitted
    assert found["states"]["running"] == len(found["then_running"])
    assert ids["failed"] not in [failure["msg_id"] for failure in found["failures"]]


@pytest.mark.parametrize("at", ["", "x", "-1", "1e99"])
def test_no_instant_is_explained(dead: tuple[Site, dict[str, str]], at: str):
    assert dead[0].problem("past", at=at)[0] == 400
