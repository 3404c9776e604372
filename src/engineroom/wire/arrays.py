"""How memoryviews are pickled, and numpy's arrays where numpy itself would make more of them than there is in memory.

A memoryview is pickled as its memory, its format and its shape. An array that shows the same memory many times
(`broadcast_to`, `sliding_window_view`) is pickled as that memory, and as how it is shown. A read-only memory map of a
file is pickled as the name of the file, if the receiver is on the same host; else as its bytes. Nothing here imports
numpy before a value holds an array.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from .parts import Part

#: Smaller arrays are pickled as numpy does it.
SMALL = 16 * 1024
#: Memory maps of at least this size travel as the name of their file.
BY_NAME = 64 * 1024

#: Types of values that hold no others.
_ATOMS = {int, float, complex, bool, type(None), str, bytes, range}

Reducer = Callable[[Any], Any]

#: by `files`: what `_table` has returned last, and the `copyreg.dispatch_table` of that time
_tables: dict[bool, tuple[dict[type, Any], dict[type, Any]]] = {}


def reducers(files: bool) -> dict[type, Reducer]:
    """type → what takes the place of its `__reduce_ex__`.

    Parameters
    ----------
    files : bool
        Whether the receiver can open the files that this process can open.
    """
    return {memoryview: _of_view, **_of_arrays(files)}


def _of_arrays(files: bool) -> dict[type, Reducer]:
    """The reducers of numpy's types; {} as long as numpy is not imported."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "memmap"):  # it is being imported
        return {}
    reducer = _with_files if files else _without_files
    return {numpy.ndarray: reducer, numpy.memmap: reducer}


def dumps(value: Any, buffer_callback: Callable[[Any], Any] | None = None, *, files: bool = False) -> bytes:
    """`pickle.dumps` with these reducers, by the C pickler."""
    # A pickler with a table costs 3 µs more than `pickle.dumps`, as much as many a value takes.
    table = _table(files) if "numpy" in sys.modules and not _is_simple(value, 4) else None
    if table is None:
        return pickle.dumps(value, 5, buffer_callback=buffer_callback)
    written = io.BytesIO()
    pickler = pickle.Pickler(written, 5, buffer_callback=buffer_callback)
    pickler.dispatch_table = table
    pickler.dump(value)
    return written.getvalue()


def taking_out(buffers: list[memoryview], least: int) -> Callable[[pickle.PickleBuffer], bool]:
    """A pickler's callback that puts buffers of at least so many bytes into a list; smaller ones stay in the pickle."""

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            memory = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if memory.nbytes < least:
            return True
        buffers.append(memory)
        return False

    return stays_inside


def _is_simple(value: Any, depth: int) -> bool:
    """Whether a value surely holds no array: looks into short lists and tuples, and into parts of calls."""
    kind = type(value)
    if kind in _ATOMS or not depth:
        return kind in _ATOMS
    if kind is list or kind is tuple:
        if len(value) > 32:
            return False
        return _ATOMS.issuperset(map(type, value)) or all(_is_simple(item, depth - 1) for item in value)
    if kind is dict:
        return len(value) <= 32 and _ATOMS.issuperset(map(type, value.values()))
    return kind is Part and not value.errors and _is_simple(value.value, depth - 1)


def _table(files: bool) -> dict[type, Any] | None:
    """A pickler's dispatch table: `reducers`, and what users have given to `copyreg`. None: the usual one will do."""
    found = _tables.get(files)
    if found is None or found[1] != copyreg.dispatch_table:
        known = dict(copyreg.dispatch_table)
        if not _of_arrays(files):
            return None
        found = _tables[files] = {**known, **reducers(files)}, known
    return found[0]


def _with_files(array: Any) -> Any:
    if array.nbytes >= BY_NAME:
        named = _as_file(array)
        if named is not None:
            return named
    return _without_files(array)


def _without_files(array: Any) -> Any:
    import numpy

    if type(array) is numpy.memmap:
        array = array.view(numpy.ndarray)
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous or array.nbytes < SMALL:
        return array.__reduce_ex__(5)
    once = array[tuple([slice(0, 1) if s == 0 else slice(None) for s in array.strides])]
    if once.nbytes < array.nbytes:
        return broadcast, (once, array.shape)
    low, span = _extent(array)
    if span >= array.nbytes or array.dtype.hasobject:
        return array.__reduce_ex__(5)
    strided = numpy.lib.stride_tricks.as_strided
    lowest = array[tuple([slice(0, 1) if s >= 0 else slice(-1, None) for s in array.strides])]
    memory = strided(strided(lowest, (1,), (array.itemsize,)).view(numpy.uint8), (span,), (1,))
    return windows, (memory, array.dtype, array.shape, array.strides, _address(array) - low)


def broadcast(once: Any, shape: tuple[int, ...]) -> Any:
    """An array that repeats `once` along some axes, without a copy. It cannot be written to."""
    import numpy

    return numpy.broadcast_to(once, shape)


def windows(memory: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
    """An array whose items overlap in this memory (an array of uint8). It cannot be written to."""
    import numpy

    array = numpy.ndarray(shape, dtype, buffer=memory, offset=offset, strides=strides)
    array.flags.writeable = False
    return array


def _address(array: Any) -> int:
    """Where the first item is in memory."""
    return int(array.__array_interface__["data"][0])


def _extent(array: Any) -> tuple[int, int]:
    """The lowest address of an array, and how many bytes from there to its end."""
    steps = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    return _address(array) + sum(s for s in steps if s < 0), sum(map(abs, steps)) + array.itemsize


# ------------------------------------------------------------------------------------------ memoryviews


def _of_view(view: memoryview) -> Any:
    if not is_rebuilt(view):
        if isinstance(view.obj, _type_of_arrays()):
            import numpy

            return memoryview, (numpy.array(view),)
        raise TypeError(not_rebuilt(view))
    return view_of, (pickle.PickleBuffer(in_c_order(view)), view.format, view.shape)


def _type_of_arrays() -> Any:
    """For `isinstance`: numpy's arrays, or nothing as long as numpy is not imported."""
    return getattr(sys.modules.get("numpy"), "ndarray", ())


def is_rebuilt(view: memoryview) -> bool:
    """Whether `view_of` can make such a memoryview: its items are numbers of this machine, and it has some."""
    try:
        memoryview(b"").cast(view.format)  # type: ignore[call-overload]
    except ValueError:
        return False
    return view.ndim == 1 or view.nbytes > 0


def not_rebuilt(view: memoryview) -> str:
    """Why a memoryview does not travel."""
    return (
        f"a memoryview of format {view.format!r} and shape {view.shape} cannot be rebuilt from bytes. Send the object "
        "that it shows, numpy.asarray(view), or bytes(view)"
    )


def in_c_order(view: memoryview) -> memoryview | bytes:
    """The memory of a view, with its items in C order: a copy only if they have another order, or gaps."""
    return view if view.c_contiguous else view.tobytes()


def view_of(memory: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    """A memoryview of this format and shape on memory that has the items in C order. Nothing is copied."""
    flat: Any = memoryview(memory).cast("B")
    view: memoryview = flat.cast(format) if len(shape) == 1 else flat.cast(format, shape)
    return view


# ------------------------------------------------------------------------------------------ files


def _as_file(array: Any) -> Any:
    """What an array that shows a file is pickled as; None: it shows no file, or may differ from it.

    Only maps that were opened for reading: others can be changed by this process, after the call or for itself alone.
    """
    import numpy

    source: Any = array
    while type(source) is numpy.ndarray:
        source = source.base
    if type(source) is not numpy.memmap or source.mode != "r" or source.filename is None or array.dtype.hasobject:
        return None
    try:
        path = os.fspath(source.filename)
        whole: Any = vars(source)["_mmap"]
        begin = _address(numpy.frombuffer(whole, numpy.uint8))
        low, span = _extent(array)
        if not begin <= low <= low + span <= begin + len(whole):
            return None
        about = _about(path)
        if _mapped_inode(low) != about[2]:
            return None  # another file has taken the place of the one that was opened
    except (OSError, ValueError, TypeError, KeyError):
        return None
    offset = low - begin + source.offset - source.offset % mmap.ALLOCATIONGRANULARITY
    return open_map, (path, about, offset, span, array.dtype, array.shape, array.strides, _address(array) - low)


def _about(path: str) -> tuple[int, int, int]:
    """What tells whether a file is still the same: its size, the time of its last change, its inode."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _mapped_inode(address: int) -> int | None:
    """The inode of the file that is mapped at an address; None: no file is, or it has been deleted."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            where, _, _, _, inode, *path = line.split(maxsplit=5)
            low, high = (int(bound, 16) for bound in where.split("-"))
            if low <= address < high:
                return None if path and path[0].rstrip().endswith("(deleted)") else int(inode)
    return None


def open_map(
    path: str,
    about: tuple[int, int, int],
    offset: int,
    span: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    lead: int,
) -> Any:
    """A read-only memory map of a part of a file.

    Parameters
    ----------
    about : tuple
        Size, time of the last change and inode of the file, when it was sent.
    offset, span : int
        The part of the file that holds the array, in bytes.
    lead : int
        Bytes from there to the first item.

    Raises
    ------
    OSError
        The file is not here, or is not the same any more.
    """
    import numpy

    what = f"the argument is a memory map of {path}"
    advice = "Send the values instead of the memory map: numpy.array(x)"
    try:
        found = _about(path)
        if found == about:
            memory = numpy.memmap(path, numpy.uint8, "r", offset, (span,))
            one = memory[lead : lead + dtype.itemsize].view(dtype)
            return numpy.lib.stride_tricks.as_strided(one, shape, strides, subok=True, writeable=False)
    except (OSError, ValueError) as error:
        raise OSError(f"{what}, which this engine cannot open ({error}). {advice}") from None
    raise OSError(f"{what}, which has changed since the call was made. {advice}")
