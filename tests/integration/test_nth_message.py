"""Each operation on a socket or on shared memory kills its process, or fails, until a pass is clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos.injected import parts_of
from conftest import processes_of, wait_until
from support import nth_message
from support.nth_message import MOST, Armed, work

from engineroom.system.processes import state_of

#: In the suite, only one operation in so many is tried; by night each.
STRIDE = 1 if os.environ.get("ENGINEROOM_NIGHTLY") else 11
#: Nobody starts a controller or a nanny again that has died five times in a row within 2 s of its start.
LIFE_SECONDS = 2.2
ERRORS = {"killed": 0, "failing": -1}


@pytest.mark.slow
@pytest.mark.timeout(7200 if STRIDE == 1 else 240)
@pytest.mark.fault(12, 23)
@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize("part", ["controller", "engine", "nanny", "zygote"])
def test_whatever_operation_fails_every_task_ends_with_its_value(
    fresh_cluster: Any, armed: Armed, tmp_path: Path, part: str, how: str
) -> None:
    rc, counted = fresh_cluster(n=1), []
    dies, may_lose = part in ("nanny", "zygote"), part != "controller"
    work(rc, tmp_path)
    for n in range(1, MOST, STRIDE):
        rc.wait_for_engines(1, timeout=60)
        process = wait_until(
            lambda: started(part, tmp_path, LIFE_SECONDS if how == "killed" and part != "engine" else 0.0)
        )
        armed.arm(process, n, ERRORS[how])
        try:
            ids = work(rc, tmp_path, engine_dies=dies, may_lose_direct=may_lose)
        except BaseException as error:
            error.add_note(f"operation {n} of the {part}: {armed.failed()}")
            raise
        failed = armed.failed()
        armed.disarm(process)
        # An outcome is told before it is recorded: if the controller dies in between, the task runs again.
        wait_until(lambda: rc.db_count({"msg_id": {"$in": ids}, "state": "completed"}) == len(ids))  # noqa: B023
        if failed is None:
            break
        counted.append(failed)
    else:
        raise AssertionError(f"there was no clean pass in {MOST} operations")
    assert counted, "no operation failed"
    print(f"{part} {how}: {len(counted)} operations: {sorted(set(counted))}")


def started(part: str, folder: Path, before: float) -> psutil.Process | None:
    """The process of a part that has run for so many seconds; None: there is none."""
    for process in parts_of(processes_of(folder)).get(part, []):
        state = state_of(process.pid)  # psutil's `create_time` may be wrong by a second
        if state and time.clock_gettime(time.CLOCK_BOOTTIME) - state.born / os.sysconf("SC_CLK_TCK") >= before:
            return process
    return None


@pytest.mark.slow
@pytest.mark.timeout(7200 if STRIDE == 1 else 240)
@pytest.mark.fault(2, 22)
@pytest.mark.parametrize("how", ERRORS)
def test_whatever_operation_of_a_client_fails_its_tasks_end_with_their_values(
    fresh_cluster: Any, armed: Armed, tmp_path: Path, how: str
) -> None:
    rc = fresh_cluster(n=1)
    counted: list[str] = []
    for n in range(1, MOST, STRIDE):
        armed.write(n, ERRORS[how])
        command = [sys.executable, nth_message.__file__, str(rc.cluster.profile_dir), str(n), str(ERRORS[how])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        failed = armed.failed()
        if how == "failing" or failed is None:
            assert done.returncode == 0, f"operation {n}, {failed}: {done.stderr}"
            ids = json.loads(done.stdout)
            assert rc.db_count({"msg_id": {"$in": ids}, "state": "completed"}) == len(ids), f"{n}: {failed}"
        else:
            assert done.returncode == -9, f"operation {n}, {failed}: {done.stderr}"
        wait_until(lambda: rc.db_count({"completed": None}) == 0)
        assert rc.db_count({"state": {"$ne": "completed"}}) == 0, f"operation {n}: {failed}"
        if failed is None:
            break
        counted.append(failed)
    else:
        raise AssertionError(f"there was no clean pass in {MOST} operations")
    assert counted, "no operation failed"
    print(f"client {how}: {len(counted)} operations: {sorted(set(counted))}")
    work(rc, tmp_path)
