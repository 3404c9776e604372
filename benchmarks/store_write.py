"""How fast the stores take finished no-op tasks: `python -m benchmarks.store_write [rows]`.

Each line is one store, batch size and load; "busy" has a second thread that runs pure Python all the while, as
a controller's main thread would at its worst.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engineroom.records.entry import Entry
from engineroom.stores import DictDB, SQLiteDB, TaskStore

from .records import noops


@contextmanager
def spinning(busy: bool) -> Iterator[None]:
    """Another thread that never lets go of the interpreter by itself."""
    stop = False

    def spin() -> None:
        n = 0
        while not stop:
            n += 1

    thread = threading.Thread(target=spin)
    if busy:
        thread.start()
    try:
        yield
    finally:
        stop = True
        if busy:
            thread.join()


def measure(store: TaskStore, batch: int, rows: list[Entry], busy: bool) -> None:
    """Write the rows in batches and print what it took."""
    with spinning(busy):
        began, used = time.perf_counter(), time.thread_time()
        for start in range(0, len(rows), batch):
            store.write(rows[start : start + batch])
        took, used = time.perf_counter() - began, time.thread_time() - used
    print(
        f"{type(store).__name__:9} batch {batch:5}  {'busy' if busy else 'idle'}  {len(rows) / took:10,.0f} rows/s"
        f"  {took / len(rows) * 1e6:6.2f} µs/row  {used / len(rows) * 1e6:6.2f} µs cpu/row"
    )
    store.close()


def main() -> None:
    """Measure both stores."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    rows = noops(count)
    with tempfile.TemporaryDirectory() as folder:
        for busy in False, True:
            for batch in 1, 100, 1000, 5000:
                some = rows[: max(1000, min(count, batch * (20 if busy else 500)))]
                measure(SQLiteDB(Path(folder) / f"{batch}{busy}.db"), batch, some, busy)
            measure(DictDB(record_limit=2 * count), 1000, rows, busy)


if __name__ == "__main__":
    main()
