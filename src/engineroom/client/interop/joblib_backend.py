"""joblib runs its calls on a cluster: a joblib backend over a load-balanced view. Importing this needs joblib."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, register_parallel_backend

from ...config import check_switches
from .joblib_arrays import MappedArrays


class Submitting(Protocol):
    """A load-balanced view, as joblib uses it."""

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on an engine."""

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that have not started."""

    def __len__(self) -> int: ...

    @property
    def engines_are_here(self) -> bool:
        """Whether all engines are on this host."""


class ViewBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's calls through a view, in batches whose size follows how long they take.

    Parameters
    ----------
    view : LoadBalancedView
    """

    supports_retrieve_callback = True
    supports_return_generator = True
    #: of a `Parallel` without `n_jobs`: all engines. joblib's own backends run such calls one by one in this process.
    default_n_jobs = -1

    def __init__(self, view: Submitting, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._view = view
        self._submitted: list[Any] = []
        self._arrays: MappedArrays | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """How many calls run at a time: `n_jobs`; the number of engines for -1."""
        engines = len(self._view)
        if n_jobs is None:
            return 1
        if n_jobs == 0:
            raise ValueError("n_jobs=0 means nothing: give a number, or -1 for all engines")
        return max(1, engines + 1 + n_jobs) if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **kwargs: Any) -> int:
        """joblib begins a `Parallel`. `kwargs` say which arrays are mapped, and where."""
        self.parallel = parallel
        if self._view.engines_are_here:
            wanted = {key: kwargs[key] for key in ("max_nbytes", "mmap_mode", "temp_folder") if key in kwargs}
            self._arrays = MappedArrays(**wanted)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Send one batch."""
        batch = func if self._arrays is None else self._arrays.in_calls(func)
        # An argument, not the function: buffers of arguments travel without a copy, and are not kept as functions are.
        result = self._view.apply_async(operator.call, batch)
        self._submitted.append(result)
        if callback is not None:
            result.add_done_callback(callback)
        return result

    apply_async = submit  # joblib before 1.5

    def retrieve_result_callback(self, out: Any) -> Any:
        """The values of a batch that has ended."""
        return out.get()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the batches that have not started: one has failed, or nobody wants the rest."""
        for result in self._submitted:
            if not result.done():
                result.abort()
        self.terminate()

    def terminate(self) -> None:
        """joblib has all that it wants."""
        self._submitted.clear()
        if self._arrays is not None:
            self._arrays.remove()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What `Parallel` inside a task uses: the task's own process, one call after the other."""
        from joblib.parallel import SequentialBackend

        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def register(view: Submitting, name: str, make_default: bool) -> None:
    """Make `joblib.parallel_backend(name)` run calls through a view."""
    check_switches(make_default=make_default)

    def backend(**kwargs: Any) -> ViewBackend:
        return ViewBackend(view, **kwargs)

    register_parallel_backend(name, backend, make_default=make_default)
