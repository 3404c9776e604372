"""What the pages of the database and of the engines show and do: size, retention, a check; logs, signals."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError, EngineroomError
from ..ids import EngineId
from ..stores import SQLiteDB
from ..stores.sqlite.doctor import verify
from .overview import first_and_last, states
from .source import Source

#: The end of a log that is shown, in bytes.
LOG_END = 64 << 10
#: Damaged records that are named.
NAMED = 20


class Upkeep:
    """Looks after the database, and remembers the last check of it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._check: dict[str, Any] | None = None

    def database(self) -> dict[str, Any]:
        """Size, contents and retention of the database, and the last check."""
        records = self._source.records()
        ends = first_and_last(records, {}, "submitted")
        found: dict[str, Any] = {
            "url": re.sub(r"//[^@/]*@", "//…@", records.url),
            "live": records.client is not None,
            "records": records.count({}),
            "pinned": records.count({"pinned": True}),
            "states": states(records),
            "first": ends[0]["submitted"] if ends else None,
            "last": ends[1]["submitted"] if ends else None,
            "retention": self._source.place.retention(),
            "check": self._check,
            "can_check": self._source.file is not None,
        }
        path = self._source.file
        if path is not None:
            store = SQLiteDB.open_readonly(path)
            try:
                usage = store.usage()
            finally:
                store.close()
            found |= {"used": usage.used, "unused": usage.unused, "room": usage.room, "large": usage.large}
        return found

    def start_check(self) -> dict[str, Any]:
        """Begin to read the whole database and to compare it with its checksums. There is one check at a time.

        Raises
        ------
        ConfigError
            The database is no file of this host.
        """
        path = self._source.file
        if path is None:
            raise ConfigError("only a database in a file can be checked")
        with self._lock:
            if self._check is None or not self._check["running"]:
                self._check = {"running": True, "done": 0, "total": 0, "what": "", "problem": None, "findings": None}
                threading.Thread(target=self._verify, args=(path, self._check), daemon=True).start()
            return self._check

    def _verify(self, path: Path, check: dict[str, Any]) -> None:
        def progress(what: str, done: int, total: int) -> None:
            check.update(what=what, done=done, total=total)

        try:
            findings = verify(path, progress)
            check["findings"] = {
                **msgspec.structs.asdict(findings),
                "sound": findings.sound,
                "damaged": [str(id) for id in findings.damaged[:NAMED]],
                "damaged_count": len(findings.damaged),
                "lightened": len(findings.lightened),
            }
        except (EngineroomError, OSError) as error:
            check["problem"] = str(error)
        finally:
            check["running"] = False

    # ------------------------------------------------------------------------------------------ engines

    def signal(self, action: str, engines: Sequence[int]) -> dict[str, Any]:
        """Interrupt engines, or have new ones take their places once they have finished what they run.

        Raises
        ------
        ConfigError
            There is no such action, or no engine is named.
        ControllerLost
            No cluster is running.
        IndexError
            There is no such engine.
        """
        if not engines or not all(isinstance(id, int) and not isinstance(id, bool) for id in engines):
            raise ConfigError("name engines by their numbers")
        ids = [EngineId(id) for id in engines]
        client = self._source.client()
        if action == "interrupt":
            client.send_signal("SIGINT", ids)
        elif action == "restart":
            client.shutdown(ids, restart=True, block=False)
        else:
            raise ConfigError(f"engines can be interrupted and restarted; got {action!r}")
        return {"action": action, "engines": ids}

    def logs(self) -> list[dict[str, Any]]:
        """The logs of the cluster's processes, the last changed first."""
        found = []
        for path in self._log_files():
            status = path.stat()
            found.append({"name": path.name, "size": status.st_size, "changed": status.st_mtime})
        return sorted(found, key=lambda log: -log["changed"])

    def log(self, name: str) -> dict[str, Any]:
        """The end of a log.

        Raises
        ------
        ConfigError
            There is no such log.
        """
        path = next((path for path in self._log_files() if path.name == name), None)
        if path is None:
            raise ConfigError(f"there is no log {name!r}")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_END))
            text = file.read(LOG_END).decode(errors="replace")
        return {"name": name, "size": size, "text": text if size <= LOG_END else text.partition("\n")[2]}

    def _log_files(self) -> list[Path]:
        """Files of the log folder only: no name in a request is made into a path."""
        folder = self._source.place.log_folder
        if folder is None or not folder.is_dir():
            return []
        return [path for path in folder.iterdir() if path.suffix == ".log" and path.is_file() and not path.is_symlink()]
