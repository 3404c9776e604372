"""Small changes of a case: of bytes, of text, and of lists and dicts in msgpack or JSON. Chance is an argument."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

#: Values at the edges of what a field may hold.
ATOMS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 2**64 - 1,
    0.0, -0.0, 1.5, -1.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 2.5e11,
    "", "a", "\0", "ü", "\U0001f600", "a" * 300, "\n", "{}", "../..", "%s", "$x", "a.b",
    b"", b"\0", b"a", b"\xff" * 16, b"x" * 300, [], {}, [None], [[]], {"": 0}, {"a": {"a": 1}},
)  # fmt: skip
_BYTES = (b"\x00", b"\xff", b"\x80", b"\n", b"{", b"[", b'"', b"\\", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xed\xa0\x80")
#: Nesting of a value that is nested on purpose.
DEEP = (3, 60, 300, 1100)
#: Changes of one case at most.
MOST = 4


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes with one to four changes."""
    made = bytearray(data)
    for _ in range(rng.randint(1, MOST)):
        at = rng.randint(0, len(made))
        end = min(len(made), at + rng.choice((1, 1, 2, 4, 8, 30)))
        match rng.randrange(7):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at:end]
            case 2:
                made[at:at] = made[at:end]
            case 3:
                made[at:at] = rng.choice(_BYTES)
            case 4:
                made[at:end] = rng.randbytes(end - at)
            case 5:
                del made[at:]
            case _:
                made[at:end] = rng.choice((0, 1, 255, 2**31, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
    return bytes(made)


def change_packed(data: bytes, rng: Random, atoms: Sequence[Any] = ()) -> bytes:
    """A tree in msgpack, changed; or its bytes, now and then."""
    return _change(data, rng, atoms, msgspec.msgpack.decode, msgspec.msgpack.encode)


def change_json(data: bytes, rng: Random, atoms: Sequence[Any] = ()) -> bytes:
    """A tree in JSON, changed; or its bytes, now and then."""
    return _change(data, rng, atoms, json.loads, lambda tree: json.dumps(tree, default=repr).encode())


def _change(
    data: bytes, rng: Random, atoms: Sequence[Any], decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> bytes:
    if rng.random() < 0.15:
        return change_bytes(data, rng)
    try:
        tree = decode(data)
        for _ in range(rng.randint(1, MOST)):
            tree = change_tree(tree, rng, atoms)
        return encode(tree)
    except (ValueError, TypeError, RecursionError, OverflowError, msgspec.MsgspecError):
        return change_bytes(data, rng)


def change_tree(tree: Any, rng: Random, atoms: Sequence[Any] = ()) -> Any:
    """A tree with one change. The tree that is given is changed, too."""
    places: list[tuple[Any, Any]] = []
    _collect(tree, places)
    if not places:
        return _other(tree, rng, atoms)
    box, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del box[key]
        case 1 if isinstance(box, list):
            box.insert(key, _copy(box[key]))
        case 2 if isinstance(box, list):
            box.append(_atom(rng, atoms))
        case 1 | 2:
            name = _atom(rng, atoms)
            box[name if isinstance(name, str) else "a"] = box[key]
        case 3:
            other, place = rng.choice(places)
            box[key] = _copy(other[place])
        case 4:
            box[key] = rng.choice(([box[key]], {"a": box[key]}, [box[key]] * 3))
        case 5 if rng.random() < 0.1:
            box[key] = nested(rng.choice(DEEP), rng.choice((list, dict)))
        case _:
            box[key] = _other(box[key], rng, atoms)
    return tree


def nested(depth: int, kind: type) -> Any:
    """A list in a list in a list …, or dicts."""
    made: Any = 1
    for _ in range(depth):
        made = [made] if kind is list else {"a": made}
    return made


def _collect(tree: Any, places: list[tuple[Any, Any]], depth: int = 0) -> None:
    if depth > 200:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            places.append((tree, key))
            _collect(value, places, depth + 1)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            places.append((tree, index))
            _collect(value, places, depth + 1)


def _copy(tree: Any) -> Any:
    """Boxes of its own, so that a later change of one place changes no other."""
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _atom(rng: Random, atoms: Sequence[Any]) -> Any:
    return _copy(rng.choice(atoms if atoms and rng.random() < 0.6 else ATOMS))


def _other(value: Any, rng: Random, atoms: Sequence[Any]) -> Any:
    """Another value in the place of this one: one at an edge, or one that is close to it."""
    if rng.random() < 0.5:
        return _atom(rng, atoms)
    if isinstance(value, bool) or value is None:
        return rng.choice((True, False, None))
    if isinstance(value, int):
        return value + rng.choice((-1, 1, -256, 256, 2**31, -(2**31)))
    if isinstance(value, float):
        return value * rng.choice((-1.0, 0.5, 2.0, 1e9, 1e-9))
    if isinstance(value, str) and rng.random() < 0.4:
        at, piece = rng.randint(0, len(value)), _atom(rng, atoms)
        return value[:at] + (piece if isinstance(piece, str) else "x") + value[at:]
    if isinstance(value, str):
        return change_bytes(value.encode(errors="replace"), rng).decode(errors="replace")
    if isinstance(value, bytes):
        return change_bytes(value, rng)
    return _atom(rng, atoms)
