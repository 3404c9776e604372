"""What JupyterLab's panel asks of a real Jupyter server: clusters, and their dashboards."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until
from support.jupyterlab import Server

import engineroom as er

pytestmark = pytest.mark.slow

CLUSTERS = "/engineroom/clusters"


class Asked:
    """A Jupyter server, and what it answers to a program that has its token."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.profile_dir = server.folder / "ipython" / "profile_default"

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any, str]:
        """Status, headers and text of an answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            link.request(method, path, None if body is None else json.dumps(body), named)
            answer = link.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            link.close()

    def allowed(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any, str]:
        return self.ask(path, method, body, authorization=f"token {self.server.token}", **headers)

    def did(self, method: str, key: str = "", **body: Any) -> Any:
        """The answer to an action that succeeds."""
        status, _, text = self.allowed(f"{CLUSTERS}/{key}" if key else CLUSTERS, method, body)
        assert status == 200, text
        return json.loads(text)

    def refused(self, method: str, key: str = "", **body: Any) -> str:
        """The message of an action that is a mistake."""
        status, _, text = self.allowed(f"{CLUSTERS}/{key}" if key else CLUSTERS, method, body)
        assert 400 <= status < 500, text
        return json.loads(text)["message"]

    def logged_in(self) -> tuple[str, str]:
        """The cookies of a browser that has opened the server's link, and the token against XSRF among them."""
        _, headers, _ = self.ask(f"/tree?token={self.server.token}")
        cookies = SimpleCookie()
        for line in headers.get_all("set-cookie"):
            cookies.load(line)
        return "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items()), cookies["_xsrf"].value

    def clusters(self) -> dict[str, Any]:
        status, _, text = self.allowed(CLUSTERS)
        assert status == 200, text
        return {each["key"]: each for each in json.loads(text)["clusters"]}

    def until(self, key: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The cluster with this key, once a condition holds for it."""
        return wait_until(lambda: (each := self.clusters().get(key)) and condition(each) and each)

    def start(self, **wish: Any) -> str:
        """The key of a cluster that runs, with its engines."""
        key = self.did("POST", n=1, **wish)["key"]
        self.until(key, lambda each: each["state"] == "running" and each["engines"] == 1)
        return key


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    pytest.importorskip("jupyter_server", reason="Jupyter server is not installed")
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, "jupyter_server")
    try:
        server.start()
        server.wait()
        yield Asked(server)
    finally:
        server.stop()
    wait_until(lambda: not processes_of(folder))
    assert "Traceback" not in server.log.read_text()


def test_a_cluster_is_started_scaled_and_stopped(asked: Asked):
    key = asked.did("POST", n=1, cluster_id="first")["key"]
    assert key == "default:first"
    assert asked.clusters()[key]["state"] in ("starting", "running")
    shown = asked.until(key, lambda each: each["state"] == "running" and each["engines"] == 1)
    assert shown["tasks"] == 0
    assert shown["problem"] == ""
    assert shown["ends_with_jupyter"]
    assert "rc = er.Client(cluster_id='first')" in shown["code"]
    with er.Client(profile_dir=asked.profile_dir, cluster_id="first") as rc:
        assert rc[:].apply_sync(abs, -1) == [1]
    asked.did("PATCH", key, n=2)
    asked.until(key, lambda each: each["state"] == "running" and each["engines"] == 2)
    asked.did("PATCH", key, n=1)
    asked.until(key, lambda each: each["state"] == "running" and each["engines"] == 1)
    asked.did("DELETE", key)
    assert key not in asked.clusters()
    assert "no cluster" in asked.refused("DELETE", key)
    assert "no cluster" in asked.refused("PATCH", key, n=1)


def test_a_new_id_is_made_if_none_is_given_and_a_used_one_is_refused(asked: Asked):
    key = asked.start()
    profile, _, cluster_id = key.partition(":")
    assert (profile, len(cluster_id)) == ("default", 8)
    assert "running already" in asked.refused("POST", n=1, cluster_id=cluster_id)
    asked.did("DELETE", key)


def test_clusters_of_others_are_listed_scaled_and_stopped(asked: Asked):
    with er.Cluster(n=1, profile_dir=asked.profile_dir, cluster_id="others") as rc:
        key = "default:others"
        shown = asked.until(key, lambda each: each["engines"] == 1)
        assert shown["state"] == "running"
        assert not shown["ends_with_jupyter"]
        asked.did("PATCH", key, n=2)
        asked.until(key, lambda each: each["engines"] == 2)
        wait_until(lambda: len(rc) == 2)
        asked.did("DELETE", key)
        assert key not in asked.clusters()
        wait_until(lambda: not [p for p in processes_of(asked.profile_dir) if "-others" in " ".join(p.cmdline())])


def test_a_cluster_that_others_stop_is_gone_and_one_that_is_killed_says_so(asked: Asked):
    key = asked.start(cluster_id="gone")
    er.Cluster.from_file(profile_dir=asked.profile_dir, cluster_id="gone").stop_cluster_sync()
    wait_until(lambda: key not in asked.clusters())
    with er.Cluster(n=0, profile_dir=asked.profile_dir, cluster_id="dead", shutdown_atexit=False) as rc:
        cluster = rc.cluster
        cluster._restarts.refuse()
        os.kill(cluster.controller.pid, signal.SIGKILL)
        shown = asked.until("default:dead", lambda each: each["state"] == "killed")
        assert "records are safe" in shown["problem"]
        asked.did("DELETE", "default:dead")
        assert "default:dead" not in asked.clusters()


def test_mistakes_are_answered_with_what_to_do(asked: Asked):
    assert "from 0 to" in asked.refused("POST", n=-1)
    assert "made of letters" in asked.refused("POST", n=1, cluster_id="a b")
    assert "made of letters" in asked.refused("POST", n=1, profile="../x")
    assert "unknown field" in asked.refused("POST", n=1, colour="red")
    assert "Expected `int" in asked.refused("POST", n="many")
    assert "no cluster" in asked.refused("PATCH", "default:none", n=1)
    assert asked.clusters() == {}


def test_a_cluster_that_cannot_start_says_why_until_it_is_forgotten(asked: Asked):
    folder = asked.server.folder / "ipython" / "profile_broken"
    folder.mkdir(parents=True)
    (folder / "ipcluster_config.py").write_text("c.Cluster.controller_args = ['--colour=red']\n")
    key = asked.did("POST", n=1, profile="broken", cluster_id="x")["key"]
    shown = asked.until(key, lambda each: each["state"] == "failed")
    assert "the controller did not start" in shown["problem"]
    assert "colour" in shown["problem"]
    (folder / "ipcluster_config.py").write_text("")
    assert asked.start(profile="broken", cluster_id="x") == key  # the same again, mended
    asked.did("DELETE", key)
    (folder / "ipcluster_config.py").write_text("c.Cluster.engine_args = ['--colour=red']\n")
    asked.did("POST", n=1, profile="broken", cluster_id="y")
    shown = asked.until("broken:y", lambda each: each["problem"])
    assert shown["state"] == "running"  # without engines, which is why it says so
    asked.did("DELETE", "broken:y")
    assert asked.clusters() == {}


def test_who_may_ask_is_decided_by_jupyter(asked: Asked):
    assert asked.ask(CLUSTERS)[0] == 403
    assert asked.ask(f"{CLUSTERS}/default:x/dashboard/")[0] in (302, 403)
    cookie, token = asked.logged_in()
    assert asked.ask(CLUSTERS, cookie=cookie)[0] == 200
    for method in ("POST", "DELETE", "PATCH"):
        path = CLUSTERS if method == "POST" else f"{CLUSTERS}/default:x"
        assert asked.ask(path, method, {"n": -1}, cookie=cookie)[0] == 403, "without XSRF's token"
    assert asked.ask(CLUSTERS, "POST", {"n": -1}, cookie=cookie, x_xsrftoken=token)[0] == 400
    foreign = {"cookie": cookie, "x_xsrftoken": token, "origin": "http://elsewhere.example"}
    assert asked.ask(CLUSTERS, "POST", {"n": -1}, **foreign)[0] in (403, 404)


def test_the_dashboard_is_behind_the_server(asked: Asked):
    key = asked.start(cluster_id="seen")
    below = f"{CLUSTERS}/{key}/dashboard/"
    status, headers, text = asked.allowed(f"{below}?token={asked.server.token}")
    assert status == 200
    assert "<title>Engineroom</title>" in text
    assert "script-src 'self'" in headers["content-security-policy"]
    assert headers.get_all("set-cookie") is None or "engineroom" not in str(headers.get_all("set-cookie"))
    assert asked.allowed(f"{below}static/app.js")[0] == 200
    about = json.loads(asked.allowed(f"{below}api/about")[2])
    assert "'seen'" in about["name"]
    json_body = {"content_type": "application/json"}
    act = f"{below}api/engines/interrupt"
    assert asked.allowed(act, "POST", {"engines": [0]}, **json_body)[0] == 403, "without the dashboard's own key"
    keyed = {**json_body, "x_engineroom_key": about["action_key"]}
    assert asked.allowed(act, "POST", {"engines": [0]}, **keyed)[0] == 200
    assert asked.ask(act, "POST", {"engines": [0]}, **keyed)[0] in (302, 403), "without Jupyter's authentication"
    cookie = asked.logged_in()[0]
    assert asked.ask(act, "POST", {"engines": [0]}, **keyed, cookie=cookie)[0] == 200
    assert asked.ask(act, "POST", {"engines": [0]}, **keyed, cookie=cookie, origin="http://elsewhere.example")[0] == 403
    assert asked.allowed(f"{below}api/about", sec_fetch_site="cross-site")[0] == 403
    assert "no cluster 'default:none'" in asked.allowed(f"{CLUSTERS}/default:none/dashboard/")[2]
    link = http.client.HTTPConnection("127.0.0.1", asked.server.port, timeout=60)
    link.request("GET", f"{below}api/events", headers={"authorization": f"token {asked.server.token}"})
    events = link.getresponse()
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.readline().startswith(b"retry:")
    events.close()
    link.close()
    asked.did("DELETE", key)
    wait_until(lambda: not processes_of(asked.profile_dir))
    assert asked.allowed(below)[0] == 404


def test_clusters_end_with_the_server_but_those_that_are_kept(tmp_path: Path):
    pytest.importorskip("jupyter_server", reason="Jupyter server is not installed")
    server = Server(tmp_path, "jupyter_server")
    asked = Asked(server)
    try:
        server.start()
        server.wait()
        asked.start(cluster_id="ends")
        asked.start(cluster_id="stays", keep=True)
    finally:
        server.stop()
    wait_until(lambda: not [p for p in processes_of(tmp_path) if "ends" in " ".join(p.cmdline())])
    kept = er.Cluster(profile_dir=asked.profile_dir)  # a notebook after the restart takes it over
    assert kept.cluster_id == "stays"
    with kept.start_and_connect_sync() as rc:
        assert rc[:].apply_sync(abs, -2) == [2]
    kept.stop_cluster_sync()
    wait_until(lambda: not processes_of(tmp_path))
