"""Which GPUs code on this engine sees: CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

_NAME = "CUDA_VISIBLE_DEVICES"


def show(indices: Sequence[int]) -> None:
    """Let this process see these GPUs alone."""
    os.environ[_NAME] = ",".join(map(str, indices))


@contextlib.contextmanager
def showing(indices: Sequence[int]) -> Iterator[None]:
    """Let what runs inside see these GPUs alone."""
    before = os.environ.get(_NAME)
    show(indices)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_NAME, None)
        else:
            os.environ[_NAME] = before
