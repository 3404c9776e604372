"""`engineroom resubmit`, `abort`, `cancel`, `purge`, `export`: act on all tasks that match a query."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from traitlets import Bool, Unicode

from ...client.records.actions import checked, select, taken
from ...client.records.export import format_of, write_records
from ...client.records.selection import Selection
from ...errors import ConfigError
from ...records.record import BULKY, KEYS, TaskRecord
from ...stores import open_store
from ...stores.maintenance.references import drop_unreferenced
from ..base import UsageError
from ..text import jsonable, paint
from .records import Records, RecordsApp, parse_query

#: Records read in one go.
PAGE = 1000


class BulkActionApp(RecordsApp):
    """Base of the commands that act on all tasks that match a query."""

    aliases: Any = {**RecordsApp.aliases}
    flags: Any = {
        "dry-run": ({"BulkActionApp": {"dry_run": True}}, "do nothing, tell how many tasks it would be, and the first"),
        **RecordsApp.flags,
    }
    action: ClassVar[str] = ""
    positional: ClassVar[tuple[int, int, str]] = (1, 1, "QUERY")

    dry_run = Bool(False, help="Do nothing.").tag(config=True)

    def query(self) -> Any:
        """The query on the command line, or "all"."""
        text = self.extra_args[0]
        if text == "all":
            return "all"
        found = parse_query(text)
        if not found and self.action != "export":
            raise UsageError(f"an empty query would {self.action} every task: say `all` if that is meant")
        return found

    def tell(self, selection: Selection, origin: str) -> None:
        """What was done, or would be."""
        if self.json:
            print(json.dumps(msgspec.to_builtins(selection), default=jsonable, indent=1))
        else:
            print(selection)
            print(paint(f"({origin})", "dim", stream=sys.stderr), file=sys.stderr)


class ConfirmedApp(BulkActionApp):
    """Base of those that ask first."""

    flags: Any = {"yes": ({"ConfirmedApp": {"yes": True}}, "do not ask"), **BulkActionApp.flags}

    yes = Bool(False, help="Do not ask.").tag(config=True)

    def is_meant(self, selection: Selection) -> bool:
        """Ask in a terminal; without one, --yes must be given."""
        if self.yes or not selection.count:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                f"this would {self.action} {selection.count:,} tasks: give --yes, or --dry-run to see which "
                "(nobody can be asked: the input is not a terminal)"
            )
        print(msgspec.structs.replace(selection, dry_run=True))
        answer = input(f"{self.action.capitalize()} {selection.count:,} tasks? [y/N] ")
        return answer.strip().lower() in ("y", "yes")


def running(records: Records, action: str) -> Any:
    """The client of the running cluster, which this action needs."""
    if records.client is None:
        raise ConfigError(
            f"no cluster is running, so there is nothing to {action} with: start it with `ipcluster start`"
        )
    return records.client


class Resubmit(BulkActionApp):
    """Run all finished tasks again whose records match QUERY, as new tasks; pending ones are left out.

    The command does not wait for them. QUERY is that of `engineroom tasks`, or the word `all`. A cluster must be
    running.
    """

    description = __doc__
    usage = "engineroom resubmit QUERY [options]"
    action = "resubmit"
    examples = """
engineroom resubmit '{"result_content.ename": "MemoryError", "completed": {"$gt": "-1d"}}' --dry-run
engineroom resubmit '{"result_content.ename": "MemoryError", "completed": {"$gt": "-1d"}}'
"""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            client = running(records, self.action)
            if self.dry_run:
                self.tell(client.resubmit(query=query, dry_run=True), records.origin)
                return
            self.tell(client.resubmit(query=query).selection, records.origin)


class EndingApp(ConfirmedApp):
    """Base of `abort` and `cancel`."""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            act = getattr(running(records, self.action), self.action)
            chosen = act(query=query, dry_run=True)
            if not self.dry_run:
                if not self.is_meant(chosen):
                    print("Nothing was done.")
                    return
                chosen = act(query=query, block=True)
            self.tell(chosen, records.origin)


class Abort(EndingApp):
    """End all tasks that have not started and match QUERY; those that are running go on.

    QUERY is that of `engineroom tasks`, or the word `all`. A cluster must be running. It asks first, unless --yes
    is given.
    """

    description = __doc__
    usage = "engineroom abort QUERY [options]"
    action = "abort"
    examples = """
engineroom abort '{"label": "sweep"}' --dry-run
engineroom abort all --yes
"""


class Cancel(EndingApp):
    """End all tasks that match QUERY, also those that are running: they are interrupted.

    QUERY is that of `engineroom tasks`, or the word `all`. A cluster must be running. It asks first, unless --yes
    is given.
    """

    description = __doc__
    usage = "engineroom cancel QUERY [options]"
    action = "cancel"
    examples = """
engineroom cancel '{"label": "sweep", "submitted": {"$lt": "-2h"}}'
"""


class Purge(ConfirmedApp):
    """Forget all finished tasks whose records match QUERY; pending ones are left out.

    QUERY is that of `engineroom tasks`, or the word `all`. If no cluster of the profile is running, its database
    is changed directly, and belongs to this command meanwhile. It asks first, unless --yes is given.
    """

    description = __doc__
    usage = "engineroom purge QUERY [options]"
    action = "purge"
    examples = """
engineroom purge '{"completed": {"$lt": "-30d"}}' --dry-run
engineroom purge '{"completed": {"$lt": "-30d"}}' --yes
engineroom purge all
"""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            chosen = select(records, query, self.action, dry_run=self.dry_run)
            if self.dry_run:
                self.tell(chosen, records.origin)
                return
            if not self.is_meant(chosen):
                print("Nothing was done.")
                return
            if records.client is not None:
                dropped = records.client.purge_hub_results(query=query)
                self.tell(msgspec.structs.replace(chosen, count=dropped), records.origin)
                return
        store = open_store(self._database_url())  # takes the lock: nobody else writes meanwhile
        try:
            dropped = store.drop_matching_records(taken(checked(query, self.action), self.action))
            drop_unreferenced(store)
        finally:
            store.close()
        self.tell(msgspec.structs.replace(chosen, count=dropped), records.origin)


class Export(BulkActionApp):
    """Write records that match QUERY to FILE: JSON lines, CSV or Parquet, by its ending (.jsonl, .csv, .parquet).

    QUERY is that of `engineroom tasks`, or the word `all`. If no cluster of the profile is running, they come from its
    database. An existing FILE is replaced.
    """

    description = __doc__
    usage = "engineroom export QUERY FILE [options]"
    positional: ClassVar[tuple[int, int, str]] = (2, 2, "QUERY FILE")
    action = "export"
    examples = """
engineroom export all tasks.jsonl
engineroom export '{"state": "failed"}' failed.csv --keys=label,started,duration,attempts
"""
    aliases: Any = {"keys": "Export.keys", **BulkActionApp.aliases}

    keys = Unicode("", help="Which keys of the records to write, separated by commas.").tag(config=True)

    def start(self) -> None:
        query, path = self.query(), Path(self.extra_args[1])
        format_of(path)
        keys = [key for key in self.keys.replace(" ", "").split(",") if key] or None
        with self.records() as records:
            chosen = select(records, query, self.action, dry_run=self.dry_run)
            if not self.dry_run:
                written = write_records(path, _pages(records, checked(query, self.action), keys), keys)
                chosen = msgspec.structs.replace(chosen, count=written)
            self.tell(chosen, records.origin)


def _pages(records: Records, query: Mapping[str, Any], keys: list[str] | None) -> Iterator[TaskRecord]:
    """Records one by one, of a cluster or a file."""
    wanted = keys or [key for key in KEYS if key not in BULKY]
    if records.client is not None:
        yield from records.client.db_iter(query, wanted, batch=PAGE)
        return
    after = None
    while True:
        page = records.store.page(query, wanted, after=after, limit=PAGE)
        yield from page.records
        after = page.next
        if after is None:
            return
