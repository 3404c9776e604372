"""`engineroom dashboard`: a web page that shows a cluster, running or ended."""

from __future__ import annotations

import json
import re
import stat
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from traitlets import Bool, Integer, Unicode

from ...cluster.found_cluster import FoundCluster
from ...cluster.processes.dashboard_process import missing_parts
from ...config import dashboard_file, write_private
from ...errors import ConfigError
from ...reading.records import Records
from ...stores import open_store
from ...stores.maintenance.compact import purge
from ...system.heap import one_heap
from ..base import UsageError
from .records import RecordsApp, opened

#: Seconds between two looks whether the cluster has been stopped.
LOOK_SECONDS = 0.5


class DashboardApp(RecordsApp):
    """Show a cluster in a browser: engines, tasks, graphs, the database. Ctrl-C ends it.

    It shows the running cluster of the profile, or its database if none is running, or FILE: a task database.
    It prints a link, which holds a secret: whoever has the link can read everything, and act on tasks (not with
    --read-only). It listens on this host only. From another computer, use `ssh -L`, or jupyter-server-proxy.
    """

    description = __doc__
    usage = "engineroom dashboard [FILE] [options]"
    positional: ClassVar[tuple[int, int, str]] = (0, 1, "FILE")
    examples = """
engineroom dashboard
engineroom dashboard --profile=night --read-only
engineroom dashboard tasks.db                              # of a cluster that has ended
engineroom dashboard --port=8700                           # then: ssh -L 8700:127.0.0.1:8700 HOST
engineroom dashboard --port=8700 --allow-host=hub.example.org      # behind a proxy with that name
"""
    aliases: Any = {
        "port": "DashboardApp.port",
        "allow-host": "DashboardApp.allow_host",
        "token-file": "DashboardApp.token_file",
        **RecordsApp.database_alias,
        **RecordsApp.aliases,
    }
    flags: Any = {
        "read-only": ({"DashboardApp": {"read_only": True}}, "refuse all actions"),
        "browser": ({"DashboardApp": {"browser": True}}, "open it in a browser"),
        "with-cluster": (
            {"DashboardApp": {"with_cluster": True}},
            "end when the cluster is stopped; the link is in `rc.dashboard_url`, and is not printed",
        ),
        "no-config": RecordsApp.flags["no-config"],
    }

    port = Integer(0, help="The port; default: a free one.").tag(config=True)
    allow_host = Unicode(
        "", help="Other names of this host in the browser's address bar, as a proxy has; separated by commas."
    ).tag(config=True)
    token_file = Unicode(
        "", help="A private file (mode 0600) with the token, so that it stays the same; default: a new token."
    ).tag(config=True)
    read_only = Bool(False, help="Refuse all actions.").tag(config=True)
    browser = Bool(False, help="Open it in a browser.").tag(config=True)
    with_cluster = Bool(False, help="End when the cluster is stopped.").tag(config=True)

    def start(self) -> None:
        one_heap()
        if missing := missing_parts():
            raise ConfigError(f"the dashboard needs {' and '.join(missing)}: pip install 'engineroom[dashboard]'")
        from ...dashboard.server import Dashboard

        if not 0 <= self.port < 1 << 16:
            raise UsageError(f"--port is a number up to 65535, got {self.port}")
        if self.extra_args:
            self.db_url = self.extra_args[0]
        place = ShownPlace(self)
        place.open().__exit__(None, None, None)  # what is wrong is said here, not in the browser
        link_file = None if self.db_url else dashboard_file(place.found.files.profile_dir, place.found.cluster_id)
        hosts = [name for name in self.allow_host.replace(" ", "").split(",") if name]
        dashboard = Dashboard(
            place, port=self.port, read_only=self.read_only, hosts=hosts, link_file=link_file, token=self._token()
        )
        if not self.with_cluster:
            print(f"Dashboard of {place.name}: {dashboard.url}", flush=True)
            print("Whoever has this link can use it. Ctrl-C ends the dashboard.", file=sys.stderr)
        else:  # its output goes into a log, where the link shall not be
            threading.Thread(target=self._follow, args=(place, dashboard), daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            if self.browser:
                _open_in_browser(dashboard.url, Path(folder))
            dashboard.serve()

    def _token(self) -> str | None:
        """The token in the user's file; None: a new one is to be made."""
        if not self.token_file:
            return None
        path = Path(self.token_file).expanduser()
        try:
            mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file={path}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
        if mode & 0o077:
            raise ConfigError(f"others may read {path} (mode {mode:04o}): make it yours alone, with chmod 600")
        if not re.fullmatch(r"[\w.~-]{32,}", text, re.ASCII):
            raise ConfigError(f"{path} is to hold a token: 32 or more letters, digits, '-', '_', '.' or '~'")
        return text

    def _follow(self, place: ShownPlace, dashboard: Any) -> None:
        """Stop once the cluster's connection file is gone. A controller that was killed leaves it."""
        end = threading.Event()
        while place.found.files.connection_files[0].exists():
            end.wait(LOOK_SECONDS)
        dashboard.stop()


def _open_in_browser(url: str, folder: Path) -> None:
    """Open a private file that leads to the link: every user of the host can read a browser's command line."""
    page = folder / "dashboard.html"
    write_private(page, f'<!doctype html><meta http-equiv="refresh" content="0;url={url}">')
    webbrowser.open(page.as_uri())


class ShownPlace:
    """What a dashboard shows: the cluster or the database that the command line names."""

    def __init__(self, app: DashboardApp) -> None:
        self._app = app
        self._is_file = bool(app.db_url)
        self._database = ""  # of the cluster, once it was seen running
        self.found = FoundCluster(app.folder, app.cluster_id) if self._is_file else app.found(anywhere=True)

    @property
    def name(self) -> str:
        """What the page is called."""
        return Path(self._app.db_url).name if self._is_file else str(self.found)

    @property
    def log_folder(self) -> Path | None:
        """Where the cluster's processes write their logs."""
        return None if self._is_file else self.found.files.profile_dir / "log"

    def is_running(self) -> bool:
        """Whether the cluster runs."""
        return not self._is_file and (self.found.controller is not None or self.found.is_elsewhere)

    def retention(self) -> dict[str, Any] | None:
        """What the cluster was told to keep, or what the profile's configuration says; None: unknown."""
        if self._is_file:
            return None
        from ..ipcontroller import Retention  # it imports the controller

        cluster = self.found.open()
        given = cluster.retention if cluster is not None else {}
        found: dict[str, Any] = msgspec.to_builtins(Retention(parent=self._app).settings(json.dumps(given)))
        return found

    def open(self) -> Records:
        """The records of the running cluster; or of the database that it had, or that the command line names."""
        if self._is_file:
            return self._app.records()
        if self._database and not self.is_running():
            return opened(self._database, self.name)
        records = self._app.records_of(self.found)
        if records.client is not None:
            self._database = records.url
        return records

    def purge(self, query: dict[str, Any]) -> int:
        """Delete records from the database. No controller can use it meanwhile."""
        store = open_store(self._database or self._app.database)
        try:
            return purge(store, query, 0, lambda what, done, total: None)
        finally:
            store.close()
