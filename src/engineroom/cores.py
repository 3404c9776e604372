"""How many processor cores and how much memory this process may use: CPU affinity, and the limits of its cgroups.

`os.cpu_count()` is the number of cores of the machine. A batch system or a container often gives a process fewer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores this process may use, at least 1.

    A quota that is not whole counts as the next whole number: 1.5 cores are 2.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are mounted; only tests give it.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: those of the machine, or the lowest limit of its cgroups.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are mounted; only tests give it.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, version in _folders(root, "memory"):
        limit = _read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit.isdigit():  # not "max"
            limits.append(int(limit))
    return min(limits)


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed because memory ran out: in our cgroup, else on this machine.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are mounted; only tests give it.
    """
    files = [
        folder / ("memory.events" if version == 2 else "memory.oom_control")
        for folder, version in _folders(root, "memory")
    ]
    for path in (*files, root / "proc/vmstat"):  # our own cgroup comes first
        for line in _read(path).splitlines():
            word, _, number = line.partition(" ")
            if word == "oom_kill" and number.isdigit():
                return int(number)
    return 0


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas that hold for this process, in cores."""
    for folder, version in _folders(root, "cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            yield from _cores(quota, period)
        else:
            yield from _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _folders(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's cgroups that may have limits of a controller, with the version of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers == "":  # version 2
            for folder in _up(mount, group):
                yield folder, 2
        elif controller in controllers.split(","):  # version 1
            for name in dict.fromkeys((controllers, controller)):
                for folder in _up(mount / name, group):
                    yield folder, 1


def _up(mount: Path, group: str) -> Iterator[Path]:
    """A cgroup's folder and those above it: each may have a quota.

    A container often sees its own cgroup as the root of the mount, under the path that the host knows. The root is
    among the folders, so its quota is found.
    """
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cores(quota: str, period: str) -> Iterator[float]:
    """A quota in cores, if there is one: "max" and -1 mean none."""
    try:
        if int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except ValueError:
        return
