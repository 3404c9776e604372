"""What pyproject.toml cannot say: wheels hold the panel for JupyterLab, which is built when the wheel is.

Without Node and npm the wheel is built without the panel, and says so. ENGINEROOM_PANEL=require makes that an error,
for releases; ENGINEROOM_PANEL=no does not try. An editable installation does not run this: `make panel` builds it.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build

ROOT = Path(__file__).parent
#: Has Jupyter servers load `engineroom.lab`.
SERVER = ("etc/jupyter/jupyter_server_config.d", ["labextension/engineroom.json"])


class Build(build):
    """Builds the panel first, and adds its files to those that go into the environment's `share`."""

    def run(self) -> None:
        wish = os.environ.get("ENGINEROOM_PANEL", "")
        if wish != "no":
            self._add_panel(is_required=wish == "require")
        super().run()

    def _add_panel(self, is_required: bool) -> None:
        panel = runpy.run_path(str(ROOT / "labextension" / "build.py"))
        target = Path(self.build_base) / "panel"
        try:
            panel["build"](target)
        except panel["CannotBuild"] as why:
            if is_required:
                raise
            print(f"*** WITHOUT THE PANEL FOR JUPYTERLAB: {why} ***", file=sys.stderr)
            return
        for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            files = [str(path) for path in sorted(folder.iterdir()) if path.is_file()]
            self.distribution.data_files.append((str(panel["PLACE"] / folder.relative_to(target)), files))


setup(cmdclass={"build": Build}, data_files=[SERVER])
