"""What the arguments of `Client` may be. What those of ipyparallel mean is in `former_arguments.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..config import PATH, SECONDS, TEXT, ConnectionInfo, Kind, check_arguments
from .former_arguments import take_over

CONNECTION = Kind(
    "the path of a connection file, or what is in one",
    lambda value: value is None or (isinstance(value, str | os.PathLike | Mapping | ConnectionInfo) and value != ""),
)

PATIENCE = Kind("a number of seconds, 0 or more", lambda value: SECONDS.fits(value) and float(value) >= 0)

KINDS: dict[str, Kind] = {
    "connection_info": CONNECTION,
    "timeout": PATIENCE,
    **dict.fromkeys(("profile_dir", "ipython_dir", "sshkey"), PATH),
    **dict.fromkeys(("profile", "cluster_id", "sshserver"), TEXT),
}


def checked(given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Check the arguments of a client; returns `connection_info` and `profile_dir`, which may have former names.

    Raises
    ------
    ConfigError
        One is not what it may be.
    TypeError
        There is and was no such argument.
    """
    former = take_over(given["former"]) if given["former"] else {}
    names = ("connection_info", "profile_dir")
    found = {name: former.get(name) if given[name] is None else given[name] for name in names}
    check_arguments({**given, **found}, KINDS)
    return found["connection_info"], found["profile_dir"]
