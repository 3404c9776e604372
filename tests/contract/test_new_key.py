"""A new key of records takes one row in the table of fields, and a migration if SQLite shall have a column for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import engineroom

ROWS = '''\
    Field("colour", str, "a colour from the metadata", lambda e: metadata_of(e.spec).get("colour"), "column"),
    Field("peak", int, "peak memory", lambda e: e.done.peak_memory if e.done else None, "column", outcome=True),
    Field("shade", str, "derived", lambda e: "dark" if e.done else "bright", outcome=True, alias="tint"),
'''
MIGRATION = "ALTER TABLE tasks ADD COLUMN colour TEXT;\nALTER TABLE tasks ADD COLUMN peak INTEGER;\n"

SCRIPT = '''
import contextlib, json, sys
from pathlib import Path

from support.entries import NOW, finished, pending
from engineroom.client.records.export import write_records
from engineroom.errors import QueryError, StoreError
from engineroom.messages import TaskOptions
from engineroom.records.fields import DEFAULT_KEYS, KEYS
from engineroom.stores import DictDB, SQLiteDB
from engineroom.stores.maintenance.copy import StoreSide, copy
from engineroom.stores.mongodb.documents import document_of, record_of
from engineroom.stores.mongodb.queries import server_query
from engineroom.stores.query.parse import parse
from engineroom.stores.sqlite.doctor import repair, verify


def red(entry):
    entry.spec.options = TaskOptions(metadata={"colour": "red"})
    return entry


def ids(records):
    return [record["msg_id"] for record in records]


def use(store):
    store.write([red(pending("a")), pending("b", NOW + 1)])
    assert store.get_record("a")["colour"] == "red"
    assert [store.get_record(id)["shade"] for id in "ab"] == ["bright", "bright"]
    done = [red(finished("a")), finished("b", NOW + 1), finished("c", NOW + 2)]
    for entry in done:
        entry.done.peak_memory = 7
    store.write(done)
    store.add_record("d", {"colour": "blue", "peak": 8, "submitted": None})
    keys = ["colour", "peak", "shade"]
    found = {r["msg_id"]: tuple(r[key] for key in keys) for r in store.find_records({}, keys)}
    assert found == {
        "a": ("red", 7, "dark"), "b": (None, 7, "dark"), "c": (None, 7, "dark"), "d": ("blue", 8, None)
    }, found
    assert {id: tuple(store.get_record(id)[key] for key in keys) for id in "abcd"} == found
    assert ids(store.find_records({"colour": "red"}, "msg_id")) == ["a"]
    assert ids(store.find_records({"peak": {"$gt": 7}}, "msg_id")) == ["d"]
    assert store.count({"tint": "dark"}) == 3
    assert ids(store.find_records({}, "msg_id", sort=[("colour", -1)], limit=2)) == ["a", "d"]
    assert store.distinct("colour", {}) == [None, "blue", "red"]
    assert [(g["key"], g["mean"]) for g in store.group_by("peak", {}, values="peak")] == [(7, 7.0), (8, 8.0)]
    store.update_record("b", {"colour": "green", "tint": "odd"})
    assert store.get_record("b")["colour"] == "green" and store.get_record("b").get("shade") == "odd"
    with contextlib.suppress(StoreError):
        store.add_record("e", {"colour": 3})
        raise SystemExit("a colour is a text")
    assert store.entries(["a"])["a"].done.peak_memory == 7
    assert set(DEFAULT_KEYS) <= store.find_records({}, limit=1)[0].keys()


try:
    parse({"color": "red"})
except QueryError as error:
    assert "did you mean 'colour'" in str(error)

folder = Path(sys.argv[1])
use(DictDB())
store = SQLiteDB(folder / "tasks.db")  # made by the version without these keys
assert store.get_record("old")["colour"] is None and store.get_record("old")["shade"] == "dark"
store.drop_record("old")
use(store)
copied = DictDB()
copy(StoreSide(store), StoreSide(copied))
assert [dict(record) for record in copied.find_records({}, list(KEYS))] == [
    dict(record) for record in store.find_records({}, list(KEYS))
]
write_records(folder / "all.jsonl", store.find_records({}))
assert json.loads((folder / "all.jsonl").read_text().splitlines()[1])["colour"] == "red"
store.close()
assert verify(folder / "tasks.db").sound
assert repair(folder / "tasks.db", folder / "repaired.db").good == 4
assert SQLiteDB(folder / "repaired.db", readonly=True).get_record("a")["colour"] == "red"

for entry in red(finished("a")), finished("a"):
    document, apart = document_of(entry)
    record = record_of(document, apart, KEYS)
    assert (record["colour"], record["shade"]) == (entry.spec.options and "red", "dark")
assert server_query(parse({"colour": "red"})) == {"colour": "red"}
'''


def test_one_row_and_a_migration_make_a_key(tmp_path: Path) -> None:
    old = "from support.entries import finished; from engineroom.stores import SQLiteDB; import sys;"
    old += "store = SQLiteDB(sys.argv[1] + '/tasks.db'); store.write([finished('old')]); store.close()"
    run(Path(engineroom.__file__).parent.parent, old, tmp_path)
    source = tmp_path / "src"
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(engineroom.__file__).parent, source / "engineroom", ignore=without_caches)
    fields = source / "engineroom" / "records" / "fields.py"
    before, end, after = fields.read_text().partition(")  # fmt: skip\n\n#: key → its row\n")
    assert end, "the table of fields ends otherwise than this test expects"
    fields.write_text(before + ROWS + end + after)
    migrations = source / "engineroom" / "stores" / "sqlite" / "sql"
    newest = max(int(file.name[:3]) for file in migrations.glob("*.sql"))
    (migrations / f"{newest + 1:03}_colour.sql").write_text(MIGRATION)
    run(source, SCRIPT, tmp_path)


def run(source: Path, script: str, folder: Path) -> None:
    paths = os.pathsep.join([str(source), str(Path(__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
