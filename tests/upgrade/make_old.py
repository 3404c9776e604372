"""Makes `schema_N.sql`: task databases of earlier versions, as texts. This is a script and no test.

The code of each version, out of the repository's history, runs `WORKLOAD` on a real cluster. The cluster is killed
while its last task runs. `python make_old.py 5` makes `schema_5.sql` again. It needs numpy, and pyzmq up to version 6.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).parent
#: The version of the schema → the last commit that wrote it. Version 5 is that of Engineroom 0.1.0.
COMMITS = {1: "4df914f", 2: "462d58c", 3: "71e08ca", 4: "4fdc96b", 5: "cfc4343", 6: "77f6526"}
WORKLOAD = """
import time
import numpy as np
import engineroom as er

def square(x):
    print("squaring", x)
    return x * x

def long_one(x):
    import time
    time.sleep(1)
    return x + 1

rc = er.Cluster(n=2).start_and_connect_sync()
view = rc.load_balanced_view()
with view.temp_flags(label="squares"):
    assert [view.apply_sync(square, x) for x in range(3)] == [0, 1, 4]
with view.temp_flags(label="fails"):
    view.apply_async(lambda: 1 / 0).wait(60)
with view.temp_flags(label="array"):
    assert view.apply_sync(lambda a: a + 0, np.zeros(70_000, np.uint8)).nbytes == 70_000
rc[0].execute("y = 7", block=True)
with view.temp_flags(label="unfinished"):
    view.apply_async(long_one, 5)
while rc.db_query({"label": "unfinished"}) == []:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""


def database(commit: str, folder: Path) -> Path:
    """Run the workload with the code of a commit; the file that it leaves."""
    code = subprocess.run(["git", "archive", commit, "src"], check=True, stdout=subprocess.PIPE, cwd=HERE.parents[1])
    with tarfile.open(fileobj=BytesIO(code.stdout)) as archive:
        archive.extractall(folder, filter="data")
    script = folder / "workload.py"
    script.write_text(WORKLOAD)
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "IPYTHONDIR": str(folder / "ipython")}
    with subprocess.Popen([sys.executable, script], cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        kill_all(f"IPYTHONDIR={folder}")
    if said != b"ready\n":
        raise SystemExit(f"the workload failed with the code of {commit}")
    [path] = folder.glob("ipython/**/tasks.db")
    return path


def kill_all(mark: str) -> None:
    """Kill every process that has this text in its environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def dump(path: Path) -> str:
    """A database as SQL. Of a long run of zeros in a blob only the length is written: `(00 x 70000)`."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        about = ("auto_vacuum", "user_version", "application_id")
        lines = [f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};" for name in about]
        lines += connection.iterdump()
    return re.sub("(?:00){99,}", lambda zeros: f"(00 x {len(zeros[0]) // 2})", "\n".join(lines)) + "\n"


def load(text: str, path: Path) -> None:
    """Make the database of a `dump`."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(re.sub(r"\(00 x (\d+)\)", lambda run: "00" * int(run[1]), text))


def main() -> None:
    for number in map(int, sys.argv[1:]) if sys.argv[1:] else COMMITS:
        with tempfile.TemporaryDirectory(prefix="old") as folder:
            text = dump(database(COMMITS[number], Path(folder)))
        (HERE / f"schema_{number}.sql").write_text(text)


if __name__ == "__main__":
    main()
