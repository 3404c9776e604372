"""The faults that Engineroom is to survive, and the page that says which tests show it.

    python -m tests.support.faults > docs/faults.md

A test of fault 5 carries `@pytest.mark.fault(5)`. The tests are found in the source, not by running them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
    """One row of the page."""

    #: what goes wrong
    what: str
    #: what the user sees of it
    sees: str
    #: what no test shows, and why; "": the tests show all of it
    gap: str = ""


FAULTS: dict[int, Fault] = {
    1: Fault("client killed while it waits", "another client finds the tasks and their results"),
    2: Fault("client killed in the middle of 10,000 submissions", "the tasks that arrived are recorded whole, and end"),
    3: Fault("Ctrl-C in a wait", "KeyboardInterrupt at once, with a note on how to cancel; the tasks go on"),
    4: Fault(
        "kernel of a notebook restarted",
        "as 1: `rc.session(name)` has the results, and its `wait_interactive` the bar where it was",
    ),
    5: Fault("engine killed while it runs a task", "the result after a retry, or `EngineError` with the cause"),
    6: Fault(
        "engine killed after it ran a task, before the result is stored",
        "one outcome; the task may run twice, unless `at_most_once`",
    ),
    7: Fault("engine killed after the result is stored, before the client has it", "the result; one attempt"),
    8: Fault(
        "engine killed because memory ran out",
        "as 5; the error says so, with the peak memory and what to do; the task is tried again once at most",
    ),
    9: Fault("segmentation fault, `os._exit`, `sys.exit` in a task", "a cause for each; after 3 deaths the task fails"),
    10: Fault("engine frozen by SIGSTOP; or busy in C code that holds the GIL", "replaced; or nothing"),
    11: Fault("controller killed, and started again", "a pause; no accepted task is lost"),
    12: Fault("controller killed at every write", "as 11"),
    13: Fault("controller killed, and not started again", "`ControllerLost` after a stated time"),
    14: Fault("two controllers on one database", "the second does not start: `StoreBusy` names the first"),
    15: Fault(
        "error in the controller's loop or in one of its threads; a loop that hangs; a disk that does not answer",
        "the one task or question fails, and the rest goes on; the log says where a loop, the writer or a reader hangs",
    ),
    16: Fault("database locked by another program", "a pause for records; results arrive meanwhile"),
    17: Fault("MongoDB killed, or slow", "`StoreError` for new tasks; nothing is lost once it is back"),
    18: Fault("disk full", "`StoreFull` for new tasks; finished results are kept, and stored later"),
    19: Fault(
        "error of a write or of a sync",
        "nothing is acknowledged; `StoreError`; after a failed sync the file is opened again and verified",
    ),
    20: Fault("database file cut, changed, or no database", "how many records are damaged; the others can be read"),
    21: Fault("database on NFS or Lustre", "nothing: a journal that works there is used"),
    22: Fault("network cut between client and controller", "a pause; or `ControllerLost` after the stated time"),
    23: Fault("network cut between engine and controller", "one outcome; the attempts show it"),
    24: Fault("network slow; one byte at a time", "nothing but the time that it takes"),
    25: Fault("messages duplicated or replayed", "nothing"),
    26: Fault("random bytes, malformed messages", "their sender is turned away; nobody else notices"),
    27: Fault("messages that are too long", "`MessageTooLarge`; their sender is turned away"),
    28: Fault("wrong key, or none", "`AuthenticationError` that names the connection file"),
    29: Fault(
        "other versions at the two ends",
        "both are named; an engine with another minor version of Python runs functions of modules, and refuses code",
    ),
    30: Fault("argument that cannot be pickled", "the error names the argument, and the path inside it"),
    31: Fault("result that cannot be pickled or unpickled; huge repr", "an error of this task; the engine lives"),
    32: Fault("exception that cannot be pickled", "`RemoteError` with its type, text and traceback"),
    33: Fault("module that the engine lacks, or has in another version", "an error or a warning names both"),
    34: Fault("output without end, from threads and child processes", "the first part, and a mark"),
    35: Fault(
        "task that leaks memory, descriptors, threads, child processes",
        "an error of the task that did it; children end; with `memory_limit` another engine takes its place",
    ),
    36: Fault("a thousand engines register at once", "all are there"),
    37: Fault(
        "a million queued tasks; gigabytes of arguments",
        "`submit` does not block; the client keeps what waits, and says why",
    ),
    38: Fault("client that does not read", "everything, once it reads again"),
    39: Fault(
        "clocks that jump, or are wrong",
        "intervals are right: they are measured by clocks that do not jump; hosts whose clock is wrong are named",
    ),
    40: Fault("cancel at any moment, also twice", "one outcome, which stays"),
    41: Fault("dependency failed, unknown, in a circle", "`ImpossibleDependency` that names the path"),
    42: Fault("purge while a task runs, or while another client waits", "`PendingTask`; `UnknownTask`"),
    43: Fault("host restarted: everything killed, temporary files gone", "queued tasks run; running ones run again"),
    44: Fault(
        "power cut; on a disk that says it has synced and has not",
        "with `normal` the last moments may be lost, with `full` nothing that was acknowledged; if the disk lied, more "
        "with both: records are as they were earlier, or the file is refused, and `db repair` saves what is whole",
    ),
    45: Fault("database of an older or newer version", "migrated after a backup; or refused"),
    46: Fault("Ctrl-C, SIGTERM, SIGHUP to the cluster", "it stops; no process and no file is left"),
    47: Fault("too few descriptors; port in use; path of a socket too long", "an error that names the limit"),
    48: Fault(
        "batch system ends the job at its time limit",
        "the tasks run again elsewhere, no retry is used, and their records say why",
    ),
}  # fmt: skip


def cases_of_faults(root: Path = TESTS) -> dict[int, list[tuple[str, str]]]:
    """The tests of each fault: (file relative to `root`, name without `test_`), in order."""
    found: dict[int, list[tuple[str, str]]] = {}
    for path in sorted(root.rglob("test_*.py")):
        source = path.read_text()
        if "mark.fault(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _numbers(node):
                    place = path.relative_to(root).as_posix(), node.name.removeprefix("test_")
                    found.setdefault(number, []).append(place)
    return found


def _numbers(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def page() -> str:
    """`docs/faults.md`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    tests = cases_of_faults()
    partly = sum(1 for number in FAULTS if number in tests and FAULTS[number].gap)
    without = [number for number in FAULTS if number not in tests]
    yield "# Faults, and the tests that cause them"
    yield ""
    yield "<!-- Made by `python -m tests.support.faults > docs/faults.md`; a test compares. -->"
    yield ""
    whole = len(FAULTS) - partly - len(without)
    yield f"{len(FAULTS)} faults in all. Of {whole} tests show all that is promised, of {partly} a part,"
    yield f"of {len(without)} nothing. What is promised:"
    yield "[reliability](reliability.md)."
    yield ""
    yield "| | fault | what you see | tests | not shown |"
    yield "|---|---|---|---|---|"
    for number, fault in FAULTS.items():
        cases = len(tests.get(number, ()))
        yield f"| {number} | {fault.what} | {fault.sees} | {cases or 'none'} | {fault.gap} |"
    yield ""
    yield "## The tests"
    yield ""
    yield "`python -m pytest tests/FILE -k NAME` runs one."
    for number, fault in FAULTS.items():
        if number in tests:
            yield ""
            yield f"{number}. {fault.what}:"
            yield ""
            yield from (f"   - `{file}`: {name.replace('_', ' ')}" for file, name in tests[number])


if __name__ == "__main__":
    print(page(), end="")
