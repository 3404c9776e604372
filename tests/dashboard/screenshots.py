"""Takes the pictures of the dashboard that docs/images/ has: `make screenshots`. Look at each before you commit it.

These are no tests of `make test`: they replace files of the documentation. The cluster is real, and so is the browser.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browsers import Browser

import engineroom as er

IMAGES = Path(__file__).parents[2] / "docs" / "images"
#: no picture is larger
MOST_BYTES = 150_000

#: picture → page, a selector of what must be there, the window's height, seconds until the picture is taken
SHOTS = {
    "overview": ("", "text=Last failures", 740, 40),  # its picture of the throughput begins when it is opened
    "tasks": ("tasks?by=label", "text=resample", 560, 1),
    "stream": ("stream", "main canvas", 410, 2),
    "task": ("task/{failed}", "text=Traceback >> visible=true", 690, 1),
    "graph": ("graph?task={report}", "svg a", 510, 1),
}

#: what the cluster computes: as in a script of a user, whose file has this name
STUDY = """
import random, time

def simulate(seed):
    chance = random.Random(seed)
    time.sleep(chance.uniform(0.2, 0.7))
    print("seed", seed, "energy", round(chance.gauss(0, 1), 3))
    return chance.random()

def resample(seed):
    time.sleep(0.05 + seed % 7 / 50)
    if seed % 23 == 7:
        raise ValueError(f"seed {seed}: the sample is empty")
    return 1 / (1 + seed)

def total(*parts):
    return sum(parts)
"""


def functions() -> dict[str, Any]:
    """The functions of STUDY, with tracebacks that name its file, and not one of this machine."""
    linecache.cache["study.py"] = (len(STUDY), None, STUDY.splitlines(keepends=True), "study.py")
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(STUDY, "study.py", "exec"), found)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster at work, and ids of a few of its tasks."""
    study = functions()
    simulate, resample, total = study["simulate"], study["resample"], study["total"]
    folder = tmp_path_factory.mktemp("night")
    with er.Cluster(n=4, profile_dir=folder / "profile_night", cluster_id="night", dashboard=True) as rc:
        view = rc.load_balanced_view()
        with view.temp_flags(label="resample", metadata={"study": 12}):
            view.map_async(resample, range(60)).wait(60)
        tasks = {name: (simulate, [number]) for number, name in enumerate(("north", "east", "south", "west"))}
        graph = {"report": ["mean", "spread"], "mean": list(tasks), "spread": list(tasks)}
        with view.temp_flags(label="report"):
            done = view.run_graph(graph, {**tasks, **dict.fromkeys(graph, total)}, pass_results=True)
            done.wait(60)
        queued = []
        for block in range(14):  # in turns, so that both show at any time
            for label, f, size in (("simulate", simulate, 40), ("resample", resample, 30)):
                with view.temp_flags(label=label, metadata={"study": 12}):
                    queued.append(view.map_async(f, range(100 * block, 100 * block + size)))
        [failed, *_] = rc.db_query({"state": "failed"}, keys=["msg_id"])
        yield str(rc.dashboard_url), {"failed": failed["msg_id"], "report": done["report"].msg_ids[0]}
        for result in queued:
            result.cancel()


@pytest.mark.parametrize("name", SHOTS)
def test_take(browser: Browser, place: tuple[str, dict[str, str]], name: str) -> None:
    url, ids = place
    page, selector, height, seconds = SHOTS[name]
    picture = IMAGES / f"{name}.png"
    browser.run(
        """const page = await open({ viewport: { width: 1200, height: given.height }, colorScheme: "light" });
        await page.goto(given.url); await page.waitForSelector("nav a");
        await page.evaluate((hash) => { location.hash = hash; }, "#/" + given.page);
        await page.locator(given.selector).first().waitFor();
        await page.waitForTimeout(given.seconds * 1000);
        await page.screenshot({ path: given.path });""",
        {"url": url, "page": page.format(**ids), "selector": selector, "height": height,
         "seconds": seconds, "path": str(picture)},
    )
    assert picture.stat().st_size < MOST_BYTES
