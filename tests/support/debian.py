"""Parts of the surroundings that Debian has as packages: sshd, Slurm, Grid Engine, Chromium. No package
starts a daemon here.

`python tests/support/debian.py` (`make parts`) installs what is missing, if this is root on a Debian. Where a part
cannot be had, the tests that need it are skipped, and pytest's summary says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

#: part → its packages, and commands that show that it is there
PARTS = {
    "ssh": (["openssh-server", "openssh-client"], ["sshd", "ssh"]),
    "network namespaces": (["iproute2"], ["ip"]),
    "Grid Engine": (
        ["gridengine-master", "gridengine-exec", "gridengine-client"],
        ["sge_qmaster", "sge_execd", "qsub"],
    ),
    "Slurm": (["slurm-wlm"], ["slurmctld", "slurmd", "munged", "sbatch"]),
    "a browser": (["chromium"], ["chromium"]),
}
HOW = "run `make parts` as root on a Debian"


def find(command: str) -> str | None:
    """The path of a command, also of those of the administrator."""
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing(part: str) -> str | None:
    """Why a part cannot be used; None: it can."""
    lacking = [command for command in PARTS[part][1] if find(command) is None]
    if lacking:
        return f"{part} is not there: no {', '.join(lacking)}; {HOW}"
    return f"{part} needs root" if os.getuid() != 0 else None


def install() -> str | None:
    """Install the packages that are missing; returns why that is not possible."""
    wanted = [package for packages, commands in PARTS.values() for package in packages if not all(map(find, commands))]
    if not wanted:
        return None
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return f"not installed, as this is not root on a Debian: {' '.join(wanted)}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *wanted]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            return f"apt-get {command[0]} failed: {lines[-1]}"
    return None


if __name__ == "__main__":
    why = install()
    if why:
        print(f"Tests of other hosts are skipped, those whose parts are missing: {why}", file=sys.stderr)
