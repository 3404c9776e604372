"""Ends a cluster whose controller is a batch job when the process that started it ends, however that ends.

It is a process beside the one that started the cluster, and does nothing while that lives: its stdin is a pipe from
there. A controller on this host, or one that ssh starts, has such a pipe itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from ...errors import EngineroomError
from ..cluster_files import ClusterFiles
from .left_jobs import cancel_left_jobs

#: Seconds that the controller may take to answer, and then to end.
ANSWER_SECONDS, END_SECONDS = 3.0, 8.0
#: Seconds between two looks.
LOOK_SECONDS = 0.1


def ask_to_end(files: ClusterFiles) -> None:
    """Have the controller end in order, if it runs: tasks get their outcome, engines stop. Waits for that for a while.

    Some batch systems kill the jobs that they cancel: that alone would leave tasks without an outcome.
    """
    info = files.connection
    if info is None:
        return
    from ...client import Client  # it takes long to import

    with contextlib.suppress(EngineroomError, TimeoutError, OSError):
        with Client(info, timeout=ANSWER_SECONDS) as client:
            client.shutdown(hub=True, block=False)
        deadline = time.monotonic() + END_SECONDS
        while is_there(files.connection_files[0]) and time.monotonic() < deadline:  # the controller removes it
            time.sleep(LOOK_SECONDS)


def is_there(path: Path) -> bool:
    """Whether a file is there. The folder is read: NFS remembers for a while that a file was not there."""
    try:
        return path.name in os.listdir(path.parent)
    except OSError:
        return False


def main(profile_dir: str, cluster_id: str, cluster_file: str) -> None:
    """Wait for the end of stdin, and end the cluster then."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # the cluster was stopped in order
    while os.read(0, 1024):
        pass
    files = ClusterFiles(Path(profile_dir), cluster_id, Path(cluster_file))
    ask_to_end(files)
    cancel_left_jobs(files.cluster_file)
    files.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
