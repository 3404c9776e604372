"""`ipcontroller`: start a controller."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
from traitlets import Bool, Enum, Float, Integer, List, Type, Unicode, Union
from traitlets.config import Configurable

from .._version import __version__
from ..cluster.cluster_files import ClusterFiles
from ..config import (
    DURABILITIES,
    MAX_TASK_BYTES,
    ConnectionInfo,
    LivenessSettings,
    RetentionSettings,
    SchedulerSettings,
    amount,
    connection_file,
    is_local,
    is_of_zeromq,
    read_connection_file,
    retention_settings,
    socket_dir,
    with_rights,
    write_connection_file,
    write_private,
)
from ..controller.loop import Controller
from ..controller.presence.roster import Roster
from ..controller.storage.queued_memory import default_limit
from ..core.placement.schemes import SCHEMES, make_index
from ..descriptors import raise_limit
from ..engine.host.walltime import Walltime, time_left
from ..errors import ConfigError, ConnectionFileError, StoreBusy
from ..private import make_private_folder, open_private_folder
from ..records.database_urls import file_of
from ..stores import TaskStore, open_store
from ..system.heap import one_heap
from ..transport import listen, new_identity
from ..transport.addresses import is_loopback, listening_address, told_addresses, url_of
from ..watchdog.watchdog import Watchdog
from .base import BASE_ALIASES, BASE_FLAGS, EngineroomApp, log_to_stderr, run
from .databases import DictDB, HubFactory, MongoDB, SQLiteDB, database_url
from .former_options import CONTROLLER

log = logging.getLogger("engineroom.controller")

#: How many databases of one profile may be in use at a time.
MOST_DATABASES = 99


class TaskScheduler(Configurable):
    """How tasks are given to engines."""

    hwm = Integer(-1, min=-1, help="Tasks outstanding per engine: -1 adaptive, 0 no limit.").tag(config=True)
    scheme_name = Unicode(
        "",
        help=f"Who chooses the engine for a task: {', '.join(SCHEMES)}, a scheme of an installed package, or "
        "'module:function'. Default: leastload.",
    ).tag(config=True)
    cancel_grace = Float(2.0, help="Seconds from the interruption of a cancelled task until its engine is killed.").tag(
        config=True
    )
    engine_grace = Float(30.0, help="Seconds a task waits for an engine that has the resources it needs.").tag(
        config=True
    )


class HeartMonitor(Configurable):
    """Heartbeats, under the names that ipyparallel has. They win over IPController.ping_interval, allowed_silence."""

    period = Integer(0, min=0, help="Milliseconds between two heartbeats; default: IPController.ping_interval.").tag(
        config=True
    )
    max_heartmonitor_misses = Integer(
        0, help="Heartbeats without an answer after which a peer is lost; default: IPController.allowed_silence."
    ).tag(config=True)


class Retention(Configurable):
    """How long records are kept in the task database. Records of unfinished tasks and pinned records always stay."""

    age = Unicode("", help="How long after its end a task's record is kept: 30d, 12h. Default: for ever.").tag(
        config=True
    )
    payload_age = Unicode("", help="How long after its end a task's arguments and result are kept.").tag(config=True)
    count = Integer(-1, help="How many records are kept; beyond, the oldest are dropped. Default: all.").tag(
        config=True
    )
    bytes = Unicode("", help="How large the database may be: 10GB. Beyond, the oldest records are dropped.").tag(
        config=True
    )
    payload_bytes = Unicode(
        "10GiB",
        help="How many bytes of large buffers an SQLite database keeps; beyond, the oldest are dropped, and the rest "
        "of their records stays. none: no limit.",
    ).tag(config=True)
    min_free = Unicode("64MiB", help="With less free space on the disk, new tasks are refused.").tag(config=True)
    interval = Float(10.0, help="Seconds between two searches for records to drop.").tag(config=True)
    rules: Any = List(
        help='Other ages for some tasks; the first rule that fits a task counts: [{"state": "failed", "age": "90d"}, '
        '{"label": "test-*", "age": "1h"}].'
    ).tag(config=True)

    def settings(self, more: str) -> RetentionSettings:
        """The settings of the configuration, changed by a JSON text."""
        given: dict[str, Any] = {
            "age": self.age or None,
            "payload_age": self.payload_age or None,
            "count": None if self.count < 0 else self.count,
            "bytes": self.bytes or None,
            "payload_bytes": None if self.payload_bytes in ("", "none") else self.payload_bytes,
            "min_free": self.min_free,
            "interval": self.interval,
            "rules": self.rules,
        }
        try:
            added = json.loads(more or "{}")
        except ValueError:
            raise ConfigError(f'--retain= is JSON like {{"age": "30d"}}, got {more!r}') from None
        if not isinstance(added, dict):
            raise ConfigError(f'--retain= is JSON like {{"age": "30d"}}, got {more!r}')
        return retention_settings({**given, **added})


class IPController(EngineroomApp):
    """Start a controller: the process that clients and engines connect to.

    It schedules tasks, and records each in the task database of the profile. `ipcluster` starts one for you; start it
    by hand if you start the engines by hand, too (`ipengine`).
    """

    name = "ipcontroller"
    description = __doc__
    examples = """
ipcontroller                          # for this host; tasks are recorded in <profile>/tasks.db
ipcontroller --ip='*'                 # for other hosts too, encrypted; copy the connection file there
ipcontroller --ip='*' --port=5000 --location=login1.example.org    # where a firewall lets that port pass
ipcontroller --hwm=1                  # give an engine a task only when it is free
ipcontroller --scheme=lru             # who gets the next task: the engine used longest ago
ipcontroller --retain-age=30d --retain-payload-age=7d --min-free=2GB    # how long records are kept
ipcontroller --nodb                   # keep no records
ipcontroller --reuse                  # after a crash: engines and clients reconnect
"""
    classes: Any = [TaskScheduler, HeartMonitor, HubFactory, SQLiteDB, MongoDB, DictDB, Retention]
    config_names: ClassVar[tuple[str, ...]] = ("ipcontroller_config",)
    former = CONTROLLER
    aliases: Any = {
        **BASE_ALIASES,
        "ip": "IPController.ip",
        "port": "IPController.port",
        "location": "IPController.location",
        "identity": "IPController.identity",
        "hwm": "TaskScheduler.hwm",
        "ping": "HeartMonitor.period",
        "scheme": "TaskScheduler.scheme_name",
        "db-url": "IPController.db_url",
        "durability": "IPController.durability",
        "retain": "IPController.retain",
        "retain-age": "Retention.age",
        "retain-payload-age": "Retention.payload_age",
        "retain-count": "Retention.count",
        "retain-bytes": "Retention.bytes",
        "retain-payload-bytes": "Retention.payload_bytes",
        "min-free": "Retention.min_free",
        "queued-memory": "IPController.queued_memory",
        "walltime": "IPController.walltime",
    }
    flags: Any = {
        **BASE_FLAGS,
        "sqlitedb": ({"IPController": {"db_class": "SQLiteDB"}}, "record tasks in SQLite (default)"),
        "mongodb": ({"IPController": {"db_class": "MongoDB"}}, "record tasks on the MongoDB server of MongoDB.url"),
        "dictdb": ({"IPController": {"db_class": "DictDB"}}, "record tasks in memory only"),
        "nodb": ({"IPController": {"db_class": "NoDB"}}, "keep no records of tasks"),
        "reuse": (
            {"IPController": {"reuse_files": True}},
            "use the connection files of the controller before this one, so that engines and clients reconnect",
        ),
        "next-free": (
            {"IPController": {"next_free": True}},
            "if another controller owns the file tasks.db, use tasks-2.db, tasks-3.db and so on",
        ),
        "keep-tasks": (
            {"IPController": {"keep_tasks": True}},
            "SIGTERM ends it as a kill does: unfinished tasks stay in the database, and the next controller has them",
        ),
        "lifeline": ({"IPController": {"lifeline": True}}, "stop when stdin closes"),
    }

    ip = Unicode(
        "", help="Where to listen for other hosts: '*', an address, or an interface (eth0). Default: this host only."
    ).tag(config=True)
    port = Integer(0, min=0, max=65535, help="Port for --ip; default: a free one.").tag(config=True)
    location = Unicode("", help="Name or address by which other hosts reach this one.").tag(config=True)
    db_class = Union([Unicode(), Type()], default_value="", help="SQLiteDB, MongoDB, DictDB or NoDB.").tag(config=True)
    db_url = Unicode("", help="The database as a url: sqlite:///PATH, mongodb://HOST/DATABASE, memory, none.").tag(
        config=True
    )
    relay = Bool(
        True,
        help="With --ip: whether hosts of engines listen (encrypted, for each other only), and pass large data on, so "
        "that the controller sends it once.",
    ).tag(config=True)
    durability = Enum(
        list(DURABILITIES),
        "normal",
        help="What an acknowledged task survives: normal the death of any process, full a power cut too (slower).",
    ).tag(config=True)
    retain = Unicode("", help='How long records are kept, as JSON: {"age": "30d"}. It wins over Retention.*.').tag(
        config=True
    )
    query_seconds = Float(30.0, help="Seconds a query of the task database may take.").tag(config=True)
    identity = Unicode(
        "",
        help="A connection file made beforehand, with its secret beside it (`engineroom k8s manifest` makes them): the "
        "controller has its keys and its port. Unfinished tasks of the database are taken up.",
    ).tag(config=True)
    walltime = Float(
        0.0,
        help="Seconds after which the batch job of this controller is ended: it stops in order before that. -1: as the "
        "environment of the job says.",
    ).tag(config=True)
    keep_tasks = Bool(False, help="Whether SIGTERM ends it as a kill does.").tag(config=True)
    reuse_files = Bool(False, help="Use existing connection files.").tag(config=True)
    lifeline = Bool(False, help="Stop when stdin closes.").tag(config=True)
    next_free = Bool(False, help="Use tasks-2.db (and so on) if another controller owns tasks.db.").tag(config=True)
    ping_interval = Float(1.0, help="Seconds between two heartbeats.").tag(config=True)
    allowed_silence = Float(15.0, help="Seconds of silence after which a peer is lost.").tag(config=True)
    recovery_grace = Float(5.0, help="Seconds that engines have, at most, to reconnect to a restarted controller.").tag(
        config=True
    )
    queued_memory = Unicode(
        "",
        help="How much memory of the controller tasks that have not ended may take: 2GB. Beyond the half, only the "
        "database keeps their arguments; beyond all of it, clients wait until tasks have ended. none: no limit. "
        "Default: a quarter of the memory that the process may use.",
    ).tag(config=True)
    death_limit = Integer(3, help="A task is not tried again once this many engines died while they ran it.").tag(
        config=True
    )

    def start(self) -> None:
        one_heap()
        log_to_stderr(self.log_level)
        folder = self.make_folder()
        client_file = connection_file(folder, self.cluster_id, "client")
        scheduler = self._scheduler_settings()  # checked before anything is opened
        retention = Retention(parent=self).settings(self.retain)
        queued_memory = self._queued_memory()
        raise_limit()  # peers, and large buffers, take file descriptors
        liveness = self._liveness()
        # A controller that stops removes its files.
        restarted = bool(self.identity) or (self.reuse_files and client_file.exists())
        info, secret = self._identity(client_file)
        info = msgspec.structs.replace(info, local_url=self._local_url(info))
        store = self._open_store(folder)
        try:
            urls = [url for url in (info.url, info.local_url) if url]
            listener = listen(urls, info.key, secret=secret, max_message_size=2 * MAX_TASK_BYTES)
        except Exception as error:
            store.close()
            hint = ". Choose another with --ip= and --port=" if info.url.startswith("tcp") else ""
            raise ConfigError(f"cannot listen on {info.url}: {error}{hint}") from None
        url, *others = self._reachable(listener.urls[0])
        info = msgspec.structs.replace(info, url=url, other_urls=tuple(others), database=store.url)
        roster = Roster.at(ClusterFiles(folder, self.cluster_id).roster_file, restarted=restarted)
        controller = Controller(
            listener,
            store,
            info.key,
            scheduler=scheduler,
            liveness=liveness,
            retention=retention,
            queued_memory=queued_memory,
            restarted=restarted,
            roster=roster,
            relay=self.relay,
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: controller.stop())
        starter_ended = threading.Event()
        if self.keep_tasks:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        seconds = time_left(os.environ, time.time()) if self.walltime < 0 else self.walltime
        walltime = Walltime.of(seconds, None, time.monotonic())
        if walltime is not None:
            stop_before_the_end(controller.stop, walltime, seconds if self.walltime > 0 else None)
        if self.lifeline:
            threading.Thread(target=_follow_stdin, args=(controller, starter_ended), daemon=True).start()
        files = [client_file, connection_file(folder, self.cluster_id, "engine")]
        if secret:
            write_private(_secret_file(client_file), secret)
        lesser = ClusterFiles(folder, self.cluster_id).lesser
        for rights, path in lesser.items():
            if restarted and path.exists():
                write_connection_file(path, with_rights(info, rights))
            else:  # that of an earlier controller
                path.unlink(missing_ok=True)
        write_connection_file(files[1], with_rights(info, "engine"))
        write_connection_file(files[0], info)  # the last: a cluster takes it for the sign that all is ready
        log.info(
            "controller %s: %s, database %s, connection file %s",
            *(__version__, ", ".join(info.urls), store.url, client_file),
        )
        sys.setswitchinterval(0.001)  # the store's thread must not keep the loop waiting for 5 ms
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)  # tasks come and go without cycles: look for those rarely
        try:
            with Watchdog("the controller's loop", lambda: controller.turns, alarm=True):
                controller.run()
            if starter_ended.is_set():
                from ..cluster.processes.left_jobs import cancel_left_jobs

                cancel_left_jobs(ClusterFiles(folder, self.cluster_id).cluster_file)
        finally:
            for path in [*files, *lesser.values(), _secret_file(client_file), *self._files_of_starter(folder)]:
                path.unlink(missing_ok=True)
            roster.close(remove=True)
        log.info("stopped")

    def _open_store(self, folder: Path) -> TaskStore:
        """The task database. With `next_free`, the next one that no other controller owns: tasks-2.db, tasks-3.db …"""
        url, options = database_url(self, folder, self.db_url, self.db_class), self._store_options()
        if self.durability == "full" and file_of(url) is None:
            raise ConfigError(
                "durability=full is for SQLite: `memory` and `none` keep nothing, and for MongoDB the url says what a "
                "write waits for (mongodb://…/engineroom?w=majority&journal=true)"
            )
        for number in range(1, MOST_DATABASES + 1):
            base, dot, ending = url.rpartition(".")
            try:
                return open_store(url if number == 1 else f"{base}-{number}{dot}{ending}", **options)
            except StoreBusy as error:
                if not (self.next_free and file_of(url) and dot and "/" not in ending):
                    raise
                log.warning("%s", error)
                last = error
        raise last

    def _files_of_starter(self, folder: Path) -> list[Path]:
        """What the process that started the cluster leaves behind if it is killed."""
        return [ClusterFiles(folder, self.cluster_id).cluster_file] if self.lifeline else []

    def _liveness(self) -> LivenessSettings:
        heart = HeartMonitor(parent=self)
        interval = heart.period / 1000 if heart.period > 0 else self.ping_interval
        misses = heart.max_heartmonitor_misses
        silence = misses * interval if misses > 0 else self.allowed_silence
        return LivenessSettings(interval, silence, self.recovery_grace)

    def _queued_memory(self) -> int | None:
        given = self.queued_memory.strip()
        if given in ("", "none"):
            return None if given else default_limit()
        limit = int(amount(given, "bytes", "IPController.queued_memory"))
        if not limit:
            raise ConfigError("IPController.queued_memory is above 0: without memory no task could be taken in")
        return limit

    def _scheduler_settings(self) -> SchedulerSettings:
        chosen = TaskScheduler(parent=self)
        scheme = chosen.scheme_name or HubFactory(parent=self).scheme or SchedulerSettings().scheme
        make_index(scheme, Random(0), trusted=True)
        return SchedulerSettings(
            scheme=scheme,
            hwm=None if chosen.hwm < 0 else chosen.hwm,
            death_limit=self.death_limit,
            cancel_grace=chosen.cancel_grace,
            engine_grace=chosen.engine_grace,
        )

    def _identity(self, path: Path) -> tuple[ConnectionInfo, str]:
        """Url and keys, and the secret of the certificate: new ones, given ones, or those of the controller before."""
        if self.identity:
            return self._given_identity(Path(self.identity))
        info = read_connection_file(path) if self.reuse_files and path.exists() else None
        if info is not None and is_of_zeromq(info):
            log.warning("%s is of engineroom %s and is made anew: copy it again to other hosts", path, info.version)
            info = None
        if info is not None:
            info = msgspec.structs.replace(info, version=__version__)
            with contextlib.suppress(FileNotFoundError):
                secret = _secret_file(path).read_text()
                listen = (
                    info.url if not self.ip else f"tcp://{listening_address(self.ip)}:{info.url.rpartition(':')[2]}"
                )
                return msgspec.structs.replace(info, pid=os.getpid(), url=listen), secret
            if info.socket is not None:  # the folder may have been removed; the listener checks whose it is
                make_private_folder(info.socket.parent)
            return msgspec.structs.replace(info, pid=os.getpid()), ""
        _complain_if_running(path)
        certificate = secret = ""
        if self.ip:
            certificate, secret = new_identity()
            url = f"tcp://{listening_address(self.ip)}:{self.port or '*'}"
        else:
            url = _new_socket()
        return ConnectionInfo(
            url=url,
            key=secrets.token_hex(32),
            certificate=certificate,
            location=self.location or socket.gethostname(),
            pid=os.getpid(),
            cluster_id=self.cluster_id,
            profile_dir=str(self.folder),
            version=__version__,
        ), secret

    def _given_identity(self, path: Path) -> tuple[ConnectionInfo, str]:
        """Url and keys of a file that was made beforehand, and the secret beside it."""
        if not self.ip:
            raise ConfigError("--identity= is for a controller that other hosts reach: say --ip='*', too")
        given = read_connection_file(path)
        secret_file = _secret_file(path)
        if secret_file == path:
            raise ConfigError(f"--identity= names a file NAME-client.json, with NAME-secret.key beside it; got {path}")
        try:
            secret = secret_file.read_text()
        except OSError as error:
            raise ConfigError(f"cannot read {secret_file}, the secret of --identity=: {error.strerror}") from None
        port = self.port or given.url.rpartition(":")[2]
        return msgspec.structs.replace(
            given,
            url=f"tcp://{listening_address(self.ip)}:{port}",
            location=self.location or socket.gethostname(),
            pid=os.getpid(),
            profile_dir=str(self.folder),
            version=__version__,
        ), secret

    def _local_url(self, info: ConnectionInfo) -> str:
        """Of a socket for the processes of this host, beside TCP. Who has us listen on 127.0.0.1 wants TCP for all."""
        if info.url.startswith("ipc://") or is_loopback(info.url) or not is_local(info.location):
            return ""
        try:
            if info.socket is not None:
                make_private_folder(info.socket.parent)
                os.close(open_private_folder(info.socket.parent))
            return info.local_url or _new_socket()
        except (ConfigError, OSError) as error:
            log.warning("processes of this host use TCP, too: %s", error)
            return ""

    def _reachable(self, url: str) -> list[str]:
        """The urls at which peers find what listens at a url: a wildcard means all addresses of this host."""
        if not url.startswith("tcp://"):
            return [url]
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        return [url_of(each, port) for each in told_addresses(host.strip("[]"), self.location)]

    def _store_options(self) -> dict[str, Any]:
        sqlite, memory = SQLiteDB(parent=self), DictDB(parent=self)
        return {
            "query_seconds": self.query_seconds,
            "synchronous": "FULL" if self.durability == "full" else sqlite.synchronous,
            "journal": sqlite.journal,
            "record_limit": memory.record_limit,
            "size_limit": memory.size_limit,
            "cull_fraction": memory.cull_fraction,
        }


def _new_socket() -> str:
    return f"ipc://{socket_dir()}/{secrets.token_hex(8)}"


def _secret_file(path: Path) -> Path:
    """Where the controller keeps the secret of its certificate, for `--reuse`."""
    return path.with_name(path.name.replace("-client.json", "-secret.key"))


def _complain_if_running(path: Path) -> None:
    try:
        info = read_connection_file(path)
    except ConnectionFileError:
        return
    if info.location == socket.gethostname() and info.pid != os.getpid():
        with contextlib.suppress(OSError):
            os.kill(info.pid, 0)
            command = Path(f"/proc/{info.pid}/cmdline")
            if not command.exists() or b"controller" in command.read_bytes():
                raise ConfigError(
                    f"a controller is running already here (pid {info.pid}, {info.url}). Stop it with "
                    "`ipcluster stop`, or start this one with another --cluster-id= or --profile=."
                )


def stop_before_the_end(stop: Callable[[str], None], walltime: Walltime, seconds: float | None) -> None:
    """Have the controller stop in order before its batch system kills it.

    `seconds`: the walltime that the user gave; None: only the environment of the job has one. It is for the reason.
    """
    end = "the time limit of the controller's job" if seconds is None else f"the walltime of its job ({seconds:g} s)"

    def stop_now() -> None:
        log.warning("the cluster is stopped: %s ends", end)
        stop(f"{end} ends")

    timer = threading.Timer(max(0.0, walltime.cut - time.monotonic()), stop_now)
    timer.daemon = True
    timer.start()


def _follow_stdin(controller: Controller, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    ended.set()
    controller.stop("the process that started the cluster has ended")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `ipcontroller`."""
    return run(IPController, argv)


if __name__ == "__main__":
    sys.exit(main())
