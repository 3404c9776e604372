"""The panel for JupyterLab, built for the tests as a wheel has it: by npm, once for each version of its sources.

`make parts` builds it into `.cache/`. Where npm or its registry cannot be had, the panel's tests are skipped.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD: dict[str, Any] = runpy.run_path(str(ROOT / "labextension" / "build.py"))
#: A folder as `share/jupyter/labextensions`.
FOLDER = ROOT / ".cache" / "panel" / BUILD["stamp"]()

HOW = "have Node 20.19 or newer and npm, and run `make parts`"


def problem() -> str | None:
    """Why there is no panel for the tests; None: there is one."""
    return None if (FOLDER / "engineroom" / "package.json").exists() else "the panel of JupyterLab is not built"


def main() -> None:
    if problem() is None:
        return
    print("building the panel of JupyterLab for the tests (once) …", flush=True)
    try:
        BUILD["build"](FOLDER / "engineroom")
    except BUILD["CannotBuild"] as why:
        print(f"*** THE PANEL'S TESTS WILL BE SKIPPED: {why}. To have them, {HOW}. ***", file=sys.stderr)


if __name__ == "__main__":
    main()
