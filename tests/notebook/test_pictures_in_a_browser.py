"""Pictures in a real browser, as a notebook's page has them: they are seen on light and dark, and run nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.browsers import Browser

from engineroom.client.pictures.graph import GraphPicture
from engineroom.client.pictures.history import HistoryPlot, Span
from engineroom.client.pictures.timeline import Ran, Timeline

pytestmark = pytest.mark.slow

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOSTILE = "</text></svg><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def pictures() -> str:
    rows = [Ran(HOSTILE, i % 3, at(i), at(i + 2), "completed", HOSTILE if i % 2 else "fit") for i in range(30)]
    many = [Ran(i, i % 3, at(i), at(i + 2), "failed" if i == 7 else "completed", HOSTILE) for i in range(3000)]
    spans = [Span(at(k), 1.0, HOSTILE, 3, 0.01, 0.02) for k in range(20)]
    graph = GraphPicture({HOSTILE: [], "b": [HOSTILE]}, {HOSTILE: "failed", "b": "pending"})
    found = [Timeline(rows), Timeline(many), graph, HistoryPlot(spans, {}, "label", (at(0), at(20)))]
    return "".join(picture._repr_html_() for picture in found)


@pytest.mark.parametrize(("back", "text"), [("#ffffff", "rgb(20, 20, 20)"), ("#111111", "rgb(230, 230, 230)")])
def test_pictures_have_the_colour_of_their_page_and_fit_it(browser: Browser, tmp_path: Path, back: str, text: str):
    page = tmp_path / "page.html"
    body = f'<body style="background:{back};color:{text};width:700px;margin:0">{pictures()}</body>'
    page.write_text(f'<!doctype html><meta charset="utf-8">{body}')
    script = "const page = await open(); await page.goto(given); await page.locator('svg').nth(3).waitFor();"
    browser.run(script, page.as_uri())
    script = """return await page.evaluate(() => [...document.querySelectorAll('svg')].map((svg) => {
        const frame = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text:not([fill])')];
        return {colours: [...new Set(texts.map((e) => getComputedStyle(e).fill))], width: frame.width,
          outside: texts.filter((e) => { const b = e.getBoundingClientRect();
            return b.right > frame.right + 2 || b.left < frame.left - 2 || b.bottom > frame.bottom + 2; })
            .map((e) => e.textContent)}; }))"""
    found = browser.run(script)
    assert [picture["colours"] for picture in found] == [[text]] * 4
    assert [picture["outside"] for picture in found] == [[]] * 4
    assert {picture["width"] for picture in found} == {700}
    assert browser.run("return await page.evaluate(() => window.broken)") is None
    assert browser.run("return found.messages") == []
    assert browser.run("return await page.locator('script, img').count()") == 0
