"""Real dashboards for tests, asked by HTTP and by a real browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from conftest import processes_of, wait_until
from support import browsers

import engineroom as er

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


class Site:
    """A dashboard, as a program sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host, self.token = parts.netloc, parts.query.removeprefix("token=")
        self.port = parts.port
        self.cookie = ""
        self.key = ""

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """The status, the headers (in small letters) and the body of an answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body, named)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        finally:
            link.close()

    def log_in(self) -> None:
        """Open the link, as a browser does."""
        status, headers, _ = self.ask(f"/?token={self.token}")
        assert status == 200
        [morsel] = SimpleCookie(headers["set-cookie"]).values()
        self.cookie = f"{morsel.key}={morsel.value}"
        self.key = self.get("about")["action_key"]

    def get(self, path: str, **params: Any) -> Any:
        """What the API answers."""
        status, _, text = self.ask(f"/api/{path}?{urlencode(params)}", cookie=self.cookie)
        assert status == 200, text
        return json.loads(text)

    def problem(self, path: str, **params: Any) -> tuple[int, str]:
        """What the API says is wrong."""
        status, _, text = self.ask(f"/api/{path}?{urlencode(params)}", cookie=self.cookie)
        assert status >= 400, text
        return status, json.loads(text)["error"]

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """The status and the answer of an action."""
        status, _, text = self.ask(
            f"/api/{path}", "POST", json.dumps(body), cookie=self.cookie, x_engineroom_key=self.key,
            content_type="application/json", origin=f"http://{self.host}",
        )  # fmt: skip
        return status, json.loads(text) if text.startswith("{") else text


class Dead:
    """`engineroom dashboard FILE`, in a process of its own."""

    def __init__(self, file: Path, *options: str) -> None:
        command = [sys.executable, "-m", "engineroom.cli.engineroom", "dashboard", str(file), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"the dashboard did not start: {line!r}"
        self.site = Site(found[0])
        self.site.log_in()

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def square(x: int) -> int:
    return x * x


def divide(x: int) -> float:
    print("dividing by", x - 3)
    return 1 / (x - 3)


def fill(rc: er.Client) -> dict[str, str]:
    """Have a cluster run some tasks of each kind; returns the ids of a few."""
    view = rc.load_balanced_view()
    results = [view.apply(square, i) for i in range(30)]
    with view.temp_flags(label=HOSTILE):
        failed = [view.apply(divide, i) for i in (3, 3, 3)]
    with view.temp_flags(label="sweep", metadata={"run": 7}):
        swept = [view.apply(divide, i) for i in range(3)]
    with view.temp_flags(label="graph"):
        parent = view.apply(square, 2)
        with view.temp_flags(after=[parent]):
            child = view.apply(square, 3)
    for result in [*results, *failed, *swept, parent, child]:
        result.wait(60)
    wait_until(lambda: rc.db_count({"completed": {"$ne": None}}) == 38)
    return {"ok": results[0].msg_ids[0], "failed": failed[0].msg_ids[0], "parent": parent.msg_ids[0],
            "child": child.msg_ids[0], "swept": swept[0].msg_ids[0]}  # fmt: skip


class Shown:
    """A running cluster with a dashboard, and some tasks."""

    def __init__(self, rc: er.Client, ids: dict[str, str]) -> None:
        assert rc.dashboard_url is not None
        self.rc, self.ids = rc, ids
        self.site = Site(rc.dashboard_url)
        self.site.log_in()

    @property
    def database(self) -> Path:
        return Path(self.rc.connection.database.removeprefix("sqlite://"))


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A running cluster of two engines with a dashboard, shared by tests that leave it as they found it."""
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("shown")
    cluster = er.Cluster(n=2, profile_dir=folder / "profile_default", cluster_id="shown", dashboard=True)
    try:
        rc = cluster.start_and_connect_sync()
        yield Shown(rc, fill(rc))
    finally:
        cluster.stop_cluster_sync()
    wait_until(lambda: not processes_of(folder))
    assert os.listdir(folder / "profile_default" / "security") == []


@pytest.fixture(scope="session")
def dead_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The database of a cluster that has ended, and ids of some of its tasks."""
    folder = tmp_path_factory.mktemp("dead")
    with er.Cluster(n=2, profile_dir=folder / "profile_default", cluster_id="dead") as rc:
        ids = fill(rc)
        file = Path(rc.connection.database.removeprefix("sqlite://"))
    return file, ids


@pytest.fixture(scope="session")
def dead(dead_file: tuple[Path, dict[str, str]]) -> Iterator[tuple[Site, dict[str, str]]]:
    """A dashboard of this database."""
    pytest.importorskip("uvicorn")
    running = Dead(dead_file[0])
    yield running.site, dead_file[1]
    assert running.stop() == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[browsers.Browser]:
    """A real browser."""
    why = browsers.problem()
    if why:
        pytest.skip(f"NO BROWSER: {why}. To have one, {browsers.HOW}")
    made = browsers.Browser()
    yield made
    made.close()
