"""Arguments of `Client` that ipyparallel has, and those of its first release: what each means here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError

#: argument → the argument that replaces it here
RENAMED = {"url_file": "connection_info", "url_or_file": "connection_info", "cluster_dir": "profile_dir"}
#: argument → why it has no effect
WITHOUT_EFFECT = {
    "context": "every client has a connection of its own",
    "exec_key": "the key is in the connection file",
    "key": "the key is in the connection file",
    "keyfile": "the key is in the connection file",
    "username": "records name the session that submitted a task, not a user",
    "session": "every client has a session of its own: rc.session.session",
    "packer": "messages have one format",
    "unpacker": "messages have one format",
    "signature_scheme": "TCP is always encrypted, and nothing is open without the key",
    "digest_history_size": "messages cannot be replayed",
    "buffer_threshold": "buffers of 16 kB and more are sent without a copy into the message",
    "item_threshold": "messages have one format",
    "copy_threshold": "arguments are copied at the call; `track=True` sends them without a copy",
    "metadata": "records have the metadata of views and calls",
    "config": "clients have no configuration",
    "parent": "clients have no configuration",
    "password": "ssh asks for none: use a key or an agent",
    "paramiko": "the system's ssh makes tunnels",
    "log": "clients log with the logger 'engineroom'",
}


def options_of_subheader(
    subheader: Any, retries: int | None, label: str | None, metadata: Mapping[str, Any] | None
) -> tuple[Any, Any, Mapping[str, Any] | None]:
    """The `retries`, `label` and `metadata` of a resubmission that has a subheader, as the first release called them.

    Raises
    ------
    ConfigError
        The subheader is no dict.
    """
    if not isinstance(subheader, Mapping):
        raise ConfigError(f"subheader is a dict or None; got {subheader!r}")
    options = dict(subheader)
    retries, label = options.pop("retries", retries), options.pop("label", label)
    return retries, label, {**options, **(metadata or {})} or None


def take_over(given: Mapping[str, Any]) -> dict[str, Any]:
    """What former arguments mean: values for `connection_info` and `profile_dir`. Others warn that they do nothing.

    Raises
    ------
    TypeError
        There is and was no such argument.
    """
    unknown = [name for name in given if name not in {*RENAMED, *WITHOUT_EFFECT}]
    if unknown:
        raise TypeError(f"Client has no argument {unknown[0]!r}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in RENAMED:
            values[RENAMED[name]] = value
            warnings.warn(f"Client({name}=…) is called {RENAMED[name]}= today", DeprecationWarning, stacklevel=4)
        else:
            warnings.warn(f"Client({name}=…) has no effect: {WITHOUT_EFFECT[name]}", UserWarning, stacklevel=4)
    return values
