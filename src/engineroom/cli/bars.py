"""Progress bars of commands, on stderr, with tqdm. Without a terminal there are none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from ..stores.maintenance.compact import Progress


@contextlib.contextmanager
def bar(unit: str) -> Iterator[Progress]:
    """A bar, while the block runs. It is shown by a function: (what is being done, how much is done, of how much)."""
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=True, file=sys.stderr, disable=None, leave=False) as shown:

        def show(what: str, done: int, total: int) -> None:
            if shown.disable:
                return
            if shown.desc != f"{what}: " or shown.total != total:
                shown.reset(total)
                shown.set_description(what)
            shown.update(done - shown.n)

        yield show
