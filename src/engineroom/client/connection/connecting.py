"""Where a client finds its cluster: the connection file, and the errors for a controller that does not answer."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...config import (
    ConnectionInfo,
    as_options,
    connection_file,
    did_you_mean,
    ipython_dir,
    is_local,
    job_of_controller,
    naming,
    profile_dir,
    read_connection_file,
)
from ...errors import ConnectionFileError, ControllerLost
from ...messages import EngineInfo, Goodbye
from ...printable import one_line
from ...transport.opening import urls_from_here

#: How often we look for a file, or for another content of it.
POLL_SECONDS = 0.02
#: After this time the user is told what we wait for.
NOTICE_SECONDS = 3.0
#: How many clusters a message names.
NAMED = 5


def find_address(host: str, port: int, ipython: Any = None) -> Path:
    """The connection file, in any profile, of a controller that listens at this address.

    Raises
    ------
    ConnectionFileError
        There is none: an address is not enough to connect.
    """
    folder = ipython_dir(ipython)
    for path in sorted(folder.glob("profile_*/security/ipcontroller*-client.json")):
        try:
            info = read_connection_file(path)
        except ConnectionFileError:
            continue  # not one of ours
        for url in info.urls:
            address, _, number = url.removeprefix("tcp://").rpartition(":")
            if url.startswith("tcp://") and number == str(port) and host in (address, info.location):
                return path
    raise ConnectionFileError(
        f"no connection file in the profiles of {folder} is of a controller at tcp://{host}:{port}. An address is not "
        "enough to connect: copy ipcontroller-client.json, which holds the key, from the security folder of the "
        "controller's profile, and give Client(<that file>) to TaskClient; on one host, name the profile"
    )


def find_connection(
    given: Any,
    profile: str | None,
    directory: Any,
    ipython: Any,
    cluster_id: str | None,
    timeout: float,
    own: ConnectionInfo | None = None,
) -> ConnectionInfo:
    """What to connect to. `own`: if this process is an engine, its cluster, which is the default."""
    if isinstance(given, ConnectionInfo):
        return given
    if isinstance(given, Mapping):
        try:
            return msgspec.convert(dict(given), ConnectionInfo)
        except msgspec.ValidationError as error:
            raise ConnectionFileError(f"not the content of a connection file: {error}") from None
    if given is not None:
        path = Path(given).expanduser()
        if "://" in str(given):
            raise ValueError(
                f"{given}: a url is not enough to connect: give the connection file, which holds the key too"
            )
    else:
        if own is not None and not (profile or directory or ipython or cluster_id or os.environ.get("IPP_PROFILE_DIR")):
            directory, cluster_id = own.profile_dir, own.cluster_id  # a task that has cleared its environment
        wanted = os.environ.get("IPP_CLUSTER_ID") if cluster_id is None else cluster_id
        folder = profile_dir(profile, directory, ipython)
        path = connection_file(folder, wanted or "")
        if wanted is None and not path.exists():
            is_default = not (profile or directory or os.environ.get("IPP_PROFILE_DIR"))
            path = _running_cluster(folder, ipython_dir(ipython) if is_default else None) or path
    _wait_for_file(path, given is None, timeout)
    return _wait_for_controller(path, timeout)


def profile_of(info: ConnectionInfo) -> str:
    """The name of a cluster's profile; its folder, if that is no profile's."""
    name = Path(info.profile_dir).name
    return name.removeprefix("profile_") if name.startswith("profile_") else info.profile_dir or "default"


def _running_cluster(folder: Path, ipython: Path | None) -> Path | None:
    """The connection file of the one cluster that runs: of a profile, or else of any profile in the folder `ipython`.

    None: none runs, as far as this host can see.

    Raises
    ------
    ConnectionFileError
        Several run. The message says how to name each.
    """
    found = _running_files(folder.glob("security/ipcontroller*-client.json"))
    if not found and ipython is not None:
        found = _running_files(ipython.absolute().glob("profile_*/security/ipcontroller*-client.json"))
    if len(found) > 1:
        named = ", ".join(f"Client({_arguments(path)})" for path in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise ConnectionFileError(f"{len(found)} clusters are running; say which of them you want: {named}{more}")
    return found[0] if found else None


def _running_files(paths: Iterable[Path]) -> list[Path]:
    """Those connection files whose controller is not known to have ended."""
    running = []
    for path in sorted(paths):
        try:
            if not has_ended(read_connection_file(path)):
                running.append(path)
        except ConnectionFileError:
            continue  # it is not one of ours, or it has just been removed
    return running


def _arguments(path: Path) -> str:
    """What to write in `Client(…)` for a connection file."""
    named = {**naming(path.parent.parent, ""), "cluster_id": _id_in(path)}
    return ", ".join(f"{name}={value!r}" for name, value in named.items())


def _id_in(path: Path) -> str:
    """The id of the cluster whose connection file this is."""
    return path.name.removeprefix("ipcontroller").removesuffix("-client.json").removeprefix("-")


def _wait_for_file(path: Path, is_of_profile: bool, timeout: float) -> None:
    """Wait for a connection file; `is_of_profile`: it is where a profile has it, not one that was named."""
    deadline = time.monotonic() + min(timeout, 1.0 if is_of_profile else timeout)
    while not path.exists():
        if time.monotonic() >= deadline:
            hint = _hint(path) if is_of_profile else " `ipcluster start -n 4` starts a cluster, which writes one."
            if not is_of_profile and path.name == str(path) and not path.suffix:
                hint += f" A profile is named by profile={path.name!r}."
            raise ConnectionFileError(f"no cluster is running here: there is no connection file {path}.{hint}")
        time.sleep(POLL_SECONDS)


def _hint(path: Path) -> str:
    """What to do where a connection file of a profile is missing."""
    folder = path.parent.parent
    others = sorted(path.parent.glob("ipcontroller-*-client.json"))
    here = f" Clusters with an id are here: {', '.join(p.name for p in others[:5])}." if others else ""
    question = did_you_mean(folder)
    return f"{here}{question and ' '}{question} Start one with {_how_to_start(folder, _id_in(path))}."


def _how_to_start(folder: Path, cluster_id: str) -> str:
    named = naming(folder, cluster_id)
    arguments = "".join(f", {name}={value!r}" for name, value in named.items())
    return f"`ipcluster start -n 4{as_options(named)}`, or with engineroom.Cluster(n=4{arguments})"


def _wait_for_controller(path: Path, timeout: float) -> ConnectionInfo:
    """The content of a connection file, once the controller that it names may be running.

    A controller that was killed is started again a moment later. Its address and key may be new ones.
    """
    began, noticed = time.monotonic(), False
    while has_ended(info := read_connection_file(path)):
        waited = time.monotonic() - began
        if waited >= timeout:
            raise ended_error(info, timeout)
        if waited >= NOTICE_SECONDS and not noticed:
            noticed = True
            print(
                f"engineroom: the controller (pid {info.pid}) has died; waiting up to {timeout:g} s for another in its "
                "place …",
                file=sys.stderr,
            )
        time.sleep(POLL_SECONDS)
    return info


def has_ended(info: ConnectionInfo) -> bool:
    """Whether the controller that a connection file names is known not to run any more: it was on this host."""
    if not info.pid or not is_local(info.location):
        return False
    try:
        os.kill(info.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def no_answer_error(info: ConnectionInfo, timeout: float) -> ControllerLost | TimeoutError:
    """The error for a controller that has not answered our Hello within so many seconds."""
    if has_ended(info):
        return ended_error(info, timeout)
    from ...transport.addresses import why_unreachable  # it takes long to import

    urls = urls_from_here(info)
    return TimeoutError(
        f"the controller at {urls[0]} did not answer within {timeout:g} s ({why_unreachable(urls)}). Is it "
        f"running, and can this host reach {info.location or 'it'}?{_job(info)}"
    )


def goodbye_error(info: ConnectionInfo, message: Goodbye) -> ControllerLost:
    """The error for a controller that has stopped in order."""
    records = "Its records stay in the database of the profile"
    if info.database in ("memory", "none"):
        records = "There are no records of it: its database was " + info.database
    elif message.unwritten:
        records += f", but for the last {message.unwritten:,}, which could not be written: its log says why"
    error = ControllerLost(f"{one_line(message.reason)}. {records}.")
    error.unwritten = message.unwritten
    return error


def silence_error(info: ConnectionInfo, seconds: float) -> ControllerLost:
    """The error for a controller that was there, and has been silent for too long."""
    return ControllerLost(
        f"the controller at {urls_from_here(info)[0]} (pid {info.pid} on {info.location}) has been silent for "
        f"{seconds:.0f} s. Tasks that it acknowledged are in its database: when it runs again, Client() and "
        f"get_result(msg_id) find them.{_job(info)}"
    )


def _job(info: ConnectionInfo) -> str:
    """What to do about a controller that is a batch job."""
    job = job_of_controller(Path(info.profile_dir), info.cluster_id) if info.profile_dir else ""
    if not job:
        return ""
    options = _options(info)
    return (
        f" It is {job}. The batch system says whether that job still runs. If it has ended, and the program that "
        f"started the cluster starts no other, start the cluster again: `ipcluster stop{options}`, then "
        f"`ipcluster start{options}` with the options that it had."
    )


def how_to_start_engines(info: ConnectionInfo, n: int) -> str:
    """The command that starts engines of this cluster."""
    return f"`ipcluster engines -n {n}{_options(info)}`"


def _options(info: ConnectionInfo) -> str:
    """The options that name this cluster; "": it has no profile."""
    return as_options(naming(Path(info.profile_dir), info.cluster_id)) if info.profile_dir else ""


def ended_error(info: ConnectionInfo, timeout: float) -> ControllerLost:
    """The error for a controller that has ended, and has no successor."""
    if (newer := _newer_file(info)) is not None:
        return ControllerLost(
            f"the controller named in this connection file (pid {info.pid}) is not running any more. Its cluster is, "
            f"with new keys: this file is a copy of an older one. Use {newer}"
        )
    return ControllerLost(
        f"the controller named in the connection file (pid {info.pid}) is not running any more, and none has taken its "
        f"place within {timeout:g} s. Start a cluster with "
        f"{_how_to_start(Path(info.profile_dir), info.cluster_id) if info.profile_dir else '`ipcluster start -n 4`'}."
    )


def _newer_file(info: ConnectionInfo) -> Path | None:
    """The connection file for clients of the cluster that a file names, if that runs and has other keys."""
    path = connection_file(Path(info.profile_dir), info.cluster_id) if info.profile_dir else None
    with contextlib.suppress(ConnectionFileError):
        if path is not None and (now := read_connection_file(path)).key != info.key and not has_ended(now):
            return path
    return None


def through_tunnel(info: ConnectionInfo, server: str, key: str, at_the_end: contextlib.ExitStack) -> ConnectionInfo:
    """How a controller is reached through an SSH server. `at_the_end` closes the tunnel."""
    from ...transport.ssh_tunnel import Tunnel  # few need it

    tunnel = Tunnel(info, server, key)
    at_the_end.callback(tunnel.close)
    return tunnel.info


class OtherPythons:
    """Finds engines whose Python has another minor version than ours: code that travels cannot run there."""

    def __init__(self) -> None:
        self._told: set[tuple[str, ...]] = {platform.python_version_tuple()[:2]}

    def notice(self, engines: Iterable[EngineInfo]) -> str:
        """What to tell the user about engines that have come; "": nothing, or it was told before."""
        ours = platform.python_version()
        for engine in engines:
            version = tuple(engine.python.split(".")[:2])
            if engine.python and version not in self._told:
                self._told.add(version)
                return (
                    f"engine {engine.id} on {engine.host} runs Python {engine.python}, and this program {ours}: "
                    "functions that are defined in this program cannot run there. Start the engines "
                    "with the same Python, or put the functions into a module that both have installed"
                )
        return ""


class NoEngines:
    """Notices that there are no engines any more. Those of a nanny that was killed are mostly started again at once."""

    def __init__(self, info: ConnectionInfo) -> None:
        self._info = info
        #: since when (monotonic seconds) there are none; None: there are some, or there were none, or it was told
        self._since: float | None = None
        self._were_there = False

    def heard(self, are_there: bool, now: float) -> None:
        """Whether there are engines, or some are starting."""
        if are_there:
            self._since = None
        elif self._were_there:
            self._since = now
        self._were_there = are_there

    def notice(self, waiting: int, now: float) -> str:
        """What to tell the user, so many of whose tasks wait; "": nothing, or it was told before."""
        if self._since is None or now - self._since < NOTICE_SECONDS or not waiting:
            return ""
        self._since = None
        tasks = "1 task waits" if waiting == 1 else f"{waiting:,} tasks wait"
        return (
            f"there are no engines left and none are starting; {tasks} until some join "
            f"({how_to_start_engines(self._info, 2)}), or to be aborted"
        )


class WrongClocks:
    """Finds clocks that differ from the controller's. Records have the times of the host where something happened."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._has_told_own = False

    def notice(self, engines: Iterable[EngineInfo]) -> str:
        """What to tell the user about the clocks of engines' hosts; "": nothing, or it was told before."""
        wrong = {engine.host: engine.ahead for engine in engines if engine.ahead and engine.host not in self._told}
        if not wrong:
            return ""
        self._told.update(wrong)
        hosts = "; ".join(f"{host} is {_ahead(seconds)} it" for host, seconds in list(wrong.items())[:NAMED])
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        return (
            f"engines' clocks differ from the controller's ({hosts}{more}): so do the times in the records at which "
            "their tasks started and ended, but not the durations. Set these clocks (NTP)"
        )

    def own(self, ahead: float) -> str:
        """What to tell the user about the clock of this host."""
        if not ahead or self._has_told_own:
            return ""
        self._has_told_own = True
        return (
            f"the clock of this host is {_ahead(ahead)} the controller's: so is the time of submission in the records. "
            "Set one of the two (NTP)"
        )


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'}"
