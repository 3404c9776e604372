"""Each change of a file kills the process of a database, or fails: one after the other, until a pass is clean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.nth_operation import FAILED_SYNCS, SCENARIOS

PROGRAM = Path(__file__).parent.parent / "support" / "nth_operation.py"
#: In the suite, only one operation in so many is tried; by night each.
STRIDE = 1 if os.environ.get("ENGINEROOM_NIGHTLY") else 41


@pytest.mark.slow
@pytest.mark.timeout(3600 if STRIDE == 1 else 300)
@pytest.mark.fault(12, 18, 19)
@pytest.mark.parametrize("how", ["kill", "EIO", "ENOSPC"])
def test_after_each_operation_that_fails_the_database_is_sound_and_has_what_was_acknowledged(
    nth_library: Path, tmp_path: Path, how: str
) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path / "files"), how, str(STRIDE)]
    done = subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(nth_library)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = {name: int(count) for count, _, name in (line.partition(" ") for line in done.stdout.splitlines())}
    failed_syncs = counts.pop(FAILED_SYNCS)
    assert bool(failed_syncs) == (how != "kill")
    assert counts.keys() == SCENARIOS.keys()
    assert min(counts.values()) > 5, "operations were not counted"
