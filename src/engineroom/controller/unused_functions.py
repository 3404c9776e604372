"""Collects functions, environments and the like once no record refers to them any more.

The writer's thread looks for them, a little at a time (`housekeeping.py`). What it finds may be on its way to the store
with a task again: only the loop knows. So the loop begins each look and judges what was found. What it lets go of is
dropped in the writer's thread, unless it was sent again before.

    writer's thread                              loop
    records were dropped ──────────────────────▶ begin: note what is used from now on
    look, piece by piece ◀────────────────────── … after all that happened before is written
    some that no record refers to ─────────────▶ found: let go of those not used since
    drop those that are still not wanted ◀──────
    the end ───────────────────────────────────▶ ended: note no more
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ..ids import Digest
from ..stores.base import References, TaskStore

if TYPE_CHECKING:
    from .loop import Controller

log = logging.getLogger(__name__)


class Collector:
    """The loop's part of it."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    # ------------------------------------------------------------------------------------------ the writer's thread

    def ask(self) -> None:
        """Records were dropped: have a look begun."""
        self._controller.post(self._begin)

    def tell(self, unused: References) -> None:
        """No record refers to these."""
        self._controller.post(lambda: self._found(unused))

    def end(self) -> None:
        """The look is over."""
        self._controller.post(self._ended)

    # ------------------------------------------------------------------------------------------ the loop

    def _begin(self) -> None:
        self._controller.performer.record()
        self._controller.library.watch()
        housekeeping = self._controller.writer.housekeeping
        self._controller.writer.call(housekeeping.look).add_done_callback(
            lambda begun: self.end() if begun.exception() is not None else None
        )

    def _found(self, unused: References) -> None:
        library, environment_of = self._controller.library, self._controller.performer.environment_of
        free = library.let_go(unused.functions)

        def drop(store: TaskStore) -> int:
            # A client tells its environment once in the controller's life.
            return store.drop_references(
                References(
                    frozenset(free & library.leaving),
                    unused.clients.difference(list(environment_of)),
                    unused.environments.difference(list(environment_of.values())),
                    unused.engines,
                )
            )

        self._controller.writer.call(drop).add_done_callback(
            lambda dropped: self._controller.post(lambda: self._dropped(free, dropped))
        )

    def _dropped(self, free: set[Digest], dropped: Future[int]) -> None:
        self._controller.library.gone(free)
        if dropped.exception() is not None:
            log.warning("functions that no record refers to could not be dropped: %s", dropped.exception())
        elif dropped.result():
            log.info("%d functions dropped that no record refers to", dropped.result())

    def _ended(self) -> None:
        self._controller.library.unwatch()
