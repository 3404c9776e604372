"""JupyterLab in a real browser, for tests: a server on this host, and the browser of `browsers.py`.

Where one of them cannot be had, the tests are skipped, and pytest's summary says so.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support import browsers, panels
from support.notebooks import kernel_environment

START_SECONDS = 120
#: Extensions of the Jupyter server that no test needs, and that take long to start.
UNUSED = ("jupyter_lsp", "jupyter_server_terminals", "notebook_shim")

#: JavaScript for `Browser.run`: what is done with the page, or with cell number `given.number`.
PRELUDE = """
page?.setDefaultTimeout(45000);
const cell = () => page.locator('.jp-Notebook .jp-Cell').nth(given.number);
const within = () => cell().locator(given.selector);
"""
COMMANDS = {
    "open": """
        const opened = await open({ viewport: { width: 1100, height: 1500 } });
        opened.setDefaultTimeout(45000);
        await opened.goto(given.url);
        await opened.waitForSelector('.jp-Notebook .cm-content');
        await opened.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status=idle]');
    """,
    # Until the kernel is connected, the page forgets what is to run, or asks which kernel is meant: then once more.
    "begin": r"""
        for (let tries = 0; tries < 20; tries++) {
          const asked = page.locator('.jp-Dialog .jp-mod-accept');
          if (await asked.count()) await asked.first().click();
          await cell().locator('.cm-content').click({ timeout: 5000 }).catch(() => null);
          await page.keyboard.press('Shift+Enter');
          const prompt = cell().locator('.jp-InputPrompt', { hasText: /\[(\*|\d+)\]/ });
          if (await prompt.waitFor({ timeout: 2000 }).then(() => true, () => false)) return;
        }
        throw new Error('the cell does not run');
    """,
    "end": r"""
        await cell().locator('.jp-InputPrompt', { hasText: /\[\d+\]/ }).waitFor();
        await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))));
    """,
    "text": "return await cell().locator('.jp-OutputArea').first().innerText();",
    "count": "return await within().count();",
    "visible": "await within().first().waitFor({ state: 'visible' });",
    "isVisible": "return await within().first().isVisible();",
    "click": "await within().first().click();",
    "interrupt": "await page.click('[data-command=\"notebook:interrupt-kernel\"]');",
    "screenshot": "await page.screenshot({ path: given.path });",
}


class Server:
    """A Jupyter server on this host, with the extension of `engineroom.lab`.

    Parameters
    ----------
    folder : Path
        Where its files are, and those of its users' clusters.
    module : str
        The program: "jupyter_server", or "jupyterlab".
    variables : str
        More variables of its environment.
    """

    def __init__(self, folder: Path, module: str, **variables: str) -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        self.log = folder / f"{module}.log"
        self.token = secrets.token_hex(16)
        self.port = 0
        self._module = module
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start it; `wait` waits until it answers."""
        environment = kernel_environment(
            self.folder, JUPYTER_CONFIG_DIR=str(self.folder / "configuration"), **self._variables
        )
        given = {
            "ServerApp.port": "0", "ServerApp.ip": "127.0.0.1", "IdentityProvider.token": self.token,
            "ServerApp.root_dir": str(self.notebooks), "ServerApp.terminals_enabled": "False",
            **(settings or {}),
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in given.items()]
        wanted = {"engineroom.lab": True, "jupyterlab": self._module == "jupyterlab", **dict.fromkeys(UNUSED, False)}
        words += [f"--ServerApp.jpserver_extensions={name}={is_wanted}" for name, is_wanted in wanted.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "--allow-root", "--no-browser", *words],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it answers."""
        assert self._process is not None
        said = self.folder / "runtime" / f"jpserver-{self._process.pid}.json"
        deadline = time.monotonic() + START_SECONDS
        while not (said.exists() and said.read_text() and self._listens(json.loads(said.read_text())["port"])):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the Jupyter server has not started"
            time.sleep(0.05)

    def _listens(self, port: int) -> bool:
        """Whether it accepts connections on the port that its file names: it writes the file a moment earlier."""
        self.port = port
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def stop(self) -> None:
        """Stop it; kernels end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


class Lab:
    """A server of JupyterLab, and a browser that shows one of its notebooks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = Server(folder, "jupyterlab", JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"))
        self._browser: browsers.Browser | None = None

    def start(self) -> None:
        """Start both."""
        wishes = self._folder / "settings" / "@jupyterlab" / "apputils-extension"
        wishes.mkdir(parents=True)
        (wishes / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        settings = {"LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate", "LabApp.news_url": ""}
        if panels.problem() is None:
            settings["LabApp.extra_labextensions_path"] = str(panels.FOLDER)
        self.server.start(settings)
        self._browser = browsers.Browser()
        self.server.wait()

    def stop(self) -> None:
        """Stop both."""
        if self._browser is not None:
            self._browser.close()
        self.server.stop()

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/lab/tree"

    def open(self, name: str, *cells: str) -> None:
        """Show a new notebook with these cells, and wait for its kernel."""
        import nbformat

        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, self.server.notebooks / f"{name}.ipynb")
        self.do("open", url=f"{self._url}/{name}.ipynb?token={self.server.token}&reset")

    def run(self, number: int, *texts: str) -> None:
        """Run a cell to its end, and wait until these texts are in its outputs: they are drawn a moment later."""
        self.do("begin", number=number)
        self.do("end", number=number)
        self.says(number, *texts)

    def says(self, number: int, *texts: str) -> None:
        """Wait until these texts are in the outputs of a cell."""
        for text in texts:
            self._wait(lambda text=text: text in str(self.do("text", number=number)), f"{text!r} in cell {number}")

    def has(self, number: int, selector: str, count: int) -> None:
        """Wait until so many elements are in a cell."""
        self._wait(lambda: self.do("count", number=number, selector=selector) == count, f"{count} {selector}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                self.screenshot("failed")
                raise AssertionError(f"not there: {what}")
            time.sleep(0.05)

    def do(self, command: str, **given: Any) -> Any:
        """One of `COMMANDS`."""
        return self.page(COMMANDS[command], **given)

    def page(self, code: str, **given: Any) -> Any:
        """What JavaScript returns that is run beside the browser: it knows `page`, `context` and `given`."""
        assert self._browser is not None
        try:
            return self._browser.run(PRELUDE + code, given)
        except AssertionError:
            if code != COMMANDS["screenshot"]:
                self.screenshot("failed")
            raise

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page, in the test's folder and, if it is set, in the folder $SCREENSHOTS."""
        folder = Path(os.environ.get("SCREENSHOTS") or self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.do("screenshot", path=str(folder / f"{name}.png"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab in a browser, one for all tests."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    why = browsers.problem()
    if why:
        pytest.skip(f"{why}: {browsers.HOW}")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
