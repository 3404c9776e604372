"""Is the memory of a dashboard steady? A cluster runs tasks, viewers look at every page, for as long as you say.

    python -m benchmarks.dashboard_soak --minutes=60

It prints the memory of the dashboard's process once a minute, and at the end how much it grew in the second half. Exit
code 1: it grew by more than `MOST_GROWTH`.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

import engineroom as er

#: Growth in the second half of the time, as a part of the memory in its middle.
MOST_GROWTH = 0.05
#: What viewers ask, again and again.
PAGES = (
    "/", "/static/app.js", "/api/overview", "/api/tasks?limit=50", "/api/count", "/api/groups?by=label",
    "/api/groups?by=error", "/api/database", "/api/logs", "/metrics", "/api/keys",
    "/api/tasks?query=" + quote('{"state": "failed"}'), "/api/graph?query=" + quote('{"label": "sweep-3"}'),
)  # fmt: skip
#: Tasks of one round, and seconds between two rounds.
TASKS, ROUND_SECONDS = 40, 1.0


def work(x: int) -> int:
    if x % 20 == 7:
        raise ValueError(f"item {x}")
    return x * x


class Viewer:
    """Asks the dashboard, as a browser does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._port, self._cookie, self.asked = parts.port, "", 0
        _, headers, _ = self.ask(f"/?{parts.query}")
        [morsel] = SimpleCookie(headers["set-cookie"]).values()
        self._cookie = f"{morsel.key}={morsel.value}"

    def ask(self, path: str) -> tuple[int, dict[str, str], str]:
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

    def look_at_news(self) -> None:
        """A page that is opened, and closed after its first news."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            link.request("GET", "/api/events", headers={"Cookie": self._cookie})
            link.getresponse().read1(1 << 16)
            self.asked += 1
        finally:
            link.close()


def dashboard_of(port: int | None) -> psutil.Process:
    """The process that listens on a port of this host."""
    for process in psutil.process_iter():
        try:
            if any(c.status == "LISTEN" and c.laddr.port == port for c in process.net_connections("tcp")):
                return process
        except psutil.Error:
            continue
    raise LookupError(f"no process listens on port {port}")


def soak(minutes: float) -> int:
    samples: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        er.Cluster(n=2, profile_dir=Path(folder) / "profile_default", dashboard=True) as rc,
        ThreadPoolExecutor(8) as at_once,  # as browsers do: the dashboard soon has all of its threads
    ):
        url = rc.dashboard_url
        assert url is not None
        viewer, process, view = Viewer(url), dashboard_of(urlsplit(url).port), rc.load_balanced_view()
        begin, seen, rounds = time.monotonic(), 0, 0
        while (passed := time.monotonic() - begin) < 60 * minutes:
            with view.temp_flags(label=f"sweep-{rounds % 50}"):
                view.map_async(work, range(TASKS), chunksize=1)
            now = time.time()
            paths = (*PAGES, f"/api/stream?from={now - 60}&to={now}", f"/api/task/{rc.history[-1]}")
            for path, (status, _, text) in zip(paths, at_once.map(viewer.ask, paths), strict=True):
                assert status == 200, (path, status, text)
            viewer.look_at_news()
            rounds += 1
            samples.append((passed, process.memory_info().rss / 2**20))
            if passed >= 60 * seen:
                print(f"{seen:4} min  {samples[-1][1]:7.1f} MiB  {viewer.asked:,} answers  "
                      f"{rounds * TASKS:,} tasks", flush=True)  # fmt: skip
                seen += 1
            time.sleep(max(0.0, ROUND_SECONDS * rounds - (time.monotonic() - begin)))
    return told(samples)


def told(samples: list[tuple[float, float]]) -> int:
    """Print how the memory grew; returns the exit code."""

    def about(part: float) -> float:
        """The median of a tenth of the samples around a part of the time."""
        place, some = int(part * (len(samples) - 1)), max(1, len(samples) // 10)
        near = sorted(rss for _, rss in samples[max(0, place - some) : place + 1])
        return near[len(near) // 2]

    first, middle, last = about(0.1), about(0.5), about(1.0)
    growth = (last - middle) / middle
    print(f"memory: {first:.1f} MiB in the beginning, {middle:.1f} in the middle, {last:.1f} at the end")
    print(f"growth in the second half: {growth:+.1%}; at most {MOST_GROWTH:.0%} is good")
    return int(growth > MOST_GROWTH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    sys.exit(soak(parser.parse_args().minutes))
