"""The commonest words in the documentation strings of Python's library.

    python examples/word_count.py [FOLDER]

The files are scattered over the engines, once. Each engine counts its share where it is, and the counts are
added up here.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import engineroom as er


def count_words():
    """Count the words of `files`, the share of them that lies in this engine's namespace."""
    counts = Counter()
    for name in files:  # noqa: F821 - scattered
        for node in ast.walk(ast.parse(Path(name).read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                counts.update(re.findall(r"[a-z]{5,}", (ast.get_docstring(node) or "").lower()))
    return counts


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    names = [str(path) for path in sorted(folder.glob("*.py"))]
    with er.Cluster(n=2) as rc:
        engines = rc[:]
        engines.scatter("files", names, block=True)
        shares = engines.apply_sync(count_words)
    total = sum(shares, Counter())
    print(f"{total.total():,} words in {len(names)} files; by engine: {[share.total() for share in shares]}")
    for word, times in total.most_common(10):
        print(f"{times:>8,}  {word}")


if __name__ == "__main__":
    main()
