"""Processes that the user's program forks. A child has no I/O thread: the connection of its parent is of no use there.

In the child, every channel of the parent has failed, and results that are not ready say so instead of waiting for ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from .waiters import delivering, fulfilling


class Forkable(Protocol):
    """A channel."""

    def forked(self) -> None:
        """This is a process that was forked from the channel's own."""


_channels: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(channel: Forkable) -> None:
    """Have a channel told about forks."""
    _channels.add(channel)


def _in_child() -> None:
    fulfilling.release()
    delivering.clear()
    for channel in list(_channels):
        channel.forked()
    _channels.clear()


# The lock is taken around the fork: another thread may hold it, and would never release it in the child.
os.register_at_fork(before=fulfilling.acquire, after_in_parent=fulfilling.release, after_in_child=_in_child)
