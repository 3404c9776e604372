"""Arguments and results to and from payloads: one pickle stream and, for large arrays, out-of-band buffers.

Buffers are sent after the call has returned. So memory that can change is copied while it is pickled, unless the caller
says that it will not change. A `Keep` does so: it says what is sent in place of each buffer.

The C pickler of the standard library comes first: it takes about a microsecond. Objects that it cannot pickle, or
that it would pickle by reference to `__main__` (another module on the engine), are pickled by value, with cloudpickle.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import EngineroomError, SerializationError
from ..shared_memory.buffer import SHARED_FROM, own
from . import arrays
from .frames import Buffer, Frames
from .functions import ByValuePickler
from .modules import NAMES_MAIN

#: Streams up to this size are sent inside the message, larger ones as a frame.
INLINE = 64 * 1024
#: Arrays of at least this size are sent as frames.
OUT_OF_BAND = 16 * 1024

Payload = tuple[bytes, tuple[Buffer, ...]]

#: Gives what is sent for a buffer. It gets the memory as a memoryview of bytes.
Keep = Callable[[memoryview], Buffer]

_NONE: Payload = (pickle.dumps(None, 5), ())
#: of a call without arguments
NO_ARGUMENTS: Payload = (pickle.dumps(((), {}), 5), ())
_SMALL = (int, float, bool, type(None))
#: Types of arguments that hold no others, and that the C pickler can pickle.
_ATOMS = {*_SMALL, str, range}


def as_copy(memory: memoryview) -> Buffer:
    """A `Keep`: what is sent is a copy, unless the memory cannot change."""
    if not _is_constant(memory.obj):
        return bytes(memory)
    whole = memory.obj
    return whole if type(whole) is bytes and len(whole) == memory.nbytes else memory


def as_is(memory: memoryview) -> Buffer:
    """A `Keep`: the memory itself is sent. It must not change until it is sent, and stored."""
    return memory


def shared(copy: Keep, small: Keep) -> Keep:
    """A `Keep` that puts large buffers into shared memory by `copy`, and does with others what `small` does."""
    return lambda memory: copy(memory) if memory.nbytes >= SHARED_FROM else small(memory)


def once(keep: Keep) -> Keep:
    """A `Keep` for the tasks of one call: what several of them have is kept, and sent, once."""
    kept: dict[tuple[int, int], tuple[Any, Buffer]] = {}

    def keep_once(memory: memoryview) -> Buffer:
        key = id(memory.obj), memory.nbytes
        found = kept.get(key)
        if found is None:
            found = kept[key] = memory.obj, keep(memory)  # the object, so that its id stays its own
        return found[1]

    return keep_once


class Constant:
    """A large value that several tasks of one call have. It is pickled once, and each task unpickles it.

    `call` is the payload of a call with this value as its only argument, with memory as it is (`as_is`).
    """

    def __init__(self, call: Payload) -> None:
        self._stream, self._frames = call

    @property
    def is_large(self) -> bool:
        """Whether pickling it again and again would cost much: buffers cost nothing, because they are kept once."""
        return not self._stream

    def __reduce__(self) -> tuple[Any, ...]:
        return _value_of_constant, (self._stream, *map(pickle.PickleBuffer, self._frames))


def _value_of_constant(stream: bytes, *frames: Buffer) -> Any:
    (value,), _ = loads(stream, frames)
    return value


def dumps(value: Any, *, keep: Keep = as_copy, files: bool = False) -> Payload:
    """Serialize a value: (stream, frames). If the stream is empty, the first frame holds it.

    Parameters
    ----------
    keep : callable
        What is sent for each buffer.
    files : bool
        Memory maps of files may travel as the names of these: the receiver can open them.

    Raises
    ------
    Exception
        Any exception of the pickler. `describe_failure` explains it.
    """
    if value is None:
        return _NONE
    kind = type(value)
    if kind in _SMALL:
        return pickle.dumps(value, 5), ()
    if kind in (bytes, bytearray) and len(value) >= INLINE:
        stream = pickle.dumps(_Blob(value), 5, buffer_callback=lambda buffer: None)
        return _beside(stream, [keep(memoryview(value))], keep)
    buffers: list[memoryview] = []
    stays_inside = arrays.taking_out(buffers, OUT_OF_BAND)
    try:
        stream = arrays.dumps(value, stays_inside, files=files)
        by_reference_to_main = NAMES_MAIN in stream
    except Exception:  # it may be a lambda, or hold one: cloudpickle decides
        by_reference_to_main = True
    if by_reference_to_main:
        buffers.clear()
        file = io.BytesIO()
        ByValuePickler(file, 5, stays_inside, arrays.reducers(files)).dump(value)
        stream = file.getvalue()
    return _beside(stream, [keep(buffer) for buffer in buffers], keep)


def dumps_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, keep: Keep = as_copy, files: bool = False
) -> Payload:
    """Serialize the arguments of a call; `keep` and `files` as for `dumps`.

    Raises
    ------
    SerializationError
        An argument cannot be pickled. The text names it, and the path inside it.
    MemoryError
        There is no memory for their pickles.
    """
    if not args and not kwargs:
        return NO_ARGUMENTS
    try:
        if _ATOMS.issuperset(map(type, args)) and (not kwargs or _ATOMS.issuperset(map(type, kwargs.values()))):
            return _beside(pickle.dumps((args, kwargs), 5), (), keep)
        if not kwargs and all(type(a) is list and len(a) == 1 and type(a[0]) in _ATOMS for a in args):
            return _beside(pickle.dumps((args, kwargs), 5), (), keep)  # one item of a map
        if any(type(a) in (bytes, bytearray) and len(a) >= INLINE for a in args):
            args = tuple(_Blob(a) if type(a) in (bytes, bytearray) and len(a) >= INLINE else a for a in args)
        return dumps((args, kwargs), keep=keep, files=files)
    except EngineroomError:  # from a class of this package: its text is good
        raise
    except MemoryError as error:
        text = "there is no memory here for a copy of the arguments: nothing was sent"
        raise MemoryError(str(error) or text) from error
    except Exception as error:
        named: list[tuple[str, Any]] = [(f"argument {i}", a) for i, a in enumerate(args)]
        named += [(f"argument {name!r}", a) for name, a in kwargs.items()]
        raise describe_failure(error, named) from error


def loads(payload: bytes, frames: Frames) -> Any:
    """The value of a payload. It uses the memory of the frames; of shared buffers it has own copies."""
    if not frames:
        return pickle.loads(payload)
    if payload:
        return pickle.loads(payload, buffers=map(own, frames))
    return pickle.loads(frames[0], buffers=map(own, frames[1:]))


def describe_failure(error: Exception, named: Sequence[tuple[str, Any]]) -> SerializationError:
    """Find which of the named values cannot be pickled, and where inside it."""
    for name, value in named:
        cause = _failure(value)
        if cause is not None:
            path, value, cause = _narrow(name, value, cause)
            return SerializationError(
                f"{path} cannot be pickled, so nothing was sent: it is a {_type_name(value)} "
                f"({type(cause).__name__}: {cause}). Send what it is made from, or create it on the engine."
            )
    return SerializationError(f"cannot be pickled, so nothing was sent ({type(error).__name__}: {error})")


def _beside(stream: bytes, buffers: Sequence[Buffer], keep: Keep) -> Payload:
    if len(stream) > INLINE:
        return b"", (keep(memoryview(stream)), *buffers)
    return stream, tuple(buffers)


def _is_constant(owner: Any) -> bool:
    """Whether memory cannot change: it is that of a bytes object, which an array may show."""
    while (base := getattr(owner, "base", None)) is not None:
        owner = base
    if type(owner) is memoryview:
        owner = owner.obj
    return type(owner) is bytes


class _Blob:
    """Large bytes, pickled as an out-of-band buffer. They are copied once, when they are unpickled."""

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.value), (pickle.PickleBuffer(self.value),)


def _failure(value: Any) -> Exception | None:
    try:
        dumps(value)
    except Exception as error:
        return error
    return None


def _narrow(path: str, value: Any, cause: Exception) -> tuple[str, Any, Exception]:
    """Find the innermost part that cannot be pickled by itself: (its path, the part, the error)."""
    for _ in range(20):
        for step, part in _parts(value):
            inner = _failure(part)
            if inner is not None:
                path, value, cause = path + step, part, inner
                break
        else:
            break
    return path, value, cause


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    attributes = getattr(value, "__dict__", None)
    # Attributes of an object that pickles itself need not be pickled.
    pickles_itself = any("__reduce_ex__" in vars(kind) for kind in type(value).__mro__[:-1])
    if isinstance(attributes, dict) and not isinstance(value, type) and not pickles_itself:
        return [(f".{name}", part) for name, part in attributes.items()]
    return []


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
