"""The records that match a query as a file to download: JSON lines or CSV, a part at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import chain

from starlette.responses import Response, StreamingResponse

from ..client.records.export import lines_of
from ..errors import ConfigError
from ..reading.paging import pages
from ..records.fields import DEFAULT_KEYS
from .source import Source
from .tasks import query_of

#: format → its media type
KINDS = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


async def download(source: Source, text: str, session: str, kind: str) -> Response:
    """All records that match, as a file that the browser saves. It holds all keys but the large ones.

    Memory stays flat: records are read a page at a time, when the browser has taken the page before.

    Raises
    ------
    ConfigError
        There is no such format.
    QueryError
        It is no query.
    """
    if kind not in KINDS:
        raise ConfigError(f"records are exported as {' or '.join(KINDS)}; got {kind!r}")

    def begun() -> tuple[Iterator[str], str]:
        records = source.records()
        found = pages(records, query_of(records, text, session), DEFAULT_KEYS, 1)
        lines = lines_of(chain.from_iterable(found), DEFAULT_KEYS, kind)
        return lines, _some(lines)

    lines, first = await source.ask(begun)  # what is wrong with the query is said before the file begins

    async def parts() -> AsyncIterator[bytes]:
        part = first
        while part:
            yield part.encode("utf-8", "replace")
            part = await source.ask(lambda: _some(lines))

    name = {"Content-Disposition": f'attachment; filename="tasks.{kind}"'}
    return StreamingResponse(parts(), media_type=KINDS[kind], headers=name)


def _some(lines: Iterator[str], most: int = 1000) -> str:
    """The next lines; "": there are no more."""
    return "".join(line for _, line in zip(range(most), lines, strict=False))
