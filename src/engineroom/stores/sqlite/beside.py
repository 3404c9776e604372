"""The databases beside one: clusters that run at the same time in one profile have `tasks.db`, `tasks-2.db`, ….

It looks at names only, and opens nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...records.database_urls import file_of


def databases_beside(url: str) -> list[Path]:
    """The other databases of the same profile, by name: for `tasks-2.db` also `tasks.db`; [] if it is no file."""
    path = file_of(url)
    if path is None:
        return []
    base = re.sub(r"-\d+$", "", path.stem)
    name = re.compile(rf"{re.escape(base)}(-\d+)?{re.escape(path.suffix)}")
    try:
        files = sorted(path.parent.iterdir())
    except OSError:
        return []
    return [other for other in files if other.name != path.name and name.fullmatch(other.name)]


def where_else(url: str) -> str:
    """What to say of a task that is not in this database: which others there are; "" if there is none."""
    others = databases_beside(url)
    if not others:
        return ""
    names = ", ".join(other.name for other in others)
    return (
        f"Beside this database there {'is' if len(others) == 1 else 'are'} {names}, of clusters that ran at the same "
        f"time. To read one: `engineroom tasks --db-url={others[0]}`; to join them: `engineroom db copy`"
    )
