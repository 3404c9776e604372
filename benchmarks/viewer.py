"""Somebody who looks at every page of a dashboard, as a browser does."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
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
    """`url`: that of the dashboard, with its token. Made by `looking_at`."""

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


@contextmanager
def looking_at(url: str) -> Iterator[Viewer]:
    """A viewer of this dashboard."""
    with ThreadPoolExecutor(AT_ONCE) as at_once:
        yield Viewer(url, at_once)
