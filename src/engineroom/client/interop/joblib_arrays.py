"""Large arrays in joblib's calls: written once to a file that all tasks map, as joblib does it for its own processes.

joblib sends its calls in batches. Without this, each batch would carry a copy of the array. Importing this needs
joblib.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import Any

import joblib
from joblib.disk import memstr_to_bytes
from joblib.parallel import BatchedCalls

#: Where joblib maps arrays, too, if there is room: memory that behaves as a file.
SHARED_MEMORY = "/dev/shm"


class MappedArrays:
    """The arrays of one `Parallel`, each in a file.

    Parameters
    ----------
    max_nbytes : int, str or None
        Arrays with fewer bytes travel with their call; None: all do.
    mmap_mode : {"r", "r+", "c", None}
    temp_folder : str, optional
    """

    def __init__(
        self, max_nbytes: int | str | None = "1M", mmap_mode: str | None = "r", temp_folder: str | None = None
    ) -> None:
        self._least = memstr_to_bytes(max_nbytes) if isinstance(max_nbytes, str) else max_nbytes
        self._mode, self._parent = mmap_mode, temp_folder
        self._folder: str | None = None
        #: id of an array → the array, so that the id stays its own, and its map
        self._maps: dict[int, tuple[Any, Any]] = {}

    def in_calls(self, batch: Any) -> Any:
        """The batch, with the arrays among its arguments replaced."""
        if self._least is None or self._mode is None or not isinstance(batch, BatchedCalls):
            return batch
        batch.items = [
            (f, tuple(map(self._mapped, args)), {key: self._mapped(value) for key, value in kwargs.items()})
            for f, args, kwargs in batch.items
        ]
        return batch

    def _mapped(self, value: Any) -> Any:
        if type(value).__name__ != "ndarray" or value.nbytes < (self._least or 0) or value.dtype.hasobject:
            return value
        known = self._maps.get(id(value))
        if known is None:
            if self._folder is None:
                parent = self._parent or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None)
                self._folder = tempfile.mkdtemp(prefix="engineroom-joblib-", dir=parent)
            path = os.path.join(self._folder, f"{len(self._maps)}.pkl")
            try:
                joblib.dump(value, path)
                known = self._maps[id(value)] = value, joblib.load(path, mmap_mode=self._mode)
            except OSError:  # no room there: it travels with each call
                known = self._maps[id(value)] = value, value
        return known[1]

    def remove(self) -> None:
        """Remove the files. Tasks that have mapped one keep what they have."""
        self._maps.clear()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
            self._folder = None
