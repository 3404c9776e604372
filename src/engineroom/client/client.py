"""The client: a connection to a cluster, its engines, and the memory of its tasks."""

from __future__ import annotations

import operator
import os
import signal as signals
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from typing import TYPE_CHECKING, Any

from ..config import MAX_TASK_BYTES, ConnectionInfo
from ..errors import ConnectionFileError, EngineError, EngineroomError, MessageTooLarge, TimeoutError
from ..ids import EngineId, TaskId
from ..messages import Abort, SignalEngines, StopController, StopEngines
from ..wire import frames as wire
from .connection.channel import Channel
from .connection.connecting import find_connection
from .records.queries import HubClient, Jobs
from .records.selection import Selection, ids_of
from .records.task_results import TaskResults
from .views import DirectView, LoadBalancedView, ViewExecutor

if TYPE_CHECKING:
    from ..cluster.cluster import Cluster


class Session:
    """The identity of a client; `session` is the `client_uuid` of its tasks' records."""

    def __init__(self, uuid: str) -> None:
        self.session = uuid


class Client(HubClient):
    """A connection to a cluster.

    Parameters
    ----------
    connection_info : path or dict, optional
        A connection file or its content. Default: found by profile.
    profile, profile_dir, ipython_dir, cluster_id : str, optional
        Where to find the connection file: `<profile_dir>/security/ipcontroller[-<cluster_id>]-client.json`.
    timeout : float
        Seconds to wait for the file to appear (or, if its controller has died, for another one's), and for an answer.
    cluster : Cluster, optional
        The cluster this client belongs to.

    Raises
    ------
    ConnectionFileError
        No connection file, or a broken or stale one.
    AuthenticationError
        The controller refused the key.
    ControllerLost
        The controller has died, and none has taken its place.
    TimeoutError
        The controller did not answer.

    Examples
    --------
    >>> rc = Client()                       # doctest: +SKIP
    >>> rc.ids                              # doctest: +SKIP
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        connection_info: str | os.PathLike[str] | Mapping[str, Any] | ConnectionInfo | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        ipython_dir: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        cluster_id: str | None = None,
        cluster: Cluster | None = None,
        debug: bool = False,
    ) -> None:
        self.connection = find_connection(connection_info, profile, profile_dir, ipython_dir, cluster_id, timeout)
        self.cluster = cluster
        self.profile = profile
        self.debug = debug
        self.block = False
        try:
            self._channel = Channel(self.connection, timeout=timeout)
        except (EngineroomError, TimeoutError):
            raise
        except Exception as error:  # the transport makes nothing of the url
            raise ConnectionFileError(f"cannot connect to {self.connection.url!r}: {error}") from error
        self.session = Session(self._channel.session)
        self._views: list[DirectView | LoadBalancedView] = []
        self._foreign: list[TaskId] = []
        self._direct: set[TaskId] = set()
        self._uuids: dict[int, str] = {}

    # ------------------------------------------------------------------------------------------ engines and views

    @property
    def ids(self) -> list[EngineId]:
        """Numbers of the engines, sorted."""
        return [engine.id for engine in self._channel.engines]

    def __len__(self) -> int:
        return len(self._channel.engines)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[DirectView]:
        return iter([self.direct_view(id) for id in self.ids])

    def __getitem__(self, key: int | slice | Sequence[int]) -> DirectView:
        if hasattr(key, "__index__") and not isinstance(key, bool):
            key = operator.index(key)
        if not isinstance(key, int | slice | list | tuple | range):
            raise TypeError(f"engines are indexed by int, slice or list of ints, not {type(key).__name__}")
        return self.direct_view(key)

    def _resolve(self, targets: Any) -> list[EngineId]:
        """Engine numbers for an int (negative: from the end), a slice, a list or "all"."""
        if self._channel.failure is not None:
            raise self._channel._useless()
        ids = self.ids
        if targets is None or (isinstance(targets, str) and targets == "all"):
            return ids
        if not isinstance(targets, bool) and hasattr(targets, "__index__"):  # numpy's integers are integers too
            targets = operator.index(targets)
        elif hasattr(targets, "tolist"):
            targets = targets.tolist()
        if isinstance(targets, bool) or not isinstance(targets, int | slice | list | tuple | range | set):
            raise TypeError(f"targets are an int, a slice, a list of ints or 'all'; got {targets!r}")
        if isinstance(targets, slice):
            return ids[targets]
        if isinstance(targets, int):
            if targets < 0 and -targets <= len(ids):
                return [ids[targets]]
            if targets not in ids:
                raise IndexError(f"there is no engine {targets}; there are {_listed(ids)}")
            return [EngineId(targets)]
        return [self._resolve(target)[0] for target in targets]

    def _engine_uuid(self, id: EngineId) -> str | None:
        for engine in self._channel.engines:
            self._uuids[engine.id] = engine.uuid
        return self._uuids.get(id)

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """A view of some engines; "all" means those there are at each call."""
        view = DirectView(self, targets, **flags)
        self._views.append(view)
        return view

    def load_balanced_view(self, targets: Any = None, **flags: Any) -> LoadBalancedView:
        """A view whose tasks the scheduler gives to engines."""
        view = LoadBalancedView(self, targets, **flags)
        self._views.append(view)
        return view

    def executor(self, targets: Any = None) -> ViewExecutor:
        """A `concurrent.futures.Executor` over a load-balanced view."""
        return ViewExecutor(self.load_balanced_view(targets))

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: Any = None,
    ) -> Future[None] | None:
        """Wait until `n` engines are there (default: as many as the cluster has).

        Raises
        ------
        TimeoutError
            Not in time.
        EngineError
            Fewer are there than asked for, and no more are starting.
        """
        if n is not None and (not isinstance(n, int) or isinstance(n, bool)):
            raise TypeError(f"n is a number of engines, got {n!r}")
        wanted = n if n is not None else (self.cluster.n if self.cluster is not None and self.cluster.n else 1)
        if not block:
            return self._wait_in_background(wanted, timeout)
        channel = self._channel
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        seen = 0
        with channel.changed:
            while len(channel.engines) < wanted:
                if channel.failure is not None:
                    raise channel._useless()
                here, starting = len(channel.engines), channel.starting
                if seen > here + starting and here + starting < wanted:
                    raise EngineError(
                        f"only {here} of {wanted} engines came, and no more are starting: see the log of the "
                        "engines in the profile's log folder"
                    )
                seen = max(seen, here + starting)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"{here} of {wanted} engines were there after {timeout:g} s")
                channel.changed.wait(left)
        return None

    def _wait_in_background(self, n: int, timeout: float) -> Future[None]:
        import threading

        future: Future[None] = Future()

        def run() -> None:
            try:
                self.wait_for_engines(n, timeout=timeout)
                future.set_result(None)
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    # ------------------------------------------------------------------------------------------ this client's tasks

    @property
    def results(self) -> Mapping[TaskId, Any]:
        """Values of finished tasks, by msg_id: fetched from the controller when asked for."""
        return TaskResults(self)

    @property
    def metadata(self) -> Mapping[TaskId, Any]:
        """Metadata of tasks, by msg_id: fetched from the controller when asked for."""
        return TaskResults(self, metadata=True)

    def wait(
        self,
        jobs: Jobs = None,
        timeout: float | None = -1,
        *,
        query: Mapping[str, Any] | str | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Wait for tasks (default: all of this client's that are outstanding). Returns whether all are done.

        Parameters
        ----------
        query : dict or "all", optional
            Instead: the tasks, of any client, that match and are pending now.
        dry_run : bool
            With `query`: do not wait, tell which tasks it would be (a Selection).
        """
        chosen = self._chosen(query, "wait for", dry_run, jobs)
        if dry_run:
            return chosen
        if chosen is not None:
            jobs = ids_of(self, query, "wait for")
            if not jobs:
                return True
        limit = None if timeout is None or timeout < 0 else timeout
        futures = list(self._waiters() if jobs is None else self._futures_of(jobs))
        return not wait_futures(futures, limit).not_done

    def _waiters(self) -> set[Any]:
        return set(self._channel._waiting.copy().values())

    def _futures_of(self, jobs: Jobs) -> list[Future[Any]]:
        if isinstance(jobs, Future):
            return [jobs]
        if isinstance(jobs, list | tuple | set) and any(isinstance(job, Future) for job in jobs):
            return [future for job in jobs for future in self._futures_of(job)]
        waiting = self._channel._waiting.copy()
        ids = self._ids_of(jobs)
        mine = [waiting[id] for id in ids if id in waiting]
        others = [id for id in ids if id not in waiting and not id.startswith(self._channel.session)]
        return [*set(mine), *([self.get_result(others)] if others else [])]  # type: ignore[list-item]

    def wait_interactive(self, jobs: Jobs = None, interval: float = 1.0, timeout: float = -1.0) -> None:
        """Wait for tasks, with a progress bar."""
        from .results.progress import show_progress

        futures: Any = self._waiters() if jobs is None else self._futures_of(jobs)
        show_progress(list(futures), interval=interval, timeout=None if timeout < 0 else timeout)

    def abort(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """End tasks that have not started: `jobs`, or those at engines `targets`, or all of this client's.

        Their results raise TaskAborted. What is running goes on: `cancel` ends that too.

        Parameters
        ----------
        query : dict or "all", optional
            Instead: the tasks, of any client, that match and are pending now.
        dry_run : bool
            With `query`: do nothing, tell which tasks it would be.

        Returns
        -------
        Selection or None
            With `query`.
        """
        return self._end(jobs, targets, block, query, dry_run, running=False)

    def cancel(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """End tasks, also those that are running: `jobs`, or those at engines `targets`, or all of this client's.

        A running task is interrupted (KeyboardInterrupt), and its engine is killed and replaced if that does not stop
        it. Each task has one outcome: its own if it ended first, else its result raises TaskAborted.

        Parameters
        ----------
        block : bool, optional
            Wait until the controller has begun to end them. (`wait(jobs)` waits until they have ended.)
        query, dry_run
            As for `abort`.
        """
        return self._end(jobs, targets, block, query, dry_run, running=True)

    def _end(
        self, jobs: Jobs, targets: Any, block: bool | None, query: Any, dry_run: bool, *, running: bool
    ) -> Selection | None:
        action = "cancel" if running else "abort"
        chosen = self._chosen(query, action, dry_run, jobs if jobs is not None else targets)
        if chosen is not None:
            jobs = [] if dry_run else ids_of(self, query, action)
            if not jobs:
                return chosen
        engines = None if targets is None else self._resolve(targets)
        waiting = self._channel._waiting.copy()
        tasks = None if jobs is None else self._ids_of(jobs)
        if tasks is None and engines is None:  # by name: what is submitted after this call is not meant
            tasks = [id for id in waiting if id.startswith(self._channel.session)]
        for waiter in {waiting[id] for id in tasks or () if id in waiting}:
            waiter._no_more()
        if tasks is not None:  # a map may have submitted some meanwhile
            tasks = list(dict.fromkeys([*tasks, *(self._ids_of(jobs) if jobs is not None else ())]))
        future = self._channel.request(Abort(tasks, engines, running))
        if block or (block is None and self.block):
            future.result()
        return chosen

    # ------------------------------------------------------------------------------------------ control

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces of engines."""
        return self.direct_view("all" if targets is None else targets).clear(
            block=self.block if block is None else block
        )

    def send_signal(self, sig: int | str, targets: Any = None, block: bool | None = None) -> None:
        """Send a signal to engine processes, by number or name ("SIGINT"), also while they are busy."""
        if isinstance(sig, str):
            try:
                number = int(signals.Signals[sig if sig.startswith("SIG") else f"SIG{sig}"])
            except KeyError:
                raise ValueError(f"there is no signal {sig!r}") from None
        else:
            number = operator.index(sig)
            if not 0 < number < signals.NSIG:
                raise ValueError(f"there is no signal {number}")
        self._channel.ask(SignalEngines(number, None if targets is None else self._resolve(targets)))

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """Stop engines once they have finished what they are running; with `hub=True` the whole cluster."""
        if restart:
            raise NotImplementedError("engines are restarted with Cluster.restart_engines()")
        if hub:
            self._channel.ask(StopController())
            return
        engines = self._channel.ask(StopEngines(self._named(targets)))
        if block or (block is None and self.block):
            channel = self._channel
            with channel.changed:
                channel.changed.wait_for(lambda: not set(engines) & {e.id for e in channel.engines} or channel.failure)

    def close(self, linger: float | None = None) -> None:
        """End this connection. Tasks go on; their results are in the database."""
        self._channel.close(0.5 if linger is None else linger)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def spin(self) -> None:
        """Kept for old code: results come by themselves."""

    def spin_thread(self, interval: float = 1) -> None:
        """Kept for old code: results come by themselves."""

    def stop_spin_thread(self) -> None:
        """Kept for old code: results come by themselves."""

    def _check_size(self, frames: Sequence[Any]) -> None:
        size = wire.size(b"", frames)
        if size > MAX_TASK_BYTES:
            raise MessageTooLarge(
                f"the arguments have {size / 2**30:.1f} GB, more than the limit of {MAX_TASK_BYTES / 2**30:.0f} GB per "
                "task; nothing was sent. Write large data to a file that the engines can read, or send it in parts "
                "(scatter)."
            )

    def __repr__(self) -> str:
        return f"<Client of {self.connection.url}: {len(self)} engines>"


def _listed(ids: Sequence[int]) -> str:
    if not ids:
        return "none"
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{len(ids)}: {ids[0]} … {ids[-1]}"
