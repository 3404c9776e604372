"""Somebody who looks at every page of a dashboard, as a browser does: in a process of their own, as a browser is."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, urlsplit

#: What viewers ask, again and again.
PAGES = (
    "/", "/static/app.js", "/api/overview", "/api/tasks?limit=50", "/api/count", "/api/groups?by=label",
    "/api/groups?by=error", "/api/database", "/api/logs", "/metrics", "/api/keys",
    "/api/tasks?query=" + quote('{"state": "failed"}'), "/api/graph?query=" + quote('{"label": "sweep-3"}'),
)  # fmt: skip
#: How many questions a browser has under way.
AT_ONCE = 8


class Viewer:
    """`url`: that of the dashboard, with its token."""

    def __init__(self, url: str, at_once: ThreadPoolExecutor) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._port, self._cookie, self._at_once = parts.port, "", at_once
        #: answers so far
        self.asked = 0
        _, headers, _ = self._ask(f"/?{parts.query}")
        [morsel] = SimpleCookie(headers["set-cookie"]).values()
        self._cookie = f"{morsel.key}={morsel.value}"

    def look(self, task: str) -> None:
        """Open every page once, and that of this task."""
        now = time.time()
        paths = (*PAGES, f"/api/stream?from={now - 60}&to={now}", f"/api/task/{task}")
        for path, (status, _, text) in zip(paths, self._at_once.map(self._ask, paths), strict=True):
            assert status == 200, (path, status, text)
        self._look_at_news()

    def _ask(self, path: str) -> tuple[int, dict[str, str], str]:
        """The status, the headers, and what an answer that is no success says."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            link.request("GET", path, headers={"Cookie": self._cookie} if self._cookie else {})
            answer = link.getresponse()
            content = answer.read(1 << 24)
            self.asked += 1
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, "" if answer.status == 200 else content[:500].decode(errors="replace")
        finally:
            link.close()

    def _look_at_news(self) -> None:
        """A page that is opened, and closed after its first news."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            link.request("GET", "/api/events", headers={"Cookie": self._cookie})
            link.getresponse().read1(1 << 16)
            self.asked += 1
        finally:
            link.close()


class FarViewer:
    """A viewer in another process. Made by `looking_at`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        #: answers so far
        self.asked = 0

    def look(self, task: str) -> None:
        """Open every page once, and that of this task."""
        self.tell(task)
        answer = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not answer:
            raise RuntimeError(f"the viewer has ended: exit code {self._process.wait()}")
        self.asked = int(answer)

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)


@contextmanager
def looking_at(url: str) -> Iterator[FarViewer]:
    """A viewer of this dashboard."""
    command, root = [sys.executable, "-m", "benchmarks.viewer"], Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        viewer = FarViewer(process)
        viewer.tell(url)
        yield viewer
        # its stdin is closed now: it ends


if __name__ == "__main__":
    with ThreadPoolExecutor(AT_ONCE) as pool:
        own = Viewer(sys.stdin.readline().strip(), pool)
        for line in sys.stdin:
            own.look(line.strip())
            print(own.asked, flush=True)
