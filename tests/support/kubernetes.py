"""The published schemas of Kubernetes' objects, for the tests: those that PyPI's kubernetes-validate carries.

`make parts` (`python tests/support/kubernetes.py`) downloads them once, about 22 MB, into `.cache/`. Where they cannot
be had, the tests that need them are skipped, and pytest's summary says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012

ROOT = Path(__file__).parents[2]
PACKAGE = "kubernetes-validate==1.37.0"
WHEEL = ROOT / ".cache" / "kubernetes" / f"{PACKAGE.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
#: The oldest and the newest version of Kubernetes that it knows.
VERSIONS = ("1.25.0", "1.37.0")
DOWNLOAD_SECONDS = 120

HOW = "run `make parts`"


def problem() -> str | None:
    """Why there are no schemas; None: there are."""
    return None if WHEEL.exists() else f"the schemas of Kubernetes are not there; {HOW}"


def install() -> str | None:
    """Download the schemas unless they are there; returns why they cannot be had."""
    if WHEEL.exists():
        return None
    WHEEL.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WHEEL.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        try:
            done = subprocess.run(
                [*pip, "--dest", folder, PACKAGE], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"pip download took more than {DOWNLOAD_SECONDS} s"
        if done.returncode != 0:
            return f"pip download failed: {done.stderr.strip().splitlines()[-1]}"
        Path(folder, WHEEL.name).replace(WHEEL)
    return None


class Schemas:
    """The schemas of one version of Kubernetes. They refuse fields that it does not know."""

    def __init__(self, version: str) -> None:
        self._zip = zipfile.ZipFile(WHEEL)
        self._folder = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"
        self._registry: referencing.Registry[Any] = referencing.Registry(retrieve=self._resource)  # type: ignore[call-arg]

    def _resource(self, name: str) -> referencing.Resource[Any]:
        content = json.loads(self._zip.read(f"{self._folder}/{name.rpartition('/')[2]}"))
        return referencing.Resource.from_contents(content, default_specification=DRAFT202012)

    def check(self, thing: dict[str, Any]) -> None:
        """Raises jsonschema.ValidationError if an object of Kubernetes is not valid."""
        group, _, version = thing["apiVersion"].rpartition("/")
        name = "-".join(filter(None, [thing["kind"].lower(), group.partition(".")[0], version]))
        validator = jsonschema.Draft202012Validator({"$ref": f"{name}.json"}, registry=self._registry)
        validator.validate(thing)

    def close(self) -> None:
        """Close the file of the schemas."""
        self._zip.close()


if __name__ == "__main__":
    why = install()
    if why:
        print(f"Tests of Kubernetes' manifests are skipped: {why}", file=sys.stderr)
