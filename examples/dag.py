"""A graph of tasks: an analysis in stages, checked against its edges, and drawn.

    python examples/dag.py                   # four packages of the standard library
    python examples/dag.py json email        # others
    python examples/dag.py --save dag.png    # where the picture goes

Each source file is read once; its syntax and its comments are looked at by two tasks; each package is summed up, and a
report ends it all. A task gets the results of those before it as its arguments: the sources go from engine to engine,
and never come back here. With matplotlib (`pip install engineroom[graph]`) the picture is a PNG, else text.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

from show import count, heading, seconds, table

import engineroom as er

PACKAGES = ("json", "logging", "sqlite3", "tomllib")
#: Columns of the picture in text.
WIDTH = 72


def read(path):
    """The source."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def parse(source):
    """What its syntax tells."""
    import ast

    nodes = Counter(type(node).__name__ for node in ast.walk(ast.parse(source)))
    return {"lines": source.count("\n"), "functions": nodes["FunctionDef"], "branches": nodes["If"] + nodes["IfExp"]}


def comments(source):
    """How many words of comment and docstring it has."""
    import io
    import tokenize

    words = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.line.strip().startswith('"""')):
            words += len(token.string.split())
    return {"words": words}


def summed(*findings):
    """Findings added up."""
    total = Counter()
    for finding in findings:
        total.update(finding)
    return dict(total)


def report(*summaries, names):
    """The packages, the most commented first."""
    rows = [
        (name, s["lines"], s["functions"], s["branches"], s["words"]) for name, s in zip(names, summaries, strict=True)
    ]
    return sorted(rows, key=lambda row: -row[4] / max(1, row[1]))


def graph_of(packages):
    """Node → its predecessors, and node → what it does."""
    before, tasks = {}, {}
    for package in packages:
        folder = Path(importlib.util.find_spec(package).origin).parent
        findings = []
        for path in sorted(folder.glob("*.py")):
            name = f"{package}/{path.stem.strip('_')}"
            before[name], tasks[name] = [], (read, [str(path)])
            for look in (parse, comments):
                node = f"{look.__name__} {path.stem.strip('_')} ({package})"
                before[node], tasks[node] = [name], look
                findings.append(node)
        before[package], tasks[package] = findings, summed
    before["report"], tasks["report"] = list(packages), (report, (), {"names": packages})
    return before, tasks


def text_picture(rows):
    """One line per engine, a letter for what ran there at a time."""
    begin = min(row.started for row in rows)
    whole = (max(row.completed for row in rows) - begin).total_seconds()
    for engine in sorted({row.engine for row in rows}):
        line = [" "] * (WIDTH + 1)
        for row in rows:
            if row.engine == engine:
                first, last = ((t - begin).total_seconds() / whole * WIDTH for t in (row.started, row.completed))
                letter = row.node.split()[0][0] if " " in row.node else "r" if "/" in row.node else "S"
                line[int(first) : max(int(first) + 1, round(last))] = letter * max(1, round(last) - int(first))
        print(f"  engine {engine} │{''.join(line[:WIDTH])}│")
    print(f"           0{seconds(whole):>{WIDTH + 1}}")
    print("  r read   p parse   c comments   S sum, report")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument("--save", default="dag.png", help="where the picture goes")
    options = parser.parse_args()
    before, tasks = graph_of(options.packages)

    with er.Cluster(n=4) as rc:
        view = rc.load_balanced_view(label="dag")
        done = view.run_graph(before, tasks, pass_results=True)
        rows = done["report"].get()
        done.wait()
        edges = done.check()

    heading("The most commented packages")
    table(["package", "lines", "functions", "branches", "words of comment"], rows)
    heading("How it ran")
    print(
        f"  {count(len(done), 'task')}; {count(edges, 'edge')}, and nothing began before what it comes after had ended"
    )
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError:
        text_picture(done.timeline())
        return
    done.draw().figure.savefig(options.save, dpi=130)
    print(f"  drawn: {options.save}")


if __name__ == "__main__":
    main()
