"""`engineroom resubmit`, `abort`, `cancel`, `purge`, `export`: act on all tasks that match a query."""

from __future__ import annotations

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
from ...reading.records import Records
from ...records.fields import DEFAULT_KEYS
from ...records.record import TaskRecord
from ...stores import open_store
from ...stores.maintenance.compact import purge
from ..bars import bar
from ..base import UsageError
from ..text import as_json, paint, plural
from .records import RecordsApp, query_of

#: Records read in one go.
PAGE = 1000


class BulkActionApp(RecordsApp):
    """Base of the commands that act on all tasks that match a query."""

    aliases: Any = {**RecordsApp.session_alias, **RecordsApp.aliases}
    flags: Any = {
        "dry-run": ({"BulkActionApp": {"dry_run": True}}, "change nothing; print how many tasks match, and the first"),
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
        found = query_of(text)
        if not found and self.action != "export":
            raise UsageError(f"an empty query would {self.action} every task; type `all` if you mean that")
        return found

    def tell(self, selection: Selection, origin: str) -> None:
        """Print what was done, or what would be done."""
        if self.json:
            print(as_json(msgspec.to_builtins(selection)))
        else:
            print(selection)
            print(paint(f"({origin})", "dim", stream=sys.stderr), file=sys.stderr)


class ConfirmedApp(BulkActionApp):
    """Base of the commands that ask before they act."""

    flags: Any = {"yes": ({"ConfirmedApp": {"yes": True}}, "do not ask for confirmation"), **BulkActionApp.flags}

    yes = Bool(False, help="Do not ask.").tag(config=True)

    def is_meant(self, selection: Selection) -> bool:
        """Ask the user. Without a terminal nobody can answer, so --yes is needed.

        Raises
        ------
        UsageError
            There is no terminal, and --yes was not given.
        """
        if self.yes or not selection.count:
            return True
        sessions = f" of {plural(selection.other_sessions, 'session')}" if selection.others else ""
        if not sys.stdin.isatty():
            raise UsageError(
                f"this would {self.action} {plural(selection.count, 'task')}{sessions}. Add --yes to do it, or "
                "--dry-run to see which tasks they are (the input is not a terminal, so the command cannot ask)"
            )
        print(msgspec.structs.replace(selection, dry_run=True))
        answer = input(f"{self.action.capitalize()} {plural(selection.count, 'task')}{sessions}? [y/N] ")
        return answer.strip().lower() in ("y", "yes")


def running(records: Records, action: str) -> Any:
    """The client of the running cluster.

    Raises
    ------
    ConfigError
        No cluster is running: only purge and export can do without.
    """
    if records.client is None:
        raise ConfigError(f"no cluster is running, but `engineroom {action}` needs one. Type `ipcluster start`")
    return records.client


class Resubmit(BulkActionApp):
    """Run all finished tasks whose records match QUERY again, as new tasks. Pending tasks are left out.

    The command does not wait for the new tasks. QUERY is as for `engineroom tasks`, or the word `all`. A cluster must
    be running.
    """

    description = __doc__
    usage = "engineroom resubmit QUERY [options]"
    action = "resubmit"
    examples = """
engineroom resubmit '{"result_content.ename": "MemoryError", "completed": {"$gt": "-1d"}}' --dry-run
engineroom resubmit '{"state": "failed"}' --session=last
"""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            client = running(records, self.action)
            query = self.scoped(records, query)
            if self.dry_run:
                self.tell(client.resubmit(query=query, dry_run=True), records.origin)
                return
            self.tell(client.resubmit(query=query).selection, records.origin)


class EndingApp(ConfirmedApp):
    """Base of `abort` and `cancel`: both end tasks."""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            act = getattr(running(records, self.action), self.action)
            query = self.scoped(records, query)
            chosen = act(query=query, dry_run=True)
            if not self.dry_run:
                if not self.is_meant(chosen):
                    print("Nothing was done.")
                    return
                chosen = act(query=query, block=True)
            self.tell(chosen, records.origin)


class Abort(EndingApp):
    """End all tasks that match QUERY and have not started. Running tasks go on.

    QUERY is as for `engineroom tasks`, or the word `all`. A cluster must be running. The command asks before it acts,
    unless --yes is given.
    """

    description = __doc__
    usage = "engineroom abort QUERY [options]"
    action = "abort"
    examples = """
engineroom abort '{"label": "sweep"}' --dry-run
engineroom abort all --yes
"""


class Cancel(EndingApp):
    """End all tasks that match QUERY. Running tasks are interrupted.

    QUERY is as for `engineroom tasks`, or the word `all`. A cluster must be running. The command asks before it acts,
    unless --yes is given.
    """

    description = __doc__
    usage = "engineroom cancel QUERY [options]"
    action = "cancel"
    examples = """
engineroom cancel '{"label": "sweep", "submitted": {"$lt": "-2h"}}'
"""


class Purge(ConfirmedApp):
    """Delete the records of all finished tasks that match QUERY. Records of pending tasks stay.

    QUERY is as for `engineroom tasks`, or the word `all`. If no cluster of the profile is running, the command opens
    the database itself, and no cluster can start until it is done. It asks before it acts, unless --yes is given.
    """

    description = __doc__
    usage = "engineroom purge QUERY [options]"
    action = "purge"
    aliases: Any = {**RecordsApp.database_alias, **ConfirmedApp.aliases}
    examples = """
engineroom purge '{"completed": {"$lt": "-30d"}}' --dry-run
engineroom purge '{"completed": {"$lt": "-30d"}}' --yes
engineroom purge all
"""

    def start(self) -> None:
        query = self.query()
        with self.records() as records:
            query = self.scoped(records, query)
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
        store = open_store(self.database)  # it takes the lock, so no controller writes meanwhile
        try:
            with bar("") as progress:
                dropped = purge(store, taken(checked(query, self.action), self.action), chosen.count, progress)
        finally:
            store.close()
        self.tell(msgspec.structs.replace(chosen, count=dropped), records.origin)


class Export(BulkActionApp):
    """Write records that match QUERY to FILE. Its ending says how: .jsonl (JSON lines), .csv or .parquet.

    QUERY is as for `engineroom tasks`, or the word `all`. If no cluster of the profile is running, the records are
    read from its database. An existing FILE is replaced.
    """

    description = __doc__
    usage = "engineroom export QUERY FILE [options]"
    positional: ClassVar[tuple[int, int, str]] = (2, 2, "QUERY FILE")
    action = "export"
    examples = """
engineroom export all tasks.jsonl
engineroom export '{"state": "failed"}' failed.csv --keys=label,started,duration,attempts
"""
    aliases: Any = {"keys": "Export.keys", **RecordsApp.database_alias, **BulkActionApp.aliases}

    keys = Unicode("", help="Which keys of the records to write, separated by commas.").tag(config=True)

    def start(self) -> None:
        query, path = self.query(), Path(self.extra_args[1])
        format_of(path)
        keys = [key for key in self.keys.replace(" ", "").split(",") if key] or None
        with self.records() as records:
            query = self.scoped(records, query)
            chosen = select(records, query, self.action, dry_run=self.dry_run)
            if not self.dry_run:
                written = write_records(path, _pages(records, checked(query, self.action), keys), keys)
                chosen = msgspec.structs.replace(chosen, count=written)
            self.tell(chosen, records.origin)


def _pages(records: Records, query: Mapping[str, Any], keys: list[str] | None) -> Iterator[TaskRecord]:
    """Records one by one, from a cluster or a database file."""
    wanted = keys or list(DEFAULT_KEYS)
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
