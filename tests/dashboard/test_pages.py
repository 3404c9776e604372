"""The pages of the dashboard in a real browser: on a running cluster, and on the database of one that has ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from support.browsers import Browser
from support.dashboards import HOSTILE, Dead, Shown, Site
from support.entries import of_engines

import engineroom as er
from engineroom.stores import SQLiteDB

pytestmark = pytest.mark.slow

#: page → a selector of what shows that it is there
PAGES = {
    "": "text=Last failures",
    "tasks": "tbody tr",
    "tasks?by=error": "text=ZeroDivisionError",
    "tasks?by=label": "text=sweep",
    "stream": "text=38 tasks ended",
    "graph?task={child}": "svg a",
    "engines": "text=Logs",
    "database": "dt:has-text('records')",
    "task/{failed}": "text=Traceback >> visible=true",
}


@pytest.fixture(params=["live", "dead"])
def place(request: pytest.FixtureRequest) -> tuple[Site, dict[str, str]]:
    """Both kinds of dashboards."""
    if request.param == "live":
        found: Shown = request.getfixturevalue("shown")
        return found.site, found.ids
    both: tuple[Site, dict[str, str]] = request.getfixturevalue("dead")
    return both


def opened(browser: Browser, url: str, **options: Any) -> None:
    """A fresh browser opens a dashboard by its link."""
    code = "const page = await open(given.options); await page.goto(given.url); await page.waitForSelector('nav a');"
    browser.run(code, {"url": url, "options": options})


def go(browser: Browser, hash: str, selector: str) -> None:
    """Open a page, and wait until something is there."""
    code = """await page.evaluate((hash) => { location.hash = hash; }, '#/' + given.hash);
        await page.locator(given.selector).first().waitFor();"""
    browser.run(code, {"hash": hash, "selector": selector})


def text_of(browser: Browser, selector: str = "main") -> str:
    found: str = browser.run("return await page.locator(given).first().innerText()", selector)
    return found


def sound(browser: Browser, site: Site) -> None:
    """No page has complained, run what a label says, or asked another address."""
    assert browser.run("return found.messages") == []
    assert browser.run("return await page.evaluate(() => window.broken)") is None
    asked = set(browser.run("return found.requests.map((r) => new URL(r).host)"))
    assert asked <= {site.host}


# ---------------------------------------------------------------------------------------------- each page


def test_each_page(browser: Browser, place: tuple[Site, dict[str, str]], request: pytest.FixtureRequest):
    site, ids = place
    theme = "light" if "live" in request.node.name else "dark"
    opened(browser, site.url, colorScheme=theme)
    assert "token" not in browser.run("return page.url()")
    backs = set()
    for hash, selector in PAGES.items():
        if hash == "stream":  # of a running cluster it shows the last minute, and the tasks may have ended earlier
            go(browser, hash, "text=Everything")
            browser.run("await page.getByRole('button', {name: 'Everything'}).click();")
        go(browser, hash.format(**ids), selector)
        backs.add(browser.run("return await page.evaluate(() => getComputedStyle(document.body).backgroundColor)"))
        wide = browser.run("return await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)")
        assert wide <= 0, f"{hash} is wider than the window"
        nameless = browser.run(
            "return await page.evaluate(() => [...document.querySelectorAll('button, a[href], input, textarea')]"
            ".filter((e) => !(e.innerText || e.getAttribute('aria-label') || e.labels?.length || e.title).trim?.())"
            ".filter((e) => !e.labels?.length).map((e) => e.outerHTML))"
        )
        assert nameless == [], "everything that can be used has a name"
    assert backs == {"rgb(246, 247, 249)" if theme == "light" else "rgb(18, 22, 29)"}
    sound(browser, site)


def test_a_hostile_label_is_a_text(browser: Browser, place: tuple[Site, dict[str, str]]):
    site, ids = place
    opened(browser, site.url)
    for hash in ("", "tasks", "tasks?by=label", f"task/{ids['failed']}"):
        go(browser, hash, f"text={HOSTILE[:30]}")
        assert HOSTILE in text_of(browser)
        assert browser.run("return await page.locator('main script, main img[src=x]').count()") == 0
    sound(browser, site)


def test_a_wrong_token_shows_how_to_get_the_right_one(browser: Browser, shown: Shown):
    browser.run("await open(); await found.page.goto(given);", shown.site.url[:-3] + "abc")
    assert "engineroom dashboard" in text_of(browser)
    browser.run("await open(); await found.page.goto(given);", f"http://{shown.site.host}/")
    assert "Open the dashboard with its link" in text_of(browser)


def test_another_web_site_can_read_and_do_nothing(browser: Browser, shown: Shown):
    """A page of another origin, in a browser that has our cookie."""
    opened(browser, shown.site.url)
    with serving(Evil) as evil:
        code = """await page.goto(given.evil);
            return await page.evaluate(async (host) => {
                const ways = [fetch(`http://${host}/api/about`, { credentials: "include" }).then((r) => r.text()),
                    fetch(`http://${host}/api/act/purge`, { method: "POST", credentials: "include", mode: "no-cors",
                        body: JSON.stringify({ query: '{"state": "completed"}', dry_run: false, seen: 1e9 }) })
                        .then((r) => r.type)];
                return (await Promise.allSettled(ways)).map((w) => (w.status === "fulfilled" ? w.value : "refused"));
            }, given.host);"""
        read, did = browser.run(code, {"evil": f"http://localhost:{evil}/", "host": shown.site.host})
    assert read == "refused"
    assert did in ("refused", "opaque")
    assert shown.site.get("count")["count"] == 38


def test_a_link_on_another_site_opens_it(browser: Browser, shown: Shown):
    with serving(Evil) as other:
        code = """const page = await open(); await page.goto(given.other);
            await page.evaluate((url) => { const a = document.createElement("a"); a.href = url; a.textContent = "open";
                document.body.append(a); a.click(); }, given.url);
            await page.waitForSelector("nav a"); await page.waitForSelector("text=Last failures");"""
        browser.run(code, {"other": f"http://localhost:{other}/", "url": shown.site.url})
    sound_messages = browser.run("return found.messages.filter((m) => !m.includes('favicon'))")
    assert [m for m in sound_messages if "404" not in m and "501" not in m] == []


# ---------------------------------------------------------------------------------------------- by keyboard


def test_a_query_is_typed_and_completed_by_keyboard_alone(browser: Browser, dead: tuple[Site, dict[str, str]]):
    site, _ = dead
    opened(browser, site.url)
    go(browser, "tasks", "tbody tr")
    browser.run("""await page.locator("#query").focus();
        await page.keyboard.type('{"result_content.en'); await page.waitForSelector("#suggestions li");
        await page.keyboard.press("ArrowDown"); await page.keyboard.press("Enter");""")
    assert browser.run("return await page.inputValue('#query')") == '{"result_content.ename"'
    browser.run("""await page.keyboard.type(': "ZeroDivisionError"}'); await page.keyboard.press("Enter");
        await page.waitForSelector("text=3 tasks match");""")
    assert "ZeroDivisionError" in browser.run("return decodeURIComponent(page.url())")
    browser.run("""await page.fill("#query", '{"stat": 1}'); await page.keyboard.press("Enter");
        await page.waitForSelector(".wrong:visible");""")
    assert "stat" in text_of(browser, ".wrong")
    browser.run("""await page.goBack(); await page.waitForSelector("text=3 tasks match");""")
    reached = browser.run("""await page.reload(); await page.waitForSelector("tbody tr"); const names = [];
        for (let i = 0; i < 12; i++) { await page.keyboard.press("Tab");
            names.push(await page.evaluate(() => document.activeElement.innerText || document.activeElement.id)); }
        return names;""")
    assert reached[0] == "Skip to the page"
    assert "Tasks" in reached
    assert "query" in reached


def test_the_stream_is_zoomed_and_leads_to_a_task(browser: Browser, dead: tuple[Site, dict[str, str]]):
    site, _ = dead
    opened(browser, site.url)
    go(browser, "stream", "text=38 tasks ended")
    browser.run("""await page.focus("main canvas"); await page.keyboard.press("+");
        await page.waitForFunction(() => !document.querySelector("main").innerText.includes("38 tasks ended"));
        await page.keyboard.press("0"); await page.waitForSelector("text=38 tasks ended");""")
    browser.run("""const found = await (await page.request.get(page.url().split("#")[0] + "api/stream")).json();
        const [engine, from, to, , id] = found.tasks.reduce((a, b) => (b[2] - b[1] > a[2] - a[1] ? b : a));
        const box = await page.locator("main canvas").boundingBox(), row = found.engines.indexOf(engine);
        const at = (from + to) / 2, share = (at - found.from) / (found.to - found.from);
        await page.mouse.click(box.x + 52 + share * (box.width - 60), box.y + 6 + 24 * row + 10);
        await page.waitForFunction((id) => location.hash.startsWith("#/task/"), id);""")
    sound(browser, site)


def test_a_purge_shows_a_dry_run_first(browser: Browser, shown: Shown):
    view = shown.rc.load_balanced_view()
    with view.temp_flags(label="doomed"):
        results = [view.apply(abs, i) for i in range(4)]
    for result in results:
        result.wait(60)
    query = json.dumps({"label": "doomed"})
    wait_until(lambda: shown.rc.db_count({"label": "doomed", "state": "completed"}) == 4)
    opened(browser, shown.site.url)
    go(browser, "tasks", "tbody tr")
    browser.run("""await page.fill("#query", given); await page.press("#query", "Enter");
        await page.waitForSelector("text=4 tasks match"); await page.click("button:has-text('Purge …')");
        await page.waitForSelector("dialog >> text=would purge 4 tasks");""", query)
    assert results[0].msg_ids[0] in text_of(browser, "dialog")
    browser.run("await page.keyboard.press('Escape'); await page.waitForSelector('dialog', { state: 'detached' });")
    assert shown.rc.db_count({"label": "doomed"}) == 4
    browser.run("""await page.click("button:has-text('Purge …')"); 
        await page.click("dialog button:has-text('Purge 4 tasks')");
        await page.waitForSelector("dialog >> text=Done"); await page.click("text=Close");
        await page.waitForSelector("text=No task matches.");""")
    assert shown.rc.db_count({"label": "doomed"}) == 0
    sound(browser, shown.site)


def test_the_overview_of_a_dead_file_at_a_moment_of_its_past(browser: Browser, dead: tuple[Site, dict[str, str]]):
    site, _ = dead
    opened(browser, site.url)
    go(browser, "", "text=as it was at the end")
    browser.run("await page.fill('#moment', '0'); await page.waitForSelector('text=Engines that ran something then');")
    assert "completed" in text_of(browser, ".numbers")
    assert "No task has failed." in text_of(browser)
    browser.run("await page.click('text=The end'); await page.waitForSelector('text=Engines that ran tasks');")
    assert "ZeroDivisionError" in text_of(browser)
    sound(browser, site)


def test_ten_thousand_engines_in_a_browser(browser: Browser, tmp_path: Path):
    with contextlib.closing(SQLiteDB(tmp_path / "tasks.db")) as store:
        store.write(of_engines(10_000))
    many = Dead(tmp_path / "tasks.db")
    try:
        opened(browser, many.site.url)
        pages = {
            "": "text=These 200 spent the most time in tasks; there were 10,000.",
            "stream": "text=10,000 tasks ended",
            "tasks": "tbody tr",
            "tasks?by=function": "tbody tr",
            "database": "dt:has-text('records')",
        }
        for hash, selector in pages.items():
            go(browser, hash, selector)
            nodes = browser.run("return await page.evaluate(() => document.querySelectorAll('*').length)")
            assert nodes < 20_000, f"{hash} draws too much for a browser"
        sound(browser, many.site)
    finally:
        many.stop()


def test_a_running_cluster_has_no_slider(browser: Browser, shown: Shown):
    opened(browser, shown.site.url)
    go(browser, "", "text=Last failures")
    assert not browser.run("return await page.locator('#moment').isVisible()")


def test_what_matches_is_exported(browser: Browser, place: tuple[Site, dict[str, str]]):
    site, _ = place
    opened(browser, site.url)
    go(browser, "tasks", "tbody tr")
    browser.run("""await page.fill("#query", given); await page.press("#query", "Enter");
        await page.waitForSelector("text=3 tasks match"); await page.click("button:has-text('Export …')");
        await page.waitForSelector("dialog >> text=3 records");""", json.dumps({"label": HOSTILE}))
    saved = """const waits = page.waitForEvent("download"); await page.click(`dialog a:has-text("${given}")`);
        const file = await waits, parts = []; for await (const part of await file.createReadStream()) parts.push(part);
        return [file.suggestedFilename(), Buffer.concat(parts).toString()];"""
    name, text = browser.run(saved, "JSON lines")
    assert name == "tasks.jsonl"
    assert [json.loads(line)["label"] for line in text.splitlines()] == [HOSTILE] * 3
    name, text = browser.run(saved, "CSV")
    assert name == "tasks.csv"
    assert text.startswith("msg_id,state,label,")
    assert text.count("broken = 1") >= 3
    sound(browser, site)


def talk(folder: str) -> None:
    import time

    number = 0
    while not Path(folder, "enough").exists():
        print("line", number, flush=True)
        number += 1
        time.sleep(0.05)


def test_the_output_of_a_running_task_grows(browser: Browser, shown: Shown, tmp_path: Path):
    with (view := shown.rc.load_balanced_view()).temp_flags(label="talk"):
        result = view.apply(talk, str(tmp_path))
    try:
        opened(browser, shown.site.url)
        go(browser, f"task/{result.msg_ids[0]}", "#stdout:visible")
        browser.run("await page.waitForSelector('text=line 1'); const now = await page.innerText('#stdout');"
                    "await page.waitForFunction((n) => document.querySelector('#stdout').innerText.length > n,"
                    "now.length);")
    finally:
        (tmp_path / "enough").touch()
    browser.run("await page.waitForSelector('h1 .state.completed');")
    sound(browser, shown.site)
    result.wait(60)
    shown.rc.purge_results(query={"label": "talk"})


# ---------------------------------------------------------------------------------------------- what goes wrong


def test_the_page_follows_a_killed_controller_and_the_end_of_its_dashboard(browser: Browser, tmp_path: Path):
    cluster = er.Cluster(n=1, profile_dir=tmp_path / "profile_default", cluster_id="", dashboard=True)
    try:
        rc = cluster.start_and_connect_sync()
        opened(browser, str(rc.dashboard_url))
        browser.run("await page.waitForSelector('.dot.live');")
        pid = cluster.controller.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: cluster.controller is not None and cluster.controller.pid != pid)
        rc.load_balanced_view().apply_sync(abs, -1)
        browser.run("""await page.waitForFunction(() => document.querySelector('.dot.live')
            && /1\\s+completed/.test(document.querySelector('main').innerText), null, { timeout: 60000 });""")
    finally:
        cluster.stop_cluster_sync()
    browser.run("await page.waitForSelector('#banner:visible'); await page.waitForSelector('.dot.lost');")
    assert "does not answer" in text_of(browser, "#banner") or "has ended" in text_of(browser, "#banner")


def test_a_controller_that_hangs_is_told(browser: Browser, fresh_cluster: Any):
    rc = fresh_cluster(n=0, dashboard=True)
    opened(browser, str(rc.dashboard_url))
    browser.run("await page.waitForSelector('.dot.live');")
    pid = rc.cluster.controller.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        browser.run("await page.waitForSelector('text=/no answer for [0-9]+ s/', { timeout: 60000 });")
    finally:
        os.kill(pid, signal.SIGCONT)
    browser.run("await page.waitForSelector('.dot.live', { timeout: 60000 });")


def test_it_works_under_a_prefix(browser: Browser, dead_file: tuple[Path, dict[str, str]]):
    """Behind a proxy that gives it a part of its own addresses, as jupyter-server-proxy does."""
    running = Dead(dead_file[0], "--allow-host=localhost")
    try:
        class Proxy(Forwarding):
            port = running.site.port or 0

        with serving(Proxy) as port:
            opened(browser, f"http://localhost:{port}/user/me/proxy/1/?token={running.site.token}")
            go(browser, "tasks", "tbody tr")
            go(browser, f"task/{dead_file[1]['failed']}", "text=ZeroDivisionError")
            cookies = browser.run("return (await context.cookies()).map((c) => [c.path, c.httpOnly, c.sameSite])")
            assert cookies == [["/user/me/proxy/1", True, "Strict"]]
            assert browser.run("return found.messages") == []
    finally:
        running.stop()


def test_the_theme_is_chosen_and_kept(browser: Browser, dead: tuple[Site, dict[str, str]]):
    opened(browser, dead[0].url, colorScheme="light")
    code = "return await page.evaluate(() => getComputedStyle(document.body).backgroundColor)"
    light = browser.run(code)
    browser.run("await page.click('#theme'); await page.reload(); await page.waitForSelector('nav a');")
    assert browser.run(code) != light


# ---------------------------------------------------------------------------------------------- other servers


class serving:
    """A web server of this process: its port."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = False
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.server_address[1])

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Evil(Quiet):
    """Another web site."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>other</title><link rel=icon href='data:,'>hello"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Forwarding(Quiet):
    """A proxy that serves a dashboard under a prefix."""

    prefix, port = "/user/me/proxy/1", 0

    def do_GET(self) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            link.request("GET", self.path.removeprefix(self.prefix), headers=headers)
            answer = link.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            for part in iter(lambda: answer.read1(65536), b""):
                self.wfile.write(part)
                self.wfile.flush()
        except OSError:
            pass  # the browser has gone
        finally:
            link.close()
