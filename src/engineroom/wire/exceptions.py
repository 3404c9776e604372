"""Exceptions on their way from an engine to a client: packed there, and made again here where that is possible.

An exception is not pickled as a whole, because that fails for many: its constructor may take other arguments, or one
of its attributes cannot be pickled. Its class and its state travel in two pickles; causes, contexts, notes and the
members of groups travel beside it. The client makes an exception of the same class without calling its constructor.

Only clients unpickle, as they do with results. The controller passes the bytes on.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import pickle
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import EngineInfo, EngineroomError, RemoteError
from . import payload

#: Bytes of one pickle, beyond which the class or the state of an exception is left out, and of all that is packed.
LARGEST = 16 << 10
LARGEST_OF_ALL = 128 << 10
#: How many causes, contexts and members of groups are followed, one inside the other.
DEEPEST = 8
#: … and in all; the next number, if all that is packed is too large.
MOST = (500, 64, 8)
#: Notes that are packed, and characters of each.
NOTES, NOTE_LENGTH = 20, 4000

#: These would end a loop of the user, if `get` raised them.
_CONTROL_FLOW = (StopIteration, StopAsyncIteration)
#: Attributes of a RemoteError, which stay as they are whatever the original has.
_OURS = ("ename", "evalue", "traceback", "engine_info", "__notes__")


class Packed(msgspec.Struct, array_like=True, omit_defaults=True):
    """An exception."""

    ename: str
    evalue: str
    #: the pickled class; b"": it cannot be pickled, or shall not be made again
    kind: bytes = b""
    #: the name of the first builtin exception class among its bases
    base: str = ""
    #: pickled (args, attributes); b"": they cannot be pickled
    state: bytes = b""
    notes: list[str] = []
    cause: Packed | None = None
    context: Packed | None = None
    suppress: bool = False
    #: of a group: its members
    members: list[Packed] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode


# ---------------------------------------------------------------------------------------------- on the engine


def pack(error: BaseException, text: str) -> bytes:
    """An exception as bytes; b"" if there is nothing to make it of again. `text` is its str()."""
    for most in MOST:
        packed = _pack(error, text, set(), 0, most)
        if not (packed.kind or packed.base or packed.cause or packed.context or packed.notes):
            return b""
        made = _encode(packed)
        if len(made) <= LARGEST_OF_ALL:
            return made
    return b""


def _pack(error: BaseException, text: str, seen: set[int], depth: int, most: int) -> Packed:
    seen.add(id(error))
    kind = original_class(type(error))
    packed = Packed(kind.__name__, text[:NOTE_LENGTH])
    if issubclass(kind, Exception) and not issubclass(kind, (EngineroomError, *_CONTROL_FLOW)):
        base = _base_of(kind)
        packed.base = "" if base is Exception else base.__name__
        packed.kind = _pickle(kind)
        packed.state = _pickle((error.args, _attributes(error))) or _pickle(((text,), {}))
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        packed.notes = [note[:NOTE_LENGTH] for note in notes[:NOTES] if isinstance(note, str)]

    def follow(other: BaseException | None) -> Packed | None:
        if other is None or id(other) in seen or depth >= DEEPEST or len(seen) >= most:
            return None
        return _pack(other, text_of(other), seen, depth + 1, most)

    packed.cause, packed.suppress = follow(error.__cause__), error.__suppress_context__
    if not packed.suppress:
        packed.context = follow(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        chosen = _one_of_each_kind(error.exceptions, most - len(seen))
        packed.members = [member for one in chosen if (member := follow(one)) is not None]
        if left_out := len(error.exceptions) - len(packed.members):
            packed.notes.append(f"{left_out:,} of its {len(error.exceptions):,} exceptions were left out on their way")
        packed.state = _pickle(((error.message,), {}))
    return packed


def _one_of_each_kind(members: Sequence[BaseException], most: int) -> list[BaseException]:
    """Some members, at most so many, in their order: the first of each class, for `except*`, then the first ones."""
    if len(members) <= most:
        return list(members)
    firsts: dict[type, int] = {}
    for index, member in enumerate(members):
        firsts.setdefault(type(member), index)
    chosen = dict.fromkeys([*firsts.values(), *range(len(members))])
    return [members[index] for index in sorted(list(chosen)[:most])]


def text_of(error: BaseException) -> str:
    """An exception's text, however hostile it is."""
    try:
        return str(error)
    except BaseException as broken:
        return f"<its str() raised {type(broken).__name__}>"


def _pickle(value: Any) -> bytes:
    """A small value pickled; b"" if it cannot be, or is large."""
    try:
        stream, frames = payload.dumps(value)
    except Exception:
        return b""
    return b"" if frames or len(stream) > LARGEST else stream


def _attributes(error: BaseException) -> dict[str, Any]:
    """What an exception holds besides `args`: its own attributes, and those that its classes have in slots."""
    found = {}
    for name in _slots(type(error)):
        with contextlib.suppress(Exception):
            found[name] = getattr(error, name)
    found.update({name: value for name, value in vars(error).items() if name not in _OURS})
    return {name: value for name, value in found.items() if value is not None and _pickle(value)}


def _slots(kind: type) -> Iterator[str]:
    for cls in kind.__mro__:
        if cls is BaseException:
            return
        for name, value in vars(cls).items():
            # `obj` of an AttributeError or NameError may be anything, of any size.
            if isinstance(value, types.MemberDescriptorType) and name != "obj":
                yield name


def _base_of(kind: type) -> type:
    """The first builtin class among an exception's bases."""
    return next(cls for cls in kind.__mro__ if cls.__module__ == "builtins")


# ---------------------------------------------------------------------------------------------- at the client


def remote_error(ename: str, evalue: str, traceback: str = "", info: EngineInfo | None = None, packed: bytes = b""
                 ) -> RemoteError:  # fmt: skip
    """The RemoteError of a task, which is also an instance of the original exception's class where that can be made.

    What cannot be made again is left out: no class, no state, no cause. The texts are always there.
    """
    if not packed:
        return RemoteError(ename, evalue, traceback, info)
    try:
        found = _decode(packed)
    except msgspec.DecodeError:
        return RemoteError(ename, evalue, traceback, info)
    args, attributes = _state(found)
    error = None
    for kind in _classes(found):
        with contextlib.suppress(Exception, SystemExit):
            error = _also_a(kind, found, args, attributes, (ename, evalue, traceback, info))
            str(error), repr(error), error.ename  # a class that makes these fail is of no use
            break
    if error is None:
        error = RemoteError(ename, evalue, traceback, info)
    error._packed = packed
    with contextlib.suppress(Exception):
        error.__notes__ = [*found.notes, *getattr(error, "__notes__", ())]
    _link(error, found)
    return error


def original_class(kind: type[BaseException]) -> type[BaseException]:
    """The class itself; of a class that `remote_error` has made: the original one."""
    return vars(kind).get("_original", kind)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=256)
def _remote_class(kind: type[BaseException]) -> type[RemoteError]:
    """The class of RemoteErrors that are instances of another class too. TypeError if the two do not go together."""
    name = f"Remote{kind.__name__}"
    body = {"_original": kind, "__module__": RemoteError.__module__, "__doc__": f"A task raised {kind.__name__}.",
            "__reduce_ex__": _reduce}  # fmt: skip
    return type(name, (RemoteError, kind), body)


def _reduce(self: RemoteError, protocol: Any) -> tuple[Any, ...]:
    return remote_error, (self.ename, self.evalue, self.traceback, self.engine_info, self._packed)


def _also_a(
    kind: type, found: Packed, args: tuple[Any, ...], attributes: Mapping[str, Any], ours: tuple[Any, ...]
) -> RemoteError:
    error = _new(_remote_class(kind), found, args)
    assert isinstance(error, RemoteError)
    RemoteError.__init__(error, *ours)
    _set(error, attributes, but=_OURS)
    error.args = _args(error, args)
    return error


def _original(found: Packed) -> BaseException:
    """A cause, context or member of a group: of its own class where that can be made, else a RemoteError."""
    args, attributes = _state(found)
    made: BaseException | None = None
    for kind in _classes(found):
        with contextlib.suppress(Exception, SystemExit):
            made = _new(kind, found, args)
            made.args = _args(made, args)
            _set(made, attributes)
            str(made), repr(made)
            break
    if made is None:
        made = RemoteError(found.ename, found.evalue)
    with contextlib.suppress(Exception):
        if found.notes:
            made.__notes__ = list(found.notes)
    _link(made, found)
    return made


def _new(kind: type, found: Packed, args: tuple[Any, ...]) -> BaseException:
    """An exception of a class, whose constructor is not called."""
    if issubclass(kind, BaseExceptionGroup):
        message = str(args[0]) if args else found.evalue
        return BaseExceptionGroup.__new__(kind, message, [_original(member) for member in found.members])
    make: Any = _base_of(kind).__new__
    return make(kind)  # type: ignore[no-any-return]


def _args(error: BaseException, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (error.message, list(error.exceptions)) if isinstance(error, BaseExceptionGroup) else args


def _link(error: BaseException, found: Packed) -> None:
    with contextlib.suppress(Exception):
        if found.context is not None:
            error.__context__ = _original(found.context)
        if found.cause is not None:
            error.__cause__ = _original(found.cause)
        error.__suppress_context__ = found.suppress


def _set(error: BaseException, attributes: Mapping[str, Any], but: tuple[str, ...] = ()) -> None:
    for name, value in attributes.items():
        if name not in but:
            with contextlib.suppress(Exception):
                setattr(error, name, value)


def _classes(found: Packed) -> Iterator[type]:
    """The classes to try, the original one first."""
    if found.kind:
        with contextlib.suppress(Exception, SystemExit):
            kind = pickle.loads(found.kind)
            if isinstance(kind, type) and issubclass(kind, Exception):
                yield kind
    base = getattr(builtins, found.base, None) if found.base else None
    if isinstance(base, type) and issubclass(base, Exception):
        yield base


def _state(found: Packed) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if found.state:
        with contextlib.suppress(Exception, SystemExit):
            args, attributes = pickle.loads(found.state)
            return tuple(args), attributes
    return (found.evalue,), {}
