"""The version of the documents in a MongoDB database, which is kept in it: a newer Engineroom's is refused."""

from __future__ import annotations

from typing import Any

from ..._version import __version__
from ...errors import StoreError

#: The version of the documents that this release writes. It rises when an older release could not read them.
VERSION = 1

_ABOUT = {"_id": "documents"}


def check_version(database: Any, name: str) -> None:
    """Refuse a database whose documents this release does not know. One without a version has the first.

    Raises
    ------
    StoreError
        A newer Engineroom made it.
    """
    found = database.about.find_one(_ABOUT) or {}
    version, release = found.get("version", 1), found.get("release", "unknown")
    if not isinstance(version, int) or version > VERSION:
        raise StoreError(
            f"{name} has documents of version {version}: a newer Engineroom ({release}) made it. This one "
            f"({__version__}) knows versions up to {VERSION}. Upgrade it (pip install --upgrade engineroom), or name "
            "another database."
        )


def note_version(database: Any) -> None:
    """Note which version the documents of a database have from now on."""
    database.about.replace_one(_ABOUT, {**_ABOUT, "version": VERSION, "release": __version__}, upsert=True)
