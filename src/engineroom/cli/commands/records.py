"""Where the commands find task records: in the running cluster of a profile, or in its database, opened read-only."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from typing import Any, ClassVar

from traitlets import Bool, Enum, Unicode

from ...client import Client
from ...client.records.scope import in_session
from ...cluster.found_cluster import FoundCluster
from ...config import did_you_mean, profile_folders
from ...errors import ConfigError, EngineroomError, QueryError
from ...reading.query_text import moment, parse_query
from ...reading.records import Records
from ...records.database_urls import file_of, url_of
from ...records.states import STATES
from ...stores import MongoDB, SQLiteDB
from ..base import BASE_ALIASES, BASE_FLAGS, EngineroomApp, UsageError
from ..databases import database_url


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
            folders = profile_folders(self.ipython_directory or None)
            running = [other for folder in folders for other in FoundCluster.all_of(folder) if other.running]
        if len(running) > 1:
            named = ", ".join(f"`{other.files.options().strip()}`" for other in running)
            raise ConfigError(f"{len(running)} clusters are running; say which of them you want: {named}")
        return running[0] if running else found

    def _has_database(self) -> bool:
        file = file_of(self.database)
        return file is None or file.exists()

    def records(self) -> Records:
        """The records of the running cluster, or of the profile's database if none is running.

        Raises
        ------
        ConfigError
            No cluster is running, and there is no database to read.
        """
        return self.records_of(self.found(anywhere=not self.db_url and not self._has_database()))

    def records_of(self, found: FoundCluster) -> Records:
        """The records of a cluster if it runs; else those of the database that the options name."""
        if not self.db_url and (found.running or found.is_elsewhere):
            info = found.connection
            if info is not None:
                with contextlib.suppress(EngineroomError, TimeoutError):
                    return Records(client=Client(info, timeout=5), url=info.database)
        return opened(self.database, str(found))

    @property
    def database(self) -> str:
        """The url of the database that the options name, or the configuration of the profile."""
        if self.db_url:
            return self.db_url if "://" in self.db_url else url_of(self.db_url)
        given = self.config.IPController
        url = database_url(self, self.folder, given.get("db_url", ""), given.get("db_class", ""))
        file = file_of(url)
        return url if file is None else url_of(file)


class MatchingApp(RecordsApp):
    """Base of the commands that show the tasks that match a query, or options in its place."""

    positional: ClassVar[tuple[int, int, str]] = (0, 1, "QUERY")
    matching_aliases: ClassVar[dict[str, str]] = {"state": "MatchingApp.state", "label": "MatchingApp.label"}

    state = Enum(["", *STATES], "", help=f"Only those in this state: {', '.join(STATES)}.").tag(config=True)
    label = Unicode("", help="Only those with this label; * and ? stand for anything.").tag(config=True)

    def query(self) -> dict[str, Any]:
        """What the tasks must match: the argument, --state and --label.

        Raises
        ------
        UsageError
            The argument is no query.
        """
        conditions = [query_of(self.extra_args[0])] if self.extra_args else []
        if self.state:
            conditions.append({"state": self.state})
        if self.label:
            pattern = any(character in self.label for character in "*?[")
            conditions.append({"label": {"$glob": self.label} if pattern else self.label})
        return {"$and": conditions} if len(conditions) > 1 else conditions[0] if conditions else {}


def query_of(text: str) -> dict[str, Any]:
    """A query as the user typed it. Raises UsageError if it is none."""
    try:
        return parse_query(text)
    except QueryError as error:
        raise UsageError(str(error)) from None


def moment_of(option: str, text: str) -> datetime:
    """A time as the user typed it: "-2h", say. Raises UsageError, which names the option, if it is none."""
    try:
        return moment(text)
    except QueryError as error:
        raise UsageError(f"{option}: {error}") from None


def opened(url: str, owner: str) -> Records:
    """The records in a database, opened to read.

    Parameters
    ----------
    owner : str
        Whose database it is, for messages.

    Raises
    ------
    ConfigError
        It is not there.
    """
    if url.startswith("mongodb"):
        server = MongoDB(url, readonly=True)
        return Records(store=server, url=server.url)
    path = file_of(url)
    if path is None:
        raise ConfigError(f"{owner} is not running, and its records ended with it: they were in {url} only")
    if not path.exists():
        question = did_you_mean(path.parent)
        raise ConfigError(
            f"{owner} is not running, and it has no task database {path}. {question}{question and ' '}Start it with "
            "`ipcluster start`, or name another profile with --profile="
        )
    return Records(store=SQLiteDB.open_readonly(path), url=url)
