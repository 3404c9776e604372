"""The documentation site: what is wrong with a page ends its build; what was built asks no address and can be searched.

`make docs` builds the site, and `make test` does so before it runs these tests.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.browsers import Browser

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "docs" / "site" / "build.py"
SITE = ROOT / "build" / "site"
IMAGES = ROOT / "docs" / "images"

needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="NO SPHINX: pip install 'engineroom[docs]'"
)
needs_site = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="NO SITE: `make docs` builds it")

#: what a browser loads by itself; links that a reader clicks may lead anywhere
LOADED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']([^"']+)|<link\b[^>]*\shref=["']([^"']+)""")


# ---------------------------------------------------------------------------------------------- what ends a build


def built(folder: Path, **pages: str) -> subprocess.CompletedProcess[str]:
    """A build of a site of few pages."""
    (folder / "docs").mkdir()
    for name, text in pages.items():
        (folder / "docs" / f"{name}.md").write_text(text)
    command = [sys.executable, str(BUILD), "--top", str(folder), "--output", str(folder / "site")]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@needs_sphinx
@pytest.mark.slow
def test_each_mistake_is_an_error_and_is_named(tmp_path: Path):
    done = built(
        tmp_path,
        index="# A\n\n[b](b.md) [c](c.md) [d](b.md#there)\n\n:::{toctree}\nb\n:::\n",
        b="# B\n\n## Here\n\n![no picture](nothing.png)\n\n```{eval-rst}\n.. autofunction:: engineroom.no_such\n```\n",
        forgotten="# Nobody leads here\n",
    )
    assert done.returncode != 0
    for mistake in ("'c.md'", "'there'", "forgotten.md: WARNING", "nothing.png", "no_such"):
        assert mistake in done.stderr
    assert "was not built" in done.stderr


@needs_sphinx
@pytest.mark.slow
def test_a_site_without_mistakes_is_built(tmp_path: Path):
    (tmp_path / "examples").mkdir()
    index = "# A\n\n[d](b.md#here), [the folder](../examples/)\n\n:::{toctree}\nb\n:::\n"
    done = built(tmp_path, index=index, b="# B\n\n## Here\n")
    assert (done.returncode, done.stderr) == (0, "")
    made = (tmp_path / "site" / "docs" / "index.html").read_text()
    assert 'href="b.html#here"' in made
    assert ">the folder</span>" in made
    assert "../examples" not in made, "a link to a folder is only its text in the site"


# ---------------------------------------------------------------------------------------------- what was built


@needs_site
def test_no_page_loads_anything_from_elsewhere():
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = ["".join(found) for found in LOADED.findall(page.read_text())]
        assert [url for url in loaded if re.match(r"(\w+:)?//", url)] == [], page.name
    for style in SITE.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(\w+:)?//", style.read_text()), style.name


@needs_site
@pytest.mark.slow
def test_it_is_read_and_searched_without_a_network(browser: Browser):
    """From files: no server, and no other address. (The results have no excerpts then: browsers do not fetch files.)"""
    browser.run(
        """const page = await open(); await page.goto(given); await page.waitForSelector("text=Start here");
        await page.goto(given.replace("index.html", "search.html") + "?q=resubmit");
        await page.waitForSelector("#search-results li a");""",
        (SITE / "index.html").as_uri(),
    )
    found = browser.run("return await page.locator('#search-results li a').allInnerTexts()")
    assert any("Records" in title for title in found)
    assert browser.run("return found.requests.filter((r) => !r.startsWith('file:'))") == []
    complaints = browser.run("return found.messages.filter((m) => m.startsWith('error'))")
    assert [text for text in complaints if "fetch" not in text and "ERR_FAILED" not in text] == []


@needs_site
@pytest.mark.slow
def test_pages_fit_a_phone(browser: Browser):
    browser.run("await open(given)", {"viewport": {"width": 390, "height": 844}})
    for name in ("index", "settings", "records", "api/clients"):
        wide = browser.run(
            """await page.goto(given, { waitUntil: "domcontentloaded" }); await page.waitForSelector("h1");
            return await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)""",
            (SITE / "docs" / f"{name}.html").as_uri(),
        )
        assert wide <= 0, f"{name} is wider than the window"


# ---------------------------------------------------------------------------------------------- pictures


def test_pictures_are_small_and_shown():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for picture in IMAGES.iterdir():
        assert picture.stat().st_size < 150_000, f"{picture.name}: take it anew with `make screenshots`"
        assert f"images/{picture.name})" in pages, f"no page shows {picture.name}"
