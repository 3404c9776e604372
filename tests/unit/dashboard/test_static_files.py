"""The files of the page: what the first of them names beforehand."""

from __future__ import annotations

import re
from pathlib import Path

import engineroom

STATIC = Path(engineroom.__file__).parent / "dashboard" / "static"


def test_the_page_names_every_module_so_that_all_are_fetched_at_once():
    page = (STATIC / "index.html").read_text()
    named = re.findall(r'<link rel="modulepreload" href="static/(\w+\.js)">', page)
    assert sorted([*named, "app.js"]) == sorted(path.name for path in STATIC.glob("*.js"))
