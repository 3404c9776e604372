"""The command lines that start a controller and a set of engines. Nothing is started here."""

from __future__ import annotations

import json
import os
import site
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .. import resources as named_resources
from ..cores import usable_cores
from ..import_path import IMPORT_PATH
from ..private import why_not_trusted_folder

#: Exit code of a controller whose task database belongs to another controller.
STORE_BUSY = 12

#: Short names of databases, and the flag of `ipcontroller` that chooses each.
DATABASES = {"sqlite": "--sqlitedb", "mongodb": "--mongodb", "memory": "--dictdb", "none": "--nodb"}


#: Python must not put the current folder on `sys.path`: others may have put modules there.
_SAFE = ("-P",)


class Command(msgspec.Struct, frozen=True):
    """A command line, and what to add to the environment."""

    args: list[str]
    environment: dict[str, str]


def engines_to_start(n: int | None) -> int:
    """How many engines `n` means: itself, or one for each core that this process may use if it is None."""
    return usable_cores() if n is None else n


def controller_command(
    *,
    profile_dir: Path,
    cluster_id: str,
    database: str | None = None,
    retention: Mapping[str, Any] | None = None,
    durability: str | None = None,
    ip: str = "",
    location: str = "",
    lifeline: bool = False,
    load_profile: bool = True,
    reuse: bool = False,
    next_free: bool = False,
    more: Sequence[str] = (),
) -> Command:
    """How a controller is started.

    Parameters
    ----------
    profile_dir, cluster_id
        Whose controller it is.
    database : str, optional
        A name in `DATABASES`, or a url.
    retention : dict, optional
        What is kept in the database.
    durability : "normal" or "full", optional
        What an acknowledged task survives.
    ip, location : str
        The address to listen on, and the name by which other hosts reach it.
    lifeline : bool
        Whether it stops when its stdin closes.
    load_profile : bool
        Whether it reads the profile's configuration files.
    reuse : bool
        Whether it takes over the connection files of the controller before it, so that engines and clients reconnect.
    next_free : bool
        Whether it uses another file if the database belongs to another controller: tasks-2.db and so on.
    more : list of str
        More arguments for `ipcontroller`.
    """
    args = [
        *(sys.executable, *_SAFE, "-m", "engineroom.controller"),
        f"--profile-dir={profile_dir}",
        f"--cluster-id={cluster_id}",
    ]
    environment = _package_path()
    if database is not None and database.startswith("mongodb"):
        args.append("--mongodb")
        if database != "mongodb":  # a url may hold a password, and every user of the host can read command lines
            environment["ENGINEROOM_MONGODB_URL"] = database
    elif database is not None:
        args.append(DATABASES.get(database, f"--db-url={database}"))
    if retention:
        args.append(f"--retain={json.dumps(retention)}")
    if durability is not None:
        args.append(f"--durability={durability}")
    if ip:
        args.append(f"--ip={ip}")
    if location:
        args.append(f"--location={location}")
    if lifeline:
        args.append("--lifeline")
    if not load_profile:
        args.append("--no-config")
    if reuse:
        args.append("--reuse")
    if next_free:
        args.append("--next-free")
    return Command([*args, *more], environment)


def engines_command(
    *,
    profile_dir: Path,
    resources: Mapping[str, int] | None = None,
    more: Sequence[str] = (),
) -> Command:
    """How a nanny is started, without the number of its engines and without its connection file.

    `resources` is what its engines share.
    """
    args = [
        *(sys.executable, *_SAFE, "-m", "engineroom.engine"),
        f"--profile-dir={profile_dir}",
        *more,
    ]
    if resources:
        args.append(f"--resources={named_resources.spell(resources)}")
    folders = _import_path()
    return Command(args, {**_package_path(), IMPORT_PATH: os.pathsep.join(folders)})


def dashboard_command(*, profile_dir: Path, cluster_id: str) -> Command:
    """How the dashboard of a cluster is started. It ends when the cluster is stopped."""
    args = [
        *(sys.executable, *_SAFE, "-m", "engineroom.cli.engineroom", "dashboard"),
        f"--profile-dir={profile_dir}",
        f"--cluster-id={cluster_id}",
        "--with-cluster",
    ]
    return Command(args, _package_path())


def guard_command(*, profile_dir: Path, cluster_id: str, cluster_file: Path) -> Command:
    """How the guard of a controller that is a batch job is started."""
    args = [
        *(sys.executable, *_SAFE, "-m", "engineroom.cluster.processes.guard"),
        str(profile_dir),
        cluster_id,
        str(cluster_file),
    ]
    return Command(args, _package_path())


def _import_path() -> list[str]:
    """Folders in which engines look for modules last: those of our `sys.path`, and the current one.

    Left out are the folders that Python and PYTHONPATH give engines anyway, and those to which others may write.
    """
    try:
        current = os.getcwd()
    except FileNotFoundError:  # it has been removed: nothing can be imported from there
        current = ""
    folders = [os.path.join(current, entry) for entry in sys.path if current or os.path.isabs(entry)]
    folders = [os.path.normpath(folder) for folder in folders]
    ours = dict.fromkeys(folder for folder in folders if not _is_found_anyway(folder))
    trusted = []
    for folder in ours:
        if why := _why_not_trusted(folder):
            warnings.warn(
                f"engines do not import modules from {folder}: {why}. If you trust it, put it on PYTHONPATH",
                stacklevel=2,
            )
        else:
            trusted.append(folder)
    if current and current not in ours and not _is_found_anyway(current) and not _why_not_trusted(current):
        trusted.append(current)
    return trusted


def _package_path() -> dict[str, str]:
    """PYTHONPATH with the folder that has this package, if a new process would not find it otherwise."""
    folder = str(Path(__file__).absolute().parents[2])
    if _is_found_anyway(folder) or _why_not_trusted(folder):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))}


def _is_found_anyway(folder: str) -> bool:
    """Whether each Python process looks for modules there: Python's own folders, and those on PYTHONPATH."""
    given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    own = (sys.prefix, sys.base_prefix)
    return folder in given or folder.startswith(own) or folder == site.getusersitepackages()


def _why_not_trusted(folder: str) -> str:
    try:
        return why_not_trusted_folder(Path(folder))
    except OSError:
        return ""  # nothing can be imported from there
