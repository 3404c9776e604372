"""A real browser for the tests: Chromium of the system, driven by the published npm package playwright-core.

`make parts` installs what is missing: Chromium with apt (`debian.py`), and playwright-core with npm into `.cache/`.
Where either cannot be had, the tests that need it are skipped, and say why.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).parent / "browser" / "driver.cjs"
PLAYWRIGHT = "1.65.1"
FOLDER = ROOT / ".cache" / "browser" / PLAYWRIGHT
NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_SECONDS = 300

HOW = "have Chromium, Node and npm, and run `make parts`"


def chromium() -> str | None:
    """The browser's program."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def playwright() -> Path:
    """Where the driver's package is, or will be."""
    return FOLDER / "node_modules" / "playwright-core"


def problem() -> str | None:
    """Why there is no browser for the tests; None: there is one."""
    if shutil.which("node") is None:
        return "Node is not installed"
    if chromium() is None:
        return "Chromium is not installed"
    if not (playwright() / "package.json").exists():
        return "playwright-core is not installed"
    return None


def install() -> str | None:
    """Install playwright-core; returns why there is no browser."""
    if not (playwright() / "package.json").exists():
        if shutil.which("npm") is None:
            return "npm is not installed"
        FOLDER.mkdir(parents=True, exist_ok=True)
        package = f"playwright-core@{PLAYWRIGHT}"
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), package]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
            return f"npm install failed: {lines[-1]}"
        except subprocess.TimeoutExpired:
            return f"npm install took more than {INSTALL_SECONDS} s"
    return problem()


class Browser:
    """A browser without a window. `run` has JavaScript run beside it (see driver.cjs)."""

    def __init__(self) -> None:
        command = ["node", str(DRIVER), str(playwright()), str(chromium())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._answer()

    def run(self, code: str, given: Any = None) -> Any:
        """The value that the code returns. `given` is what the code knows by this name."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "given": given}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser's driver has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def close(self) -> None:
        """End the browser and its driver."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def main() -> None:
    if problem() is None:
        return
    print("installing a browser for the tests (once) …", flush=True)
    failed = install()
    if failed:
        print(f"*** THE BROWSER TESTS WILL BE SKIPPED: {failed}. To have them, {HOW}. ***", file=sys.stderr)


if __name__ == "__main__":
    main()
