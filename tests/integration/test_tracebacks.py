"""The traceback that a client shows has the lines of the code that failed, wherever it was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engineroom as er

SCRIPT = '''
import sys
import engineroom as er

class Thing:
    def method(self):
        return self.nothing  # method

def deeper(x):
    return 1 / x  # helper

def fails(x):
    return deeper(x)

rc = er.Client(profile_dir=sys.argv[1], cluster_id=sys.argv[2])
v = rc[0]
v.push({"thing": Thing()}, block=True)
for call in (
    lambda: v.apply_sync(fails, 0),
    lambda: v.apply_sync(lambda: 1 / 0),  # lambda
    lambda: v.apply_sync(er.Reference("thing.method")),
    lambda: v.apply_sync(Thing().method),
    lambda: v.execute("thing.method()", block=True),
    lambda: v.execute("1 / 0  # cell", block=True),
    lambda: v.execute("def f():\\n    return 1 / 0  # of a cell\\n", block=True) and v.execute("f()", block=True),
    lambda: v.execute("1 / 0  # shown cell", block=True, silent=False),
    lambda: rc.load_balanced_view().map_sync(fails, [1, 0]),
):
    try:
        call()
    except er.RemoteError as error:
        print(error.traceback)
    except er.CompositeError as error:
        print(error.elist[0][2])
rc.close()
'''


@pytest.mark.slow
def test_lines_of_a_script_and_of_cells_are_shown(cluster: er.Cluster, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    of_cluster = [cluster.profile_dir, cluster.cluster_id]
    done = subprocess.run(
        [sys.executable, script, *map(str, of_cluster)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for comment, times in (("method", 3), ("helper", 2), ("lambda", 1), ("cell", 1), ("of a cell", 1)):
        assert done.stdout.count(f"  # {comment}\n") == times, done.stdout
    assert "1 / 0  # shown cell" in done.stdout
    number = SCRIPT.splitlines().index("    return 1 / x  # helper") + 1
    assert f'File "{script}", line {number}, in deeper' in done.stdout
