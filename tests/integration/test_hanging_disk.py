"""A disk that does not answer: an operation on the database's file that does not come back, without an error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos.injected import parts_of
from conftest import processes_of, wait_until
from support.nth_message import Armed

import engineroom as er

#: Of the controller: no error comes before that.
HANG_SECONDS = 10.0


@pytest.mark.slow
@pytest.mark.fault(15)
def test_a_disk_that_hangs_is_named_and_costs_nothing(
    fresh_cluster: Any, armed: Armed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rc = fresh_cluster(n=1)
    view, profile = rc.load_balanced_view(), Path(rc.cluster.profile_dir)
    assert view.apply_sync(abs, -1) == 1
    wait_until(lambda: rc.db_count({"state": "completed"}) == 1)
    [controller] = parts_of(processes_of(tmp_path))["controller"]
    armed.arm(controller, 1, -2, str(profile / "tasks.db"))
    first = view.map_async(abs, range(-50, 0))
    assert first.get(60) == list(range(50, 0, -1)), "results come: they need not wait for the disk"
    wait_until(lambda: armed.failed() is not None)
    began = time.monotonic()
    with pytest.raises(er.StoreError, match="does not answer: nothing has been written for 10 s"):
        rc.db_query({"state": "completed"})
    assert time.monotonic() - began < 3 * HANG_SECONDS
    second = view.map_async(abs, range(-50, 0))
    wait_until(lambda: "wait until the controller has room: its database does not answer" in capsys.readouterr().err)
    with pytest.raises(er.StoreError, match="does not answer"):
        rc.db_query({"state": "completed"})
    assert not second.ready(), "tasks wait: they could not be recorded"
    armed.go_on()
    assert second.get(60) == list(range(50, 0, -1))
    wait_until(lambda: rc.db_count({"state": "completed"}) == 101)
    log = next((profile / "log").glob("ipcontroller-*.log")).read_text()
    assert "the thread that writes to the task database has not turned for" in log
    assert "turns again, after" in log
    assert psutil.pid_exists(controller.pid)
