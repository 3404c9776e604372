"""Where the commands find task records: in the running cluster of a profile, or in its database, opened read-only."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickletools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from traitlets import Bool, Unicode

from ...client import Client
from ...client.records.query_args import plain_query
from ...client.records.scope import in_session
from ...cluster.found_cluster import FoundCluster
from ...config import ipython_dir
from ...errors import ConfigError, EngineroomError, QueryError, StoreError, UnknownTask
from ...ids import Digest
from ...records.fields import TIMES
from ...records.record import TaskRecord
from ...stores import MongoDB, SQLiteDB, TaskStore
from ..base import BASE_ALIASES, BASE_FLAGS, EngineroomApp
from ..databases import database_url

_SQLITE = "sqlite://"


class RecordsApp(EngineroomApp):
    """Base of the commands that read task records."""

    name = "engineroom"
    aliases: Any = {key: BASE_ALIASES[key] for key in ("profile", "profile-dir", "ipython-dir", "cluster-id")}
    #: those of commands that can read a database by themselves
    database_alias: ClassVar[dict[str, str]] = {"db-url": "RecordsApp.db_url"}
    #: those of commands that take a query
    session_alias: ClassVar[dict[str, str]] = {"session": "RecordsApp.session"}
    flags: Any = {
        "json": ({"RecordsApp": {"json": True}}, "print JSON, for programs"),
        "no-config": BASE_FLAGS["no-config"],
    }
    #: the controller's configuration: it may say where the database is
    config_names: ClassVar[tuple[str, ...]] = ("ipcontroller_config",)

    json = Bool(False, help="Print JSON.").tag(config=True)
    db_url = Unicode("", help="Read this database instead: a file, or a url. For when no cluster uses it.").tag(
        config=True
    )
    session = Unicode(
        "", help="Only tasks of this session: its id (`client` in `engineroom show`), its beginning, or `last`."
    ).tag(config=True)

    def scoped(self, records: Records, query: Any) -> Any:
        """A query, narrowed to the session that --session names."""
        return in_session(records, query, self.session or None)

    def found(self, *, anywhere: bool) -> FoundCluster:
        """The cluster that is meant: the one named, or else the only one of the profile that runs, whoever started it.

        `anywhere`: if none of the profile runs, and no profile is named, the only one that runs in any profile.

        Raises
        ------
        ConfigError
            Several run. The message says what to type for each.
        """
        found = FoundCluster(self.folder, self.cluster_id)
        if self.cluster_id or found.running or found.is_elsewhere:
            return found
        others = list(FoundCluster.all_of(self.folder))
        running = [other for other in others if other.running] or [other for other in others if other.is_elsewhere]
        if not (running or self.profile or self.profile_directory or os.environ.get("IPP_PROFILE_DIR")) and anywhere:
            folders = sorted(ipython_dir(self.ipython_directory or None).absolute().glob("profile_*"))
            running = [other for folder in folders for other in FoundCluster.all_of(folder) if other.running]
        if len(running) > 1:
            named = ", ".join(f"`{other.files.options().strip()}`" for other in running)
            raise ConfigError(f"{len(running)} clusters are running; say which of them you want: {named}")
        return running[0] if running else found

    def _has_database(self) -> bool:
        url = self._database_url()
        return not url.startswith(_SQLITE) or Path(url.removeprefix(_SQLITE)).exists()

    def records(self) -> Records:
        """The records of the running cluster, or of the profile's database if none is running.

        Raises
        ------
        ConfigError
            No cluster is running, and there is no database to read.
        """
        found = self.found(anywhere=not self.db_url and not self._has_database())
        if not self.db_url and (found.running or found.is_elsewhere):
            info = found.connection
            if info is not None:
                with contextlib.suppress(EngineroomError, TimeoutError):
                    return Records(client=Client(info, timeout=5), url=info.database)
        url = self._database_url()
        if url.startswith("mongodb"):
            server = MongoDB(url, readonly=True)
            return Records(store=server, url=server.url)
        if not url.startswith(_SQLITE):
            raise ConfigError(f"{found} is not running, and its records ended with it: they were in {url} only")
        path = Path(url.removeprefix(_SQLITE))
        if not path.exists():
            raise ConfigError(
                f"{found} is not running, and it has no task database {path}. Start it with `ipcluster start`, "
                "or name another profile with --profile="
            )
        return Records(store=SQLiteDB.open_readonly(path), url=url)

    def _database_url(self) -> str:
        if self.db_url:
            return self.db_url if "://" in self.db_url else f"{_SQLITE}/{str(Path(self.db_url).absolute()).lstrip('/')}"
        given = self.config.IPController
        url = database_url(self, self.folder, given.get("db_url", ""), given.get("db_class", ""))
        return f"{_SQLITE}/{url.removeprefix(_SQLITE).lstrip('/')}" if url.startswith(_SQLITE) else url


class Records:
    """Records of a running cluster (`client`), or of a file or a server (`store`)."""

    def __init__(self, *, client: Client | None = None, store: TaskStore | None = None, url: str = "") -> None:
        self.client, self.url = client, url
        self._store = store
        self._names: dict[str, str] = {}
        if store is None and url.startswith(_SQLITE):
            # the names of functions are read from the file, as the controller does not tell them
            with contextlib.suppress(StoreError):
                self._store = SQLiteDB.open_readonly(Path(url.removeprefix(_SQLITE)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()
        if self.client is not None:
            self.client.close()

    @property
    def session(self) -> str:
        """No session is that of a command."""
        return ""

    @property
    def origin(self) -> str:
        """Where the records come from, in words."""
        where = self.url.removeprefix(_SQLITE)
        return f"running cluster, {where}" if self.client is not None else f"{where}, no cluster is running"

    @property
    def store(self) -> TaskStore:
        """The database, where no cluster is running."""
        assert self._store is not None
        return self._store

    def find(
        self,
        query: Mapping[str, Any],
        keys: Sequence[str] | None = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Records that match."""
        if self.client is not None:
            found: list[TaskRecord] = self.client.db_query(query, keys, sort=sort, limit=limit, skip=skip)
            return found
        return self.store.find_records(query, keys, sort=sort, limit=limit, skip=skip)

    def count(self, query: Mapping[str, Any]) -> int:
        """How many match."""
        if self.client is not None:
            return self.client.db_count(query)
        return self.store.count(query)

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value of a key in the records that match, once."""
        if self.client is not None:
            return self.client.db_distinct(key, query)
        return self.store.distinct(key, query or {})

    def one(self, name: str) -> TaskRecord:
        """The record of one task.

        Parameters
        ----------
        name : str
            Its msg_id, or the beginning of it that no other msg_id has, or "<beginning>-<number>".

        Raises
        ------
        UnknownTask
            No task has such a msg_id, or several tasks have.
        """
        session, dash, number = name.partition("-")
        if not re.fullmatch(r"[\w-]+", name):
            raise UnknownTask(f"{name!r} is not a msg_id")
        patterns = [f"^{re.escape(name)}$"]
        if dash and number:
            patterns.append(f"^{re.escape(session)}[^-]*-{re.escape(number)}$")
        patterns.append(f"^{re.escape(name)}")
        for pattern in patterns:
            found = self.find({"msg_id": {"$regex": pattern}}, ["msg_id"], limit=6)
            if len(found) == 1:
                return self.find({"msg_id": found[0]["msg_id"]}, limit=1)[0]
            if found:
                several = ", ".join(record["msg_id"] for record in found[:5]) + (" …" if len(found) > 5 else "")
                raise UnknownTask(f"several tasks begin with {name!r}: {several}")
        raise UnknownTask(f"no task has a msg_id that begins with {name!r} ({self.origin})")

    def what(self, record: TaskRecord) -> str:
        """What a task runs, in a few words: the function's name, or the first line of the code."""
        code = (record.get("content") or {}).get("code")
        if code is not None:
            return str(code).strip().partition("\n")[0]
        digest = record.get("function")
        return self.function_name(digest) if digest else ""

    def function_name(self, digest: str) -> str:
        """The name of a function by its digest, or the first digits of the digest if the name is not known."""
        if digest not in self._names:
            name = ""
            if self._store is not None:
                with contextlib.suppress(KeyError, EngineroomError, ValueError):
                    function = self._store.get_function(Digest(bytes.fromhex(digest)))
                    name = function.name or name_in_pickle(function.payload)
            self._names[digest] = name or f"function {digest[:8]}"
        return self._names[digest]


def name_in_pickle(payload: bytes) -> str:
    """The name of a pickled function, found without unpickling it; "" if it is not clear."""
    memo: list[Any] = []
    texts: list[str] = []
    last: Any = None
    for opcode, argument, _ in pickletools.genops(payload):
        name = opcode.name
        if name == "MEMOIZE":
            memo.append(last)
            continue
        if name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
            argument = memo[argument]
        last = argument if isinstance(argument, str) else None
        if name == "STACK_GLOBAL":
            last = None
        if isinstance(argument, str):
            if texts and texts[-1] == "__qualname__":
                return argument.removeprefix("<locals>.")
            texts.append(argument)
    if len(texts) >= 2 and len(memo) <= 4:  # by name: module, name
        module, _, _ = texts[0].partition(" ")
        return texts[1] if module == "builtins" else f"{module}.{texts[1]}"
    return ""


# ------------------------------------------------------------------------------------------ queries as text


def parse_query(text: str) -> dict[str, Any]:
    """A MongoDB-style query as a user writes it in a terminal: JSON or a Python literal.

    Times may be written as ISO text ("2026-01-31 14:00"), as an age ("-2h", "-30m", "-7d"), or as {"$date": …}.

    Raises
    ------
    QueryError
        The text is neither JSON nor a Python literal, or not a dict, or `plain_query` refuses the query.
    """
    try:
        query = json.loads(text)
    except (ValueError, RecursionError) as problem:
        try:
            query = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise QueryError(
                f'a query is JSON or a Python dict, like \'{{"state": "failed"}}\'; in {text!r}: {problem}'
            ) from None
    if not isinstance(query, dict):
        raise QueryError(f'a query is a dict, like \'{{"state": "failed"}}\'; got {text!r}')
    return plain_query({key: _with_times(value, key in TIMES) for key, value in query.items()})


def _with_times(value: Any, is_time: bool) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$date"}:
            return _moment(str(value["$date"]))
        return {
            key: _with_times(part, (is_time and str(key).startswith("$")) or key in TIMES)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_with_times(part, is_time) for part in value]
    return _moment(value) if is_time and isinstance(value, str) else value


_AGE = re.compile(r"-(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(text: str) -> datetime:
    """An instant from ISO text (local time unless it says otherwise) or an age."""
    if age := _AGE.fullmatch(text.strip()):
        with contextlib.suppress(OverflowError):  # before the calendar begins
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise QueryError(f"{text!r} is not a time; write 2026-01-31, 2026-01-31T14:00 or -2h") from None
