"""What a `Client` does for other libraries: executors of `concurrent.futures`, clusters of dask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .views.executor import ViewExecutor


class InteropMethods:
    """Methods of `Client`."""

    load_balanced_view: Callable[..., Any]

    def executor(
        self,
        targets: Any = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **flags: Any,
    ) -> ViewExecutor:
        """A `concurrent.futures.Executor` over a load-balanced view with these flags: `rc.executor(retries=1)`.

        `initializer`, `initargs`: see `ViewExecutor`.
        """
        view = self.load_balanced_view(targets, **flags)
        return ViewExecutor(view, initializer=initializer, initargs=initargs)
