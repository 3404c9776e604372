"""The rights of keys: what the holder of each key may be, and how each key follows from the cluster's key.

    "full"       the cluster's key itself: everything
    "engine"     engines and nannies: they take tasks and send results. They cannot submit, ask or change anything
    "readonly"   clients that ask and look; they change nothing
    "submit"     clients that submit tasks, and see and end those of their own session only

A key with lesser rights is an HMAC of the cluster's key, so nobody can compute another key from it. Which messages each
may send is decided in one place, `controller/requests/door.py`. There is no file and no socket here.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal, get_args

Rights = Literal["full", "engine", "readonly", "submit"]
RIGHTS: tuple[Rights, ...] = get_args(Rights)

#: What the holder of a key may say that it is, in its Hello.
ROLES: dict[Rights, tuple[str, ...]] = {
    "full": ("client", "engine", "nanny"),
    "engine": ("engine", "nanny"),
    "readonly": ("client",),
    "submit": ("client",),
}


def key_with_rights(cluster_key: str, rights: Rights) -> str:
    """The key with these rights. Always the same for one cluster's key."""
    if rights == "full":
        return cluster_key
    return hmac.new(cluster_key.encode(), b"engineroom rights: " + rights.encode(), hashlib.sha256).hexdigest()


def buffer_ticket(secret: bytes, number: int) -> bytes:
    """What lets a nanny have the buffer with this number from another one, whose secret this is: 16 bytes."""
    return hmac.digest(secret, number.to_bytes(8, "little"), "sha256")[:16]
