"""JupyterLab in a real browser, for tests: a server on this host, and Chromium without a window.

Chromium is Debian's (`support/debian.py`); playwright-core, which drives it, is installed by npm into `.cache/`:
`make browser`. Where one of them cannot be had, the tests are skipped, and pytest's summary says so.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":  # to install: `support` is found where tests run
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.notebooks import kernel_environment

ROOT = Path(__file__).parents[2]
PLAYWRIGHT = "1.65.1"
INSTALL_SECONDS = 300
START_SECONDS = 120

HOW = "run `make parts browser`"


def playwright() -> Path:
    """Where playwright-core is, or will be."""
    return ROOT / ".cache" / "browser" / PLAYWRIGHT / "node_modules" / "playwright-core"


def chromium() -> str | None:
    """The path of Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing() -> str | None:
    """Why JupyterLab cannot be tried in a browser; None: it can."""
    if chromium() is None:
        return f"Chromium is not there: {HOW} as root on a Debian"
    if shutil.which("node") is None:
        return "Node is not there"
    if not playwright().exists():
        return f"playwright-core is not there: {HOW}"
    return None


def install() -> str | None:
    """Install playwright-core unless it is there; returns why that is not possible."""
    place = playwright()
    if place.exists():
        return None
    if shutil.which("npm") is None:
        return "npm is not installed"
    folder = place.parents[1]
    made = folder.with_name(f"{folder.name}.{os.getpid()}")
    made.mkdir(parents=True)
    package = f"playwright-core@{PLAYWRIGHT}"
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(made), package]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        made.replace(folder)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        return f"npm install {package} failed: {lines[-1]}"
    except subprocess.TimeoutExpired:
        return f"npm install {package} took more than {INSTALL_SECONDS} s"
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return None


class Lab:
    """A server of JupyterLab, and a browser that shows one of its notebooks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notebooks = folder / "notebooks"
        self._notebooks.mkdir()
        self._token = secrets.token_hex(16)
        self._server: subprocess.Popen[bytes] | None = None
        self._browser: subprocess.Popen[str] | None = None
        self._url = ""

    def start(self) -> None:
        """Start both."""
        wishes = self._folder / "settings" / "@jupyterlab" / "apputils-extension"
        wishes.mkdir(parents=True)
        (wishes / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        environment = kernel_environment(
            self._folder,
            JUPYTER_CONFIG_DIR=str(self._folder / "configuration"),
            JUPYTERLAB_SETTINGS_DIR=str(self._folder / "settings"),
        )
        settings = {
            "ServerApp.port": "0", "ServerApp.ip": "127.0.0.1", "IdentityProvider.token": self._token,
            "ServerApp.root_dir": str(self._notebooks), "ServerApp.terminals_enabled": "False",
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate", "LabApp.news_url": "",
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "lab.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", *words],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._browser = subprocess.Popen(
            ["node", str(Path(__file__).with_name("browser.cjs"))],
            env={**environment, "PLAYWRIGHT": str(playwright()), "CHROMIUM": chromium() or ""},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = self._folder / "runtime" / f"jpserver-{self._server.pid}.json"
        deadline = time.monotonic() + START_SECONDS
        while not (said.exists() and said.read_text()):
            assert self._server.poll() is None, (self._folder / "lab.log").read_text()
            assert time.monotonic() < deadline, "JupyterLab has not started"
            time.sleep(0.05)
        self._url = f"http://127.0.0.1:{json.loads(said.read_text())['port']}/lab/tree"
        self._answer()

    def stop(self) -> None:
        """Stop both; kernels end with the server."""
        if self._browser is not None:
            assert self._browser.stdin is not None
            assert self._browser.stdout is not None
            self._browser.stdin.close()
            self._browser.wait(30)
            self._browser.stdout.close()
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait(30)

    def open(self, name: str, *cells: str) -> None:
        """Show a new notebook with these cells, and wait for its kernel."""
        import nbformat

        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, self._notebooks / f"{name}.ipynb")
        self.do("open", url=f"{self._url}/{name}.ipynb?token={self._token}&reset")

    def run(self, number: int) -> str:
        """Run a cell to its end; the text of its outputs."""
        self.do("begin", number=number)
        self.do("end", number=number)
        return str(self.do("text", number=number))

    def do(self, command: str, **given: Any) -> Any:
        """One of the commands in `browser.cjs`."""
        assert self._browser is not None
        assert self._browser.stdin is not None
        self._browser.stdin.write(json.dumps({"command": command, **given}) + "\n")
        self._browser.stdin.flush()
        try:
            return self._answer()
        except AssertionError:
            if command != "screenshot":
                self.screenshot("failed")
            raise

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page, in the test's folder and, if it is set, in the folder $SCREENSHOTS."""
        folder = Path(os.environ.get("SCREENSHOTS") or self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.do("screenshot", path=str(folder / f"{name}.png"))

    def _answer(self) -> Any:
        assert self._browser is not None
        assert self._browser.stdout is not None
        line = self._browser.stdout.readline()
        assert line, "the browser has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab in a browser, one for all tests."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    why = missing()
    if why:
        pytest.skip(why)
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


if __name__ == "__main__":
    problem = install() or missing()
    if problem:
        print(f"Tests of JupyterLab in a browser are skipped: {problem}", file=sys.stderr)
