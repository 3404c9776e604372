"""Records as a Parquet file, for other programs to read, and to be read back.

Each key of a record has a column; dicts and lists are JSON. The columns `_record` and `_entry` (msgpack) hold the same
without loss, except buffers, which have columns of their own. Functions and environments are in the file's metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ...errors import ConfigError, StoreDamaged, StoreError
from ...ids import ClientId
from ...messages import Environment, Function
from ...records.entry import Entry
from ...records.fields import BULKY, FIELDS, KEYS, NESTED
from ...records.record import TaskRecord
from .copy import STEP, Item

_FUNCTIONS, _CLIENTS, _VERSION = b"engineroom.functions", b"engineroom.clients", b"engineroom.version"


class _Bare(msgspec.Struct, array_like=True):
    """An entry without its buffers, and whether the first buffer was part of the task's message itself."""

    entry: Entry
    inline: bool
    result_inline: bool


_pack = msgspec.msgpack.Encoder().encode
_unpack_bare = msgspec.msgpack.Decoder(_Bare).decode
_unpack_record = msgspec.msgpack.Decoder(dict[str, Any]).decode
_unpack_functions = msgspec.msgpack.Decoder(list[Function]).decode
_unpack_clients = msgspec.msgpack.Decoder(list[tuple[ClientId, Environment]]).decode
_json = msgspec.json.Encoder(enc_hook=repr).encode


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet files need pyarrow: pip install 'engineroom[parquet]'") from None
    return pyarrow


def _schema(arrow: Any) -> Any:
    kinds = {str: arrow.string(), datetime: arrow.timestamp("us", "UTC"), float: arrow.float64(), int: arrow.int64(),
             bool: arrow.bool_()}  # fmt: skip
    fields = [
        (field.name, arrow.list_(arrow.binary()) if field.is_bulky else kinds.get(field.type, arrow.string()))
        for field in FIELDS
    ]
    return arrow.schema([*fields, ("_record", arrow.binary()), ("_entry", arrow.binary())])


class ParquetWriter:
    """Writes a file. It appears under its name, whole, when the writer is closed without an error."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise StoreError(f"there is a file {path} already; name another")
        self._arrow = _arrow()
        self._path, self._made = path, path.with_name(f"{path.name}.{os.getpid()}")
        self._functions: list[Function] = []
        self._clients: list[tuple[ClientId, Environment]] = []
        self._schema = _schema(self._arrow)
        try:
            os.close(os.open(self._made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            self._writer = self._arrow.parquet.ParquetWriter(self._made, self._schema, compression="zstd")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error}") from error

    def take(self, items: list[Item]) -> int:
        rows = [_row(item) for item in items]
        columns = {name: [row[name] for row in rows] for name in self._schema.names}
        try:
            self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error
        return len(items)

    def take_functions(self, functions: list[Function]) -> None:
        self._functions += functions

    def take_environments(self, environments: list[tuple[ClientId, Environment]]) -> None:
        self._clients += environments

    def close(self, whole: bool) -> None:
        """Finish the file; or remove it, if it is not whole."""
        about = {_FUNCTIONS: _pack(self._functions), _CLIENTS: _pack(self._clients), _VERSION: b"1"}
        self._writer.add_key_value_metadata(about)
        self._writer.close()
        if whole:
            self._made.replace(self._path)
        else:
            self._made.unlink(missing_ok=True)


class ParquetReader:
    """Reads a file that `ParquetWriter` made."""

    def __init__(self, path: Path) -> None:
        arrow = _arrow()
        try:
            self._file = arrow.parquet.ParquetFile(path)
        except FileNotFoundError:
            raise StoreError(f"there is no file {path}") from None
        except (OSError, arrow.ArrowException) as error:
            raise StoreDamaged(f"{path} is not a Parquet file: {error}") from error
        self._metadata = self._file.metadata.metadata or {}
        if _VERSION not in self._metadata:
            raise StoreError(f"{path} is a Parquet file, but not one of `engineroom db copy`")

    def items(self) -> Iterator[list[Item]]:
        for batch in self._file.iter_batches(STEP, columns=["_record", "_entry", *sorted(BULKY)]):
            yield [_item(row) for row in batch.to_pylist()]

    def functions(self) -> Iterator[Function]:
        yield from _unpack_functions(self._metadata[_FUNCTIONS])

    def environments(self) -> Iterator[tuple[ClientId, Environment]]:
        yield from _unpack_clients(self._metadata[_CLIENTS])

    def close(self) -> None:
        self._file.close()


def _row(item: Item) -> dict[str, Any]:
    record = item.record
    row: dict[str, Any] = {}
    for key in KEYS:
        value = record[key]
        row[key] = _json(value).decode() if key in NESTED and value is not None else value
    row["_record"] = _pack({key: value for key, value in record.items() if key not in BULKY})
    row["_entry"] = None if item.entry is None else _pack(_bare(item.entry))
    return row


def _bare(entry: Entry) -> _Bare:
    change = msgspec.structs.replace
    spec, done = entry.spec, entry.done
    bare = change(
        entry,
        spec=change(spec, payload=b"", frames=()),
        frames=(),
        done=None if done is None else change(done, payload=b"", frames=()),
        result_frames=(),
    )
    result_inline = done is not None and (bool(done.payload) or not entry.result_frames)
    return _Bare(bare, bool(spec.payload) or not entry.frames, result_inline)


def _item(row: Mapping[str, Any]) -> Item:
    record = _unpack_record(row["_record"])
    record = TaskRecord({key: row[key] if key in BULKY else record.get(key) for key in KEYS})
    if row["_entry"] is None:
        return Item(record, None)
    bare = _unpack_bare(row["_entry"])
    entry = bare.entry
    payload, frames = _split(record["buffers"], bare.inline)
    entry.spec = msgspec.structs.replace(entry.spec, payload=payload, frames=tuple(range(len(frames))))
    entry.frames = frames
    if entry.done is not None:
        payload, frames = _split(record["result_buffers"], bare.result_inline)
        entry.done = msgspec.structs.replace(entry.done, payload=payload, frames=tuple(range(len(frames))))
        entry.result_frames = frames
    return Item(record, entry)


def _split(buffers: list[bytes] | None, inline: bool) -> tuple[bytes, tuple[bytes, ...]]:
    """Buffers as a payload, and the frames that follow it."""
    if not buffers:
        return b"", ()
    return (buffers[0], tuple(buffers[1:])) if inline else (b"", tuple(buffers))
