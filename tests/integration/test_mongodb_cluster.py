"""A cluster that records on a MongoDB-protocol server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import mongodb

import engineroom as er
from engineroom.ids import TaskId
from engineroom.stores import MongoDB

pytestmark = pytest.mark.slow

# A test names its server before its cluster: so the cluster ends first.


def fails() -> None:
    raise MemoryError("no room")


def test_tasks_are_recorded_on_a_server(
    fresh_cluster: Callable[..., er.Client], open_mongodb: Callable[..., MongoDB]
) -> None:
    store = open_mongodb(readonly=True)
    host, port = next(iter(store._connection._client.nodes))
    url = f"mongodb://{host}:{port}/{store._database.name}"
    rc = fresh_cluster(n=2, database=url)
    view = rc.load_balanced_view(label="served")
    assert view.map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
    bad = view.apply_async(fails)
    bad.wait(60)
    assert rc.cluster.connection.database == url
    assert rc.db_query({"result_content.ename": "MemoryError"}, "label") == [
        {"msg_id": bad.msg_ids[0], "label": "served"}
    ]
    assert rc.db_distinct("state", {"label": "served"}) == ["completed", "failed"]
    history = rc.hub_history()
    assert [record["msg_id"] for record in rc.db_iter({}, "state", batch=3)] == history
    assert rc.resubmit(history[0]).get() is not None
    assert rc.purge_hub_results("all") >= len(history)
    assert rc.hub_history() == []


def test_a_burst_is_recorded(own_server: mongodb.Server, fresh_cluster: Callable[..., er.Client]) -> None:
    rc = fresh_cluster(n=2, database=f"{own_server.url}engineroom")
    view = rc.load_balanced_view()
    results = [view.apply_async(abs, -n) for n in range(3000)]
    assert [result.get(60) for result in results] == list(range(3000))
    assert rc.db_count({"state": "completed"}) == 3000


@pytest.mark.fault(17)
def test_a_server_that_goes_away_in_mid_run_and_comes_back(
    own_server: mongodb.Server, fresh_cluster: Callable[..., er.Client]
) -> None:
    rc = fresh_cluster(n=2, database=f"{own_server.url}engineroom")
    view = rc.load_balanced_view()
    before = [view.apply_async(abs, -n) for n in range(50)]
    own_server.stop(kill=True)
    during = [view.apply_async(abs, -n) for n in range(50, 100)]
    assert [result.get(60) for result in during] == list(range(50, 100))  # nobody waits for the database
    own_server.start()
    assert [result.get(60) for result in before] == list(range(50))
    assert rc.db_count({"state": "completed"}) == 100


def test_the_command_line_finds_the_records_when_no_cluster_runs(
    open_mongodb: Callable[..., MongoDB], tmp_path: Path
) -> None:
    store = open_mongodb()
    for n in range(3):
        store.add_record(TaskId(f"t{n}"), {"state": "completed", "completed": datetime.now(UTC), "label": f"l{n}"})
    store.close()
    host, port = store.url.removeprefix("mongodb://").partition("/")[0].split(":")
    (tmp_path / "ipcontroller_config.py").write_text(
        f"c.HubFactory.db_class = 'MongoDB'\nc.MongoDB.url = 'mongodb://{host}:{port}/{store._database.name}'\n"
    )

    def shell(*words: str) -> str:
        command = [Path(sys.executable).parent / "engineroom", *words, f"--profile-dir={tmp_path}"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert [record["msg_id"] for record in json.loads(shell("tasks", "--json", "--sort=msg_id"))] == ["t0", "t1", "t2"]
    assert json.loads(shell("db", "info", "--json"))["records"] == 3
    assert "l1" in shell("show", "t1")
    shell("export", "all", str(tmp_path / "all.jsonl"))
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 3
    assert shell("purge", '{"label": "l1"}', "--yes").startswith("purge: 1 task")
    assert len(json.loads(shell("tasks", "--json"))) == 2
