"""Urls of task databases that are SQLite files: `sqlite:///home/me/tasks.db`."""

from __future__ import annotations

import os
from pathlib import Path

_SCHEME = "sqlite://"


def file_of(url: str) -> Path | None:
    """The file that a url names; None: it is the url of another kind of database, or no url."""
    return Path("/" + url.removeprefix(_SCHEME).lstrip("/")) if url.startswith(_SCHEME) else None


def url_of(path: str | os.PathLike[str]) -> str:
    """The url of a file."""
    return f"{_SCHEME}{Path(path).absolute()}"
