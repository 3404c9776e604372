"""Acting on tasks by query, from a terminal, with a cluster and without."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time

import pytest
from test_cli import BIN, SECONDS, Shell, fails, shell, talks  # noqa: F401

from engineroom.stores import SQLiteDB


def answered(shell: Shell, answer: str, *command: str) -> tuple[str, int]:  # noqa: F811
    """Run a command in a terminal in which somebody types an answer."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BIN / command[0], *command[1:]], env=shell.env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return text.decode(), process.wait(SECONDS)


def test_acting_by_query_on_a_cluster_and_on_its_file(shell: Shell, tmp_path) -> None:  # noqa: F811
    shell("ipcluster", "start", "-n", "2", "--daemonize")
    with shell.client() as rc:
        view = rc.load_balanced_view(label="acting")
        view.map_sync(talks, range(3))
        view.apply_async(fails, 7).wait(SECONDS)

        dry = shell.here("engineroom", "resubmit", '{"state": "failed"}', "--dry-run").stdout
        assert dry.startswith("would resubmit 1 task: ")
        assert "; all of 1 other session" in dry
        session = rc.session.session
        dry = shell.here("engineroom", "resubmit", "all", "--dry-run", f"--session={session}").stdout
        assert "resubmit 4 tasks" in dry
        assert "no task is of a session" in shell.here("engineroom", "tasks", "--session=xyz", code=2).stderr
        assert len(shell.json("engineroom", "tasks", "--session=last", "--json")) == 4
        done = shell.json("engineroom", "resubmit", '{"state": "failed", "resubmitted": null}', "--json")
        assert (done["action"], done["count"], done["left_out"]) == ("resubmit", 1, 0)
        assert rc.wait(query={"label": "acting"}, timeout=SECONDS)
        assert rc.db_count({"label": "acting", "state": "failed"}) == 2

        sleeping = view.map_async(time.sleep, [60] * 4)
        assert "would cancel 4 tasks" in shell.here("engineroom", "cancel", '{"label": "acting"}', "--dry-run").stdout
        refused = shell.here("engineroom", "cancel", '{"label": "acting"}', code=2)
        assert "--yes" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert not sleeping.done()
        text, code = answered(shell, "n", "engineroom", "abort", '{"label": "acting"}')
        assert "would abort 4 tasks" in text
        assert "Abort 4 tasks of 1 session? [y/N]" in text
        assert "Nothing was done." in text
        assert code == 0
        text, code = answered(shell, "y", "engineroom", "cancel", '{"label": "acting"}')
        assert "cancel: 4 tasks" in text
        assert sleeping.wait(SECONDS)

        exported = tmp_path / "tasks.jsonl"
        shell.here("engineroom", "export", "all", str(exported), "--keys=state,attempts")
        lines = [json.loads(line) for line in exported.read_text().splitlines()]
        assert len(lines) == rc.db_count({}) == 9
        assert set(lines[0]) == {"msg_id", "state", "attempts"}
        purged = shell.here("engineroom", "purge", '{"state": "aborted"}', "--yes").stdout
        assert purged.startswith("purge: 4 tasks")
        assert rc.db_count({}) == 5
        details = shell.here("engineroom", "show", rc.db_query({"state": "failed"}, "msg_id")[0]["msg_id"]).stdout
        assert "test_cli.fails" in details
        assert " MB" in details

    shell.here("ipcluster", "stop")
    assert "no cluster is running" in shell.here("engineroom", "resubmit", "all", code=1).stderr
    assert "no cluster is running" in shell.here("engineroom", "abort", "all", "--yes", code=1).stderr
    assert shell.here("engineroom", "export", '{"state": "failed"}', str(tmp_path / "f.csv")).stdout.startswith(
        "export: 2 tasks"
    )
    assert len((tmp_path / "f.csv").read_text().splitlines()) > 2
    assert "would purge 2 tasks" in shell.here("engineroom", "purge", '{"state": "failed"}', "--dry-run").stdout
    [file] = shell.folder.glob("**/tasks.db")
    owner = SQLiteDB(file)
    assert "belongs to another controller" in shell.here("engineroom", "purge", "all", "--yes", code=12).stderr
    owner.close()
    missing = shell.here("engineroom", "export", "--keys=label", "all", str(tmp_path / "no" / "a.csv"), code=1)
    assert len(missing.stderr.splitlines()) == 1
    assert shell.here("engineroom", "purge", "all", "--yes").stdout.startswith("purge: 5 tasks")
    assert shell.here("engineroom", "tasks", "--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("engineroom purge {}", 2, "type `all`"),
        ("engineroom cancel {}", 2, "type `all`"),
        ("engineroom resubmit", 2, "QUERY"),
        ("engineroom abort nonsense", 2, "a query is JSON or a Python dict"),
        ("engineroom export all tasks.txt", 1, "none of those endings"),
        ("engineroom export all", 2, "QUERY FILE"),
        ("engineroom purge all", 1, "no task database"),
        ("engineroom export --dry-run all --keys label tasks.jsonl", 1, "no task database"),
    ],
)
def test_mistakes_are_told_in_one_line(shell: Shell, command: str, code: int, words: str) -> None:  # noqa: F811
    done = shell.here(*command.split(), code=code)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
