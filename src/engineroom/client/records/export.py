"""Task records as files for other programs: JSON lines, CSV, Parquet."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

from ...errors import ConfigError
from ...records.fields import ALIASES, BULKY, DEFAULT_KEYS, FIELD, NESTED, NUMBERS, TIMES
from .actions import checked, select
from .queries import Records
from .query_args import plain_keys
from .scope import in_session
from .selection import Selection

#: ending of a file's name → format
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

#: Records in a group of rows of Parquet.
ROWS = 5000

#: Types of columns in Parquet; other keys are strings.
_ARROW = {float: "float64", int: "int64"}
#: Keys that are JSON in tables.
_JSON = NESTED | BULKY


def export(
    records: Records,
    path: str | os.PathLike[str],
    query: Mapping[str, Any] | str | None = None,
    keys: str | Iterable[str] | None = None,
    *,
    format: str | None = None,
    session: Any = None,
    dry_run: bool = False,
) -> Selection:
    """Write task records to a file, by submission. Memory stays flat, however many there are.

    Parameters
    ----------
    path : str or path
        Its ending is the format: .jsonl (a JSON object per line), .csv, or .parquet (needs pyarrow). An
        existing file is replaced, once all is written.
    query : dict or "all", optional
        Default: all.
    keys : str or list of str, optional
        Default: all but `buffers` and `result_buffers`, which become base64.
    format : "jsonl", "csv" or "parquet", optional
        Instead of the ending's.
    session : str or Client, optional
        Only tasks of this session: "mine", "last", an id, or a client.
    dry_run : bool
        Write nothing, return the selection.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is the path of the file to write; got {path!r:.60}")
    format_of(path, format)
    query = in_session(records, "all" if query is None else query, session)
    chosen = select(records, query, "export", dry_run=dry_run)
    if dry_run:
        return chosen
    named, plain = plain_keys(keys), checked(query, "export")
    count = write_records(path, records.iterate(plain, named), named, format)
    return msgspec.structs.replace(chosen, count=count)


def format_of(path: str | os.PathLike[str], wanted: str | None = None) -> str:
    """The format for a file: `wanted`, or by its name.

    Raises
    ------
    ConfigError
        There is no such format, or its library is missing.
    """
    found = FORMATS.get(Path(path).suffix.lower()) if wanted is None else wanted
    if found not in list(FORMATS.values()):
        raise ConfigError(
            f"records are exported as .jsonl, .csv or .parquet; {str(path)!r} has none of those endings"
            if wanted is None
            else f"there is no format {wanted!r}: it is one of jsonl, csv, parquet"
        )
    if found == "parquet":
        _parquet()
    return found


def write_records(
    path: str | os.PathLike[str], records: Iterable[Any], keys: Sequence[str] | None = None, format: str | None = None
) -> int:
    """Write records to a file, one by one; returns how many. A file of that name is replaced once all is written."""
    kind = format_of(path, format)
    columns = list(dict.fromkeys(["msg_id", *(DEFAULT_KEYS if keys is None else keys)]))
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        if kind == "parquet":
            count = _write_parquet(part, records, columns)
        else:
            with part.open("w", encoding="utf-8", errors="replace", newline="") as file:
                count = -1 if kind == "csv" else 0  # CSV has a line with the names of its columns
                for line in lines_of(records, columns, kind):
                    file.write(line)
                    count += 1
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return count


def lines_of(records: Iterable[Any], columns: Sequence[str], kind: str) -> Iterator[str]:
    """Records as lines of text, one for each.

    Parameters
    ----------
    kind : "jsonl" or "csv"
        CSV has the names of the columns as its first line.
    """
    if kind == "jsonl":
        for record in records:
            yield _json({key: record[key] for key in columns}) + "\n"
        return
    line = io.StringIO(newline="")
    writer = csv.writer(line)
    for cells in chain([columns], ([_cell(record[key], key) for key in columns] for record in records)):
        writer.writerow(cells)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _write_parquet(path: Path, records: Iterable[Any], columns: Sequence[str]) -> int:
    arrow, parquet = _parquet()
    kinds = {key: _ARROW.get(FIELD[key].type, "string") if key in FIELD else "string" for key in columns}
    schema = arrow.schema([
        (key, arrow.timestamp("us", tz="UTC") if key in TIMES else getattr(arrow, kinds[key])()) for key in columns
    ])  # fmt: skip
    count, left = 0, iter(records)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(left, ROWS)):
            made = [
                {key: record[key] if key in TIMES or key in NUMBERS else _text(record[key], key) for key in columns}
                for record in rows
            ]
            writer.write_table(arrow.Table.from_pylist(made, schema=schema))
            count += len(rows)
    return count


def _parquet() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install pyarrow; or export as .jsonl or .csv") from None
    return pyarrow, parquet


def _cell(value: Any, key: str) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if key in NUMBERS else _text(value, key)


def _text(value: Any, key: str) -> str | None:
    if value is None:
        return None
    return _json(value) if ALIASES.get(key, key) in _JSON or not isinstance(value, str) else value


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return repr(value)
