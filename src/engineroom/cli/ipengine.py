"""`ipengine`: start engines, under a nanny."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from traitlets import Bool, Dict, Float, Integer, Unicode, Union

from .. import resources as named_resources
from ..config import ConnectionInfo, EngineSettings, amount, connection_file, read_connection_file
from ..descriptors import wait_readable
from ..engine.execution.mpi import rank_of
from ..errors import AuthenticationError, ConfigError, ConnectionFileError
from .base import BASE_ALIASES, BASE_FLAGS, EngineroomApp, UsageError, log_to_stderr, run
from .former_options import ENGINE

log = logging.getLogger("engineroom.engine")

#: Between two looks for a connection file that is not there yet.
LOOK_SECONDS = 0.005
#: After so many seconds it says what it waits for.
NOTICE_SECONDS = 2.0


class IPEngine(EngineroomApp):
    """Start one or more engines on this host, under a nanny that watches and restarts them."""

    name = "ipengine"
    description = __doc__
    examples = """
ipengine                              # one engine for the controller of the default profile
ipengine -n 8 --file=ipcontroller-engine.json    # eight, for a controller elsewhere
ipengine -n 4 --no-restart            # an engine that dies is not replaced
ipengine -n 2 --threads=8             # numpy and the like use eight threads in each
ipengine --ssh=me@login1 --file=ipcontroller-engine.json    # through a tunnel
ipengine -n 2 --resources gpu=4       # tasks can ask for gpus; each engine has two
"""
    config_names: ClassVar[tuple[str, ...]] = ("ipengine_config",)
    former = ENGINE
    aliases: Any = {
        **BASE_ALIASES,
        "n": "IPEngine.n",
        "file": "IPEngine.url_file",
        "timeout": "IPEngine.timeout",
        "resources": "IPEngine.resources",
        "threads": "IPEngine.threads",
        "memory-limit": "IPEngine.memory_limit",
        "walltime": "IPEngine.walltime",
        "drain": "IPEngine.drain",
        "grace": "IPEngine.grace",
        "ssh": "IPEngine.sshserver",
        "sshkey": "IPEngine.sshkey",
        "c": "IPEngine.startup_command",
        "s": "IPEngine.startup_script",
    }
    flags: Any = {
        **BASE_FLAGS,
        "mpi": ({"IPEngine": {"mpi": True}}, "the engine is a rank of MPI; mpiexec starts this command"),
        "no-restart": ({"IPEngine": {"restart": False}}, "do not replace engines that die"),
        "lifeline": ({"IPEngine": {"lifeline": True}}, "stop when stdin closes"),
    }

    n = Integer(1, help="How many engines.").tag(config=True)
    url_file = Unicode(
        "",
        help="The connection file; default: the profile's. '-': the first line of stdin is its content, and engines "
        "end when stdin ends.",
    ).tag(config=True)
    lifeline = Bool(False, help="Stop when stdin closes.").tag(config=True)
    timeout = Float(
        60.0, help="Seconds to look for the controller, or to wait for it to come back, before giving up."
    ).tag(config=True)
    walltime = Float(
        0.0, help="Seconds after which the job of these engines is ended; before that they give back what they have."
    ).tag(config=True)
    drain = Float(
        None, allow_none=True, help="Seconds before the end of the walltime in which no tasks are taken; default: 60."
    ).tag(config=True)
    grace = Float(
        0.0,
        help="Seconds that engines have, after SIGTERM, to finish what they run; they take no more tasks then. "
        "Default: they stop at once.",
    ).tag(config=True)
    mpi = Bool(False, help="Whether the engine is a rank of MPI.").tag(config=True)
    restart = Bool(True, help="Replace engines that die.").tag(config=True)
    unstored_limit = Integer(
        256 << 20, help="Bytes of results that an engine keeps until they are stored. Beyond that it runs no task."
    ).tag(config=True)
    memory_limit = Unicode(
        "",
        help="How much memory an engine's process may have after a task: 2GB. Beyond that another process takes its "
        "place, between two tasks. One that has run a direct task (rc[0].apply, %px) stays. Default: no limit.",
    ).tag(config=True)
    output_limit = Integer(1 << 20, help="Characters of stdout and of stderr kept per task.").tag(config=True)

    resources = Union(
        [Unicode(), Dict()],
        default_value="",
        help="Named resources of this host, divided among its engines: gpu=4,license=1.",
    ).tag(config=True)
    threads = Integer(
        -1,
        min=-1,
        help="Threads of BLAS, OpenMP and the like per engine; -1: the cores divided by the engines; 0: as the "
        "libraries choose.",
    ).tag(config=True)
    sshserver = Unicode("", help="A host that reaches the controller: ssh makes a tunnel through it.").tag(config=True)
    sshkey = Unicode("", help="The file of a private key for --ssh=.").tag(config=True)
    startup_command = Unicode("", help="Code that every engine runs when it starts.").tag(config=True)
    startup_script = Unicode("", help="A file of code that every engine runs when it starts.").tag(config=True)
    cancel_grace = Float(
        2.0, help="Seconds from the interruption of a task after its run_timeout until its engine is killed."
    ).tag(config=True)

    def start(self) -> None:
        log_to_stderr(self.log_level)
        if self.n < 1:
            raise UsageError(f"-n is a number of engines, 1 or more; got {self.n}")
        if self.mpi:
            if self.n != 1:
                raise UsageError(f"--mpi: mpiexec starts one engine for each rank, so -n is 1; got {self.n}")
            rank_of(os.environ)
        if not self.cancel_grace >= 0:
            raise ConfigError(f"IPEngine.cancel_grace is a number of seconds, 0 or more; got {self.cancel_grace}")
        if not self.grace >= 0:
            raise ConfigError(f"--grace is a number of seconds, 0 or more; got {self.grace}")
        shared = named_resources.read(self.resources)
        memory_limit = int(amount(self.memory_limit or 0, "bytes", "IPEngine.memory_limit"))
        startup = self._startup()
        # Imported while the controller starts.
        from ..engine.host.nanny import Nanny

        follows = self.url_file == "-"
        info = _read_stdin() if follows else self._wait_for_file()
        settings = EngineSettings(
            restart=self.restart and not self.mpi,
            mpi=self.mpi,
            walltime=self.walltime,
            drain=self.drain,
            grace=self.grace,
            connect_timeout=self.timeout,
            output_limit=self.output_limit,
            unstored_limit=self.unstored_limit,
            memory_limit=memory_limit,
            cancel_grace=self.cancel_grace,
            threads=None if self.threads < 0 else self.threads,
            resources=shared,
            startup=startup,
        )
        with contextlib.ExitStack() as at_the_end:
            if self.sshserver:
                from ..transport.ssh_tunnel import Tunnel

                tunnel = Tunnel(info, self.sshserver, self.sshkey)
                at_the_end.callback(tunnel.close)
                info = tunnel.info
            lifeline = sys.stdin.fileno() if follows or self.lifeline else None
            while True:
                try:
                    Nanny(info, self.n, settings, lifeline=lifeline).run()
                    return
                except AuthenticationError:
                    fresh = None if follows or self.sshserver else self._wait_for_file()
                    if fresh is None or fresh.key == info.key:
                        raise
                    log.warning("the cluster has new keys: its engines start anew")
                    info = fresh

    def _wait_for_file(self) -> ConnectionInfo:
        path = Path(self.url_file) if self.url_file else connection_file(self.folder, self.cluster_id, "engine")
        begin, has_told = time.monotonic(), self.lifeline  # nobody reads what a cluster's own engines wait for
        lifeline = [sys.stdin.fileno()] if self.lifeline else []
        while not path.exists():
            waited = time.monotonic() - begin
            if waited > NOTICE_SECONDS and not has_told:
                has_told = True
                log.warning("there is no %s yet: waiting up to %g s for a controller", path, self.timeout)
            if waited >= self.timeout:
                raise ConnectionFileError(
                    f"there is no connection file {path}: none appeared within {self.timeout:g} s. Start a controller "
                    "(`ipcluster start`), or name its connection file with --file="
                )
            if any(not os.read(descriptor, 4096) for descriptor in wait_readable(lifeline, LOOK_SECONDS)):
                log.info("what started these engines has ended before there was a controller")
                raise SystemExit(0)
        return read_connection_file(path)

    def _startup(self) -> tuple[tuple[str, str], ...]:
        """The pieces of code that engines run when they start, and what each is called in tracebacks."""
        given = [(_read(self.startup_script), self.startup_script)] if self.startup_script else []
        given += [(self.startup_command, "<ipengine -c>")] if self.startup_command else []
        for code, name in given:
            try:
                compile(code, name, "exec")
            except SyntaxError as error:
                raise ConfigError(f"{name}, line {error.lineno}: {error.msg}") from None
        return tuple(given)


def _read_stdin() -> ConnectionInfo:
    """The connection file, as the first line of stdin. Unbuffered: what follows is for others."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 65536:
        piece = os.read(sys.stdin.fileno(), 1)
        if not piece:
            break
        line += piece
    try:
        return msgspec.json.decode(line, type=ConnectionInfo)
    except msgspec.DecodeError as error:
        raise ConnectionFileError(f"--file=-: the first line of stdin is not a connection file ({error})") from None


def _read(script: str) -> str:
    try:
        return Path(script).expanduser().read_text()
    except OSError as error:
        raise ConfigError(f"the startup script {script} cannot be read: {error.strerror}") from None


def main(argv: list[str] | None = None) -> int:
    """Entry point of `ipengine`."""
    return run(IPEngine, argv)


if __name__ == "__main__":
    sys.exit(main())
