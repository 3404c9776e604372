"""Read every Python file of this installation, one task each; ask the database what happened; mend what failed.

    python examples/demo.py [FOLDER ...]

It shows what Engineroom is for. Work is spread over engines. Every task is a record with its label, times, engine
and outcome. Tasks that failed are found by a query and run again: three old files among the input see to it that
some fail. When the cluster has stopped and another one has started on the same profile, the history is still there.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

from show import clip, count, heading, path, seconds, table

import engineroom as er
from engineroom.cores import usable_cores

BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.Match,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
)
PARTS = ("body", "orelse", "finalbody", "handlers", "cases")

#: Files as one finds them on old disks. The first two can be read once the engines know how; the third is Python 2.
OLD_FILES = {
    "umlauts.py": "# coding: latin-1\nGREETING = 'Grüß Gott'\n".encode("latin-1"),
    "accents.py": "# coding: cp1252\nMEAL = 'crème brûlée'\n".encode("cp1252"),
    "python2.py": b"print 'hello'\n",
}


# What runs on the engines. These functions are defined in this script; the names that they use travel with them.


def measure(file):
    """Lines, functions, deepest nesting and longest function of a Python file."""
    source = read(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old code has odd escapes
        tree = ast.parse(source)
    functions, deepest, todo = [], 0, [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append((node.end_lineno - node.lineno + 1, node.name))
        for child in (child for part in PARTS for child in getattr(node, part, ())):
            is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child.col_offset == node.col_offset
            todo.append((child, depth + isinstance(child, BLOCKS) - is_elif))
    return {
        "lines": len(source.splitlines()),
        "functions": len(functions),
        "deepest": deepest,
        "longest": max(functions, default=(0, "–")),
    }


def read(file):
    """The source of a file, read as many programs read it: as UTF-8, which is not always right."""
    return Path(file).read_text(encoding="utf-8")


def read_as_declared(file):
    """A file's bytes: the parser obeys byte-order marks and `coding:` lines by itself."""
    return Path(file).read_bytes()


# What runs here.


def main():
    with tempfile.TemporaryDirectory() as home:
        files = dict(find(sys.argv[1:] or installed(Path(home))))
        profile = str(Path(home) / "profile_demo")
        work(profile, files)
        remember(profile)


def installed(home):
    """The folders of this Python's library and packages, and one with three old files: a part of the tasks fails."""
    old = home / "old_files"
    old.mkdir()
    for name, content in OLD_FILES.items():
        (old / name).write_bytes(content)
    return [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), old]


def find(folders):
    """Label and path of every Python file in these folders; in that of the library without the packages inside it."""
    library, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    for folder in map(Path, folders):
        for file in sorted(folder.rglob("*.py")):
            name = file.relative_to(folder)
            if folder != library or packages.name not in name.parts:
                yield f"{folder.name}/{name.as_posix()}", str(file)


def work(profile, files):
    """The first session: run everything, look at it, mend it."""
    began = time.perf_counter()
    engines = usable_cores()
    with er.Cluster(n=engines, profile_dir=profile) as rc:
        heading("A cluster")
        print(f"  {count(len(rc), 'engine')} ready after {seconds(time.perf_counter() - began)}")

        heading(f"{count(len(files), 'Python file')}, one task each")
        results = submit(rc.load_balanced_view(), files)
        results.wait_interactive()
        speed = results.serial_time / results.wall_time
        print(
            f"  {seconds(results.serial_time)} of work in {seconds(results.wall_time)}: {speed:.1f} at a time, "
            f"{len(files) / results.wall_time:,.0f} tasks/s"
        )

        show_findings(files, results.get(return_exceptions=True))
        show_engines(rc)
        failed = show_failures(rc)
        if failed:
            mend(rc, failed)


def submit(view, files):
    """A task per file, labelled with the file's name; all of them as one result."""
    tasks = []
    for label, file in files.items():
        with view.temp_flags(label=label):
            tasks.append(view.apply_async(measure, file))
    return er.AsyncResult.join(*tasks)


def show_findings(files, outcomes):
    """What the tasks returned."""
    found = {label: outcome for label, outcome in zip(files, outcomes, strict=True) if isinstance(outcome, dict)}
    heading("What is in them")
    print(
        f"  {count(sum(f['lines'] for f in found.values()), 'line')}, "
        f"{count(sum(f['functions'] for f in found.values()), 'function')}\n"
    )
    deepest = sorted(found, key=lambda label: -found[label]["deepest"])[:5]
    table(["levels", "deepest nesting"], [[found[label]["deepest"], path(label, 60)] for label in deepest])
    print()
    longest = sorted(found, key=lambda label: -found[label]["longest"][0])[:5]
    table(["lines", "longest function", "in"], [[*found[label]["longest"], path(label, 40)] for label in longest])


def show_engines(rc):
    """Who did what, and which tasks took longest: from the records."""
    heading("Who did it")
    records = rc.db_query({"completed": {"$ne": None}}, keys=["label", "engine_id", "started", "completed"])
    busy = defaultdict(list)
    for record in records:
        record["took"] = (record["completed"] - record["started"]).total_seconds()
        busy[record["engine_id"]].append(record["took"])
    table(
        ["engine", "tasks", "busy", "median"],
        [
            [engine, len(times), seconds(sum(times)), seconds(sorted(times)[len(times) // 2])]
            for engine, times in sorted(busy.items())
        ],
    )
    print()
    slowest = sorted(records, key=lambda record: -record["took"])[:5]
    table(
        ["engine", "took", "slowest tasks"],
        [[record["engine_id"], seconds(record["took"]), path(record["label"], 56)] for record in slowest],
    )


def show_failures(rc):
    """The tasks that failed, by exception: their msg_ids."""
    heading("What failed")
    records = rc.db_query({"state": "failed"}, keys=["label", "result_content"])
    print(f"  {count(len(records), 'task')}: db_query({{'state': 'failed'}})")
    show_errors(records)
    return [record["msg_id"] for record in records]


def show_errors(records):
    """A table of errors, a line for each exception with its first case."""
    if not records:
        return
    print()
    groups = defaultdict(list)
    for record in sorted(records, key=lambda record: record["label"]):
        groups[record["result_content"]["ename"]].append(record)
    table(
        ["exception", "tasks", "for example", "which says"],
        [
            [name, len(group), group[0]["label"].rpartition("/")[2], clip(group[0]["result_content"]["evalue"], 60)]
            for name, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        ],
    )


def mend(rc, failed):
    """Teach the engines to read better, and run the same tasks again."""
    heading("Mended")
    print(
        "  A name in the engine's namespace wins over the one that came with a function, so:\n"
        "      rc[:].push({'read': read_as_declared})\n"
        "      rc.resubmit(failed)\n"
    )
    rc[:].push({"read": read_as_declared}, block=True)
    again = rc.resubmit(failed)
    again.wait()
    records = rc.db_query({"msg_id": {"$in": again.msg_ids}}, keys=["label", "state", "result_content"])
    states = Counter(record["state"] for record in records)
    print(f"  {count(states['completed'], 'task')} completed this time, {states['failed']:,} failed again")
    show_errors([record for record in records if record["state"] == "failed"])


def remember(profile):
    """The second session: another cluster, the same history."""
    began = time.perf_counter()
    with er.Cluster(n=1, profile_dir=profile) as rc:
        heading("Another cluster, the same profile")
        history = rc.hub_history()
        print(
            f"  Stopped and started in {seconds(time.perf_counter() - began)}; "
            f"{count(len(history), 'task')} remembered\n"
        )
        questions = {
            "completed": {"state": "completed"},
            "failed": {"state": "failed"},
            "… and were run again": {"state": "failed", "resubmitted": {"$ne": None}},
            "… and gave up for good": {"state": "failed", "resubmitted": None},
            "about tests": {"label": {"$glob": "*/test*"}},
        }
        table(
            ["tasks that", "number", "db_query"],
            [[what, len(rc.db_query(query, keys=["msg_id"])), str(query)] for what, query in questions.items()],
        )
        first = rc.db_query({"state": "completed"}, keys=["label"])[0]
        print(
            f"\n  get_result({first['msg_id'][:8]}…), {first['label']}:\n      {rc.get_result(first['msg_id']).get()}"
        )


if __name__ == "__main__":
    main()
