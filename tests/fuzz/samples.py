"""A sample of every message that may travel, made from the types themselves: `tests/golden/wire.json` lists them.

Of each there is a short one, with the required fields only, and a full one, with a value in every field.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from engineroom import messages
from engineroom.ids import digest_of

#: The content of the function that all samples are about.
CODE = b"code"

DIRECTIONS = ("FromClient", "ToClient", "FromEngine", "ToEngine", "FromNanny", "ToNanny")


def of(direction: str) -> list[Any]:
    """All samples of a direction: for each type of message, and for each body of a request."""
    found: list[Any] = []
    for info in _kinds(inspect.type_info(getattr(messages, direction))):
        for full in (False, True):
            if info.cls is messages.Request:
                found += [messages.Request(1, _struct(each, full)) for each in _kinds(info.fields[1].type)]
            else:
                found.append(_struct(info, full))
    return found


def _kinds(info: Any) -> list[Any]:
    return list(info.types) if isinstance(info, inspect.UnionType) else [info]


def _struct(info: Any, full: bool) -> Any:
    return info.cls(*[_field(f, full) for f in info.fields if f.required or full])


def _field(field: Any, full: bool) -> Any:
    """A function's digest is that of its content: the controller refuses others."""
    is_digest = field.name in ("digest", "function") and isinstance(field.type, inspect.BytesType)
    return digest_of(CODE) if is_digest else _value(field.type, full)


def _value(info: Any, full: bool) -> Any:
    match info:
        case inspect.UnionType(types=types):
            wanted = [each for each in types if isinstance(each, inspect.NoneType) != full]
            return _value(wanted[0] if wanted else types[0], full)
        case inspect.StructType():
            return _struct(info, full)
        case inspect.ListType(item_type=item):
            return [_value(item, full)] if full else []
        case inspect.VarTupleType(item_type=item):
            return (_value(item, full),) if full else ()
        case inspect.TupleType(item_types=items):
            return tuple(_value(item, full) for item in items)
        case inspect.DictType(value_type=item):
            return {"state": _value(item, full)} if full else {}
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.IntType(ge=least):
            return max(1 if full else 0, least or 0)
        case inspect.FloatType():
            return 1.5
        case inspect.BoolType():
            return full
        case inspect.StrType():
            return "t1"
        case inspect.BytesType():
            return CODE
        case inspect.NoneType():
            return None
        case inspect.CustomType() | inspect.AnyType():
            return "pending"
    raise TypeError(f"no sample for {info}")


def tree_of(message: Any) -> Any:
    """The lists and values that travel."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))
