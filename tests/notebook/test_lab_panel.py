"""The panel in JupyterLab, in a real browser: as a user clicks and types."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import processes_of, wait_until
from support import panels
from support.jupyterlab import Lab

import engineroom as er

pytestmark = pytest.mark.slow

PANEL = """
const panel = page.locator('#engineroom-clusters');
const card = (key) => panel.getByRole('listitem', { name: `Cluster ${key}`, exact: true });
const says = (key, text) => card(key).locator('.er-state', { hasText: text }).waitFor();
"""
SHOW = PANEL + """
if (!await panel.isVisible()) await page.locator('.jp-SideBar [data-id="engineroom-clusters"]').click();
await panel.waitFor();
"""
START = SHOW + """
await panel.getByLabel('Profile').fill(given.profile);
await panel.getByLabel('Engines', { exact: true }).fill(String(given.n));
await panel.getByLabel('Cluster id').fill(given.id);
await panel.getByRole('button', { name: 'Start' }).press('Enter');
"""
STOP = PANEL + """
await card(given.key).getByRole('button', { name: `Stop ${given.key}` }).click();
await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click();
await card(given.key).waitFor({ state: 'detached' });
"""


@pytest.fixture
def shown(lab: Lab) -> Iterator[Lab]:
    """JupyterLab with an empty notebook; afterwards no cluster of its folder is left."""
    if why := panels.problem():
        pytest.skip(f"{why}: {panels.HOW}")
    lab.open("clusters", "")
    yield lab
    wait_until(lambda: not processes_of(lab.server.folder / "ipython"))


def profile_of(lab: Lab, name: str = "default") -> Path:
    return lab.server.folder / "ipython" / f"profile_{name}"


def test_a_cluster_from_start_to_stop(shown: Lab):
    shown.page(START, profile="default", n=2, id="demo")
    shown.page(PANEL + "await says('default:demo', 'running · 2 engines');")
    shown.page(PANEL + "await card('default:demo').getByRole('button', { name: 'Insert code' }).click();")
    shown.run(0, "2 engines")  # the cell was empty, and now connects
    shown.screenshot("panel")
    shown.page(PANEL + """
        const number = card('default:demo').getByLabel('Number of engines of default:demo');
        await number.fill('3');
        await number.press('Enter');
        await says('default:demo', 'running · 3 engines');
    """)
    # A second insertion goes into the empty cell that follows, not into the one that ran.
    shown.page(PANEL + """
        await card('default:demo').getByRole('button', { name: 'Insert code' }).click();
        await page.locator('.jp-Notebook .jp-Cell').nth(1).getByText('er.Client').waitFor();
    """)
    with er.Client(profile_dir=profile_of(shown), cluster_id="demo") as rc:
        ar = rc.load_balanced_view().map_async(__import__("time").sleep, [60] * 4)
        shown.page(PANEL + "await says('default:demo', '4 tasks not finished');")
        # The question comes first; Escape leaves everything as it is.
        asked = shown.page(PANEL + """
            await card('default:demo').getByRole('button', { name: 'Stop default:demo' }).click();
            const text = await page.getByRole('dialog').innerText();
            await page.keyboard.press('Escape');
            await page.getByRole('dialog').waitFor({ state: 'detached' });
            return text;
        """)
        assert "Stop the cluster default:demo?" in asked
        assert "4 tasks have not finished" in asked
        assert not ar.done()
    shown.page(STOP, key="default:demo")
    shown.page(PANEL + "await panel.getByRole('status').filter({ hasText: 'has been stopped' }).waitFor();")
    shown.page(PANEL + "await panel.getByText('No cluster is running.').waitFor();")


def test_dashboards_are_tabs_that_come_back_and_follow_the_theme(shown: Lab):
    with er.Cluster(n=1, profile_dir=profile_of(shown), cluster_id="night") as rc:
        rc.load_balanced_view(label="fit").map_sync(abs, range(-20, 0))
        shown.page(SHOW + """
            await says('default:night', 'running · 1 engine');
            await card('default:night').getByRole('button', { name: 'Overview' }).click();
        """)
        frame = "const inside = page.frameLocator('.er-dashboard iframe');"
        shown.page(frame + "await inside.getByRole('heading', { name: 'Engines' }).first().waitFor();")
        shown.page(frame + "await inside.locator('#status', { hasText: 'live' }).waitFor();")
        shown.screenshot("panel-dashboard")
        theme = frame + "await inside.locator(`html[data-theme=${given.theme}]`).waitFor({ state: 'attached' });"
        shown.page(theme, theme="light")
        set_theme = """
            await page.keyboard.press('Control+Shift+C');
            await page.locator('.jp-mod-searchable input, #command-palette input').first().fill(given.theme);
            await page.locator('.lm-CommandPalette-item', { hasText: given.theme }).first().click();
        """
        shown.page(set_theme, theme="Use Theme: JupyterLab Dark")
        shown.page(theme, theme="dark")
        shown.page(SHOW)
        shown.screenshot("panel-dark")
        shown.page(set_theme, theme="Use Theme: JupyterLab Light")
        shown.page(theme, theme="light")
        # Again, the tab is shown that is there.
        shown.page(SHOW + """
            await card('default:night').getByRole('button', { name: 'Overview' }).click();
            if (await page.locator('.er-dashboard').count() !== 1) throw new Error('it was opened twice');
        """)


def test_what_goes_wrong_is_said_in_the_panel(shown: Lab):
    folder = profile_of(shown, "broken")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ipcluster_config.py").write_text("c.Cluster.controller_args = ['--colour=<b>red</b>']\n")
    shown.page(START, profile="broken", n=1, id="x")
    shown.page(PANEL + "await says('broken:x', 'failed');")
    text = shown.page(PANEL + "return await card('broken:x').getByRole('alert').innerText();")
    assert "the controller did not start" in text
    assert "colour" in text
    shown.screenshot("panel-failed")
    shown.page(PANEL + """
        await card('broken:x').getByRole('button', { name: 'Forget broken:x' }).click();
        await card('broken:x').waitFor({ state: 'detached' });
    """)
    shown.page(START, profile="../x", n=1, id="")
    shown.page(PANEL + "await panel.locator('> .er-problem', { hasText: 'made of letters' }).waitFor();")
    cluster = er.Cluster(n=0, profile_dir=profile_of(shown), cluster_id="dead").start_cluster_sync()
    cluster._restarts.refuse()
    os.kill(cluster.controller.pid, signal.SIGKILL)
    shown.page(PANEL + """
        await says('default:dead', 'killed');
        await card('default:dead').getByRole('button', { name: 'Clean up default:dead' }).click();
        await card('default:dead').waitFor({ state: 'detached' });
    """)
    cluster.stop_cluster_sync()


def test_the_panel_is_usable_by_keyboard_and_named_for_screen_readers(shown: Lab):
    with er.Cluster(n=0, profile_dir=profile_of(shown), cluster_id="keys"):
        shown.page(SHOW + "await says('default:keys', 'running');")
        names = shown.page(PANEL + """
            await panel.getByLabel('Profile').focus();
            const names = [];
            for (let step = 0; step < 20; step++) {
              const name = await page.evaluate(() => {
                const at = document.activeElement;
                if (!document.getElementById('engineroom-clusters').contains(at)) return null;
                return at.getAttribute('aria-label') || at.labels?.[0]?.innerText || at.innerText;
              });
              if (name === null) break;
              names.push(name);
              await page.keyboard.press('Tab');
            }
            return names;
        """)
        assert names == [
            "Profile", "Engines", "Cluster id", "Goes on when Jupyter ends", "Start", "Stop default:keys",
            "Number of engines of default:keys", "Scale", "Insert code", "Overview", "Tasks", "Task stream", "Graph",
            "Engines", "Database",
        ]  # fmt: skip
        # What is typed stays while the panel looks again.
        kept = shown.page(PANEL + """
            const number = card('default:keys').getByLabel('Number of engines of default:keys');
            await number.fill('7');
            await page.waitForResponse((answer) => answer.url().includes('/engineroom/clusters'));
            await page.waitForResponse((answer) => answer.url().includes('/engineroom/clusters'));
            return await number.inputValue();
        """)
        assert kept == "7"
