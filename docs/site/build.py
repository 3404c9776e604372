"""Builds the documentation site: `python docs/site/build.py`. What is wrong with a page is an error.

Broken links, links to headings that are not there, pages that no navigation names, and docstrings that cannot be read
end the build, after all of them were reported. `make docs` calls this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
TOP = HERE.parents[1]
OUTPUT = TOP / "build" / "site"


def build(top: Path, output: Path) -> int:
    """Build the pages below `top`; returns the exit code."""
    # All pages are read each time: Sphinx reports nothing about pages that it remembers from a build that failed.
    with tempfile.TemporaryDirectory() as cache:
        where = ["--conf-dir", str(HERE), "--doctree-dir", cache, str(top), str(output)]
        return build_main(["--builder", "html", "--fail-on-warning", "--quiet", "--jobs", "auto", *where])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--top", type=Path, default=TOP, help="the folder of the pages")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the site is written")
    given = parser.parse_args()
    code = build(given.top, given.output)
    if code:
        print("The site was not built: each line above names what is wrong with a page.", file=sys.stderr)
    else:
        print(f"The site is in {given.output}: open {given.output / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
