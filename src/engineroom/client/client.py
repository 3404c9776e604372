"""The client: a connection to a cluster, its engines, and the memory of its tasks."""

from __future__ import annotations

import operator
import os
import signal as signals
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import MAX_TASK_BYTES, ConnectionInfo, connection_file, profile_dir, read_connection_file
from ..errors import (
    ConnectionFileError,
    EngineError,
    EngineroomError,
    MessageTooLarge,
    PendingTask,
    QueryError,
    TimeoutError,
)
from ..ids import EngineId, TaskId
from ..messages import (
    Abort,
    CountRecords,
    FindRecords,
    History,
    Purge,
    QueueStatus,
    Resubmit,
    ResultStatus,
    SignalEngines,
    StopController,
    StopEngines,
    TaskOptions,
)
from ..records import TaskRecord
from ..wire import frames as wire
from .channel import Channel
from .plain import plain_metadata, plain_query
from .result import AsyncHubResult, AsyncResult
from .views import DirectView, LoadBalancedView, ViewExecutor

if TYPE_CHECKING:
    from ..cluster import Cluster

Jobs = Any  # msg_id, index into the history, AsyncResult, Future, or a collection of those


class Session:
    """The identity of a client; `session` is the `client_uuid` of its tasks' records."""

    def __init__(self, uuid: str) -> None:
        self.session = uuid


class Client:
    """A connection to a cluster.

    Parameters
    ----------
    connection_info : path or dict, optional
        A connection file or its content. Default: found by profile.
    profile, profile_dir, ipython_dir, cluster_id : str, optional
        Where to find the connection file: `<profile_dir>/security/ipcontroller[-<cluster_id>]-client.json`.
    timeout : float
        Seconds to wait for the file to appear, and for the controller to answer.
    cluster : Cluster, optional
        The cluster this client belongs to.

    Raises
    ------
    ConnectionFileError
        No connection file, or a broken or stale one.
    AuthenticationError
        The controller refused the key.
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
        self.connection = _connection(connection_info, profile, profile_dir, ipython_dir, cluster_id, timeout)
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
        self._foreign: list[TaskId] = []  # resubmitted or fetched tasks of this client
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
    def history(self) -> list[TaskId]:
        """msg_ids of this client's tasks, by submission."""
        ids = [id for view in self._views for id in view.history]
        return sorted(
            {*ids, *self._foreign},
            key=lambda id: int(id.rpartition("-")[2]) if id.startswith(self._channel.session) else -1,
        )

    @property
    def outstanding(self) -> set[TaskId]:
        """msg_ids without an outcome."""
        return self._channel.outstanding()

    @property
    def results(self) -> Mapping[TaskId, Any]:
        """Values of finished tasks, by msg_id: fetched from the controller when asked for."""
        return _Results(self)

    @property
    def metadata(self) -> Mapping[TaskId, Any]:
        """Metadata of tasks, by msg_id: fetched from the controller when asked for."""
        return _Results(self, metadata=True)

    def _ids_of(self, jobs: Jobs) -> list[TaskId]:
        """msg_ids of whatever names tasks."""
        if isinstance(jobs, AsyncResult):
            return list(jobs.msg_ids)
        if isinstance(jobs, str):
            return [TaskId(jobs)]
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            history = self.history
            try:
                return [history[jobs]]
            except IndexError:
                raise IndexError(f"this client has submitted {len(history)} tasks; there is no number {jobs}") from None
        if isinstance(jobs, Iterable) and not isinstance(jobs, Mapping):
            return [id for job in jobs for id in self._ids_of(job)]
        raise TypeError(f"tasks are named by msg_id, index, AsyncResult, or a list of those; got {jobs!r}")

    def wait(self, jobs: Jobs = None, timeout: float | None = -1) -> bool:
        """Wait for tasks (default: all of this client's that are outstanding). Returns whether all are done."""
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
        from .progress import show_progress

        futures: Any = self._waiters() if jobs is None else self._futures_of(jobs)
        show_progress(list(futures), interval=interval, timeout=None if timeout < 0 else timeout)

    def abort(self, jobs: Jobs = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that have not started: `jobs`, or those at engines `targets`, or all of this client's.

        Their results raise TaskAborted. What is running goes on.
        """
        engines = None if targets is None else self._resolve(targets)
        tasks = None if jobs is None else self._ids_of(jobs)
        if tasks is None and engines is None:  # by name: what is submitted after this call is not meant
            tasks = [id for id in self.outstanding if id.startswith(self._channel.session)]
        future = self._channel.request(Abort(tasks, engines))
        if block or (block is None and self.block):
            future.result()

    # ------------------------------------------------------------------------------------------ the hub: results

    def get_result(self, indices_or_msg_ids: Jobs = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """The result of any task: of this client, of another, or of an earlier session.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
            An int is an index into this client's history; default: the last.
        block : bool, optional
            Wait for it.

        Returns
        -------
        AsyncResult
            AsyncHubResult for tasks that are not this client's. For an unknown msg_id, `get` raises UnknownTask.
        """
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        single = not isinstance(wanted, list | tuple | set | AsyncResult) or (
            isinstance(wanted, AsyncResult) and wanted._single
        )
        ids = self._ids_of(wanted)
        mine = owner and all(id.startswith(self._channel.session) for id in ids)
        kind = AsyncResult if mine else AsyncHubResult
        result = kind(self, ids, single=single, name="get_result", owner=mine)
        waiting = self._channel._waiting.copy()
        watched = []
        for id in dict.fromkeys(ids):
            waiter = waiting.get(id)
            if isinstance(waiter, AsyncResult):
                waiter._follow(id, result)
            else:
                watched.append(id)
        if watched:
            self._channel.expect(watched, result)
        if block or (block is None and self.block):
            result.wait()
        return result

    def result_status(self, msg_ids: Jobs, status_only: bool = True) -> dict[str, Any]:
        """Which tasks are pending and which completed; with `status_only=False` results by msg_id as well.

        Raises
        ------
        UnknownTask
            One of them is not known.
        """
        ids = self._ids_of(msg_ids)
        status: dict[str, Any] = self._channel.ask(ResultStatus(ids))
        if not status_only and status["completed"]:
            values = self.get_result(status["completed"]).get(return_exceptions=True)
            status |= dict(zip(status["completed"], values, strict=True))
        return status

    def resubmit(
        self,
        indices_or_msg_ids: Jobs = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        retries: int | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run finished tasks again, as new tasks with new msg_ids; the old records name them in `resubmitted`.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
        query : dict, optional
            Instead: all tasks whose records match.
        metadata, retries, label
            Options of the new tasks; default: those of the old.

        Raises
        ------
        UnknownTask, PendingTask
            Nothing is resubmitted then.
        """
        if query is not None:
            if indices_or_msg_ids is not None:
                raise ValueError("give tasks or a query, not both")
            ids = [
                TaskId(record["msg_id"])
                for record in self.db_query({"$and": [query, {"completed": {"$ne": None}}]}, "msg_id")
            ]
            single = False
        else:
            wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
            ids = self._ids_of(wanted)
            single = isinstance(wanted, str | int)
        options = None
        if metadata is not None:
            metadata = plain_metadata(metadata)
        if metadata is not None or retries is not None or label is not None:
            options = TaskOptions(retries or 0, None, label, dict(metadata) if metadata else None)
        channel = self._channel
        new = [channel.new_id() for _ in ids]
        result = AsyncHubResult(self, new, single=single, name="resubmit", submitted=time.time(), owner=False)
        channel.expect(new, result, watch=False)
        try:
            channel.ask(Resubmit(ids, new, options))
        except BaseException:
            for id in new:
                channel._waiting.pop(id, None)
            raise
        self._foreign += new
        if block or (block is None and self.block):
            result.wait()
        return result

    # ------------------------------------------------------------------------------------------ the hub: records

    def db_query(
        self,
        query: Mapping[str, Any],
        keys: str | Iterable[str] | None = None,
        *,
        sort: str | Sequence[tuple[str, int]] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Task records that match a MongoDB-style query.

        Parameters
        ----------
        query : dict
            `{"completed": None}`, `{"result_content.ename": "ValueError", "submitted": {"$gt": yesterday}}` …
        keys : str or list of str, optional
            Which keys to return; `msg_id` always is. Default: all but `buffers` and `result_buffers`.
        sort : str or list of (key, 1 or -1), optional
            Default: by submission. A str is a key, with "-" in front for descending order.
        limit, skip : int, optional

        Returns
        -------
        list of dict
            Times are aware datetimes.

        Raises
        ------
        QueryError
            An unknown key or operator, or an argument of the wrong type: the message names it.
        """
        wanted = [keys] if isinstance(keys, str) else None if keys is None else list(keys)
        if isinstance(sort, str):
            sort = [(sort.lstrip("-"), -1 if sort.startswith("-") else 1)]
        body = FindRecords(
            plain_query(query), wanted, list(sort) if sort else None, _whole("limit", limit), _whole("skip", skip) or 0
        )
        return [TaskRecord(record) for record in self._channel.ask(body)]

    def db_count(self, query: Mapping[str, Any]) -> int:
        """How many task records match a query."""
        return int(self._channel.ask(CountRecords(plain_query(query))))

    def hub_history(self) -> list[TaskId]:
        """msg_ids of all tasks in the database, of all clients and earlier sessions, by submission."""
        return list(self._channel.ask(History()))

    def purge_results(self, jobs: Jobs = None, targets: Any = None, *, query: Mapping[str, Any] | None = None) -> None:
        """Forget finished tasks: by msg_id, by engine, by query, or "all".

        Raises
        ------
        ValueError
            Nothing was named.
        PendingTask
            One of the tasks has not finished; nothing is purged.
        """
        self.purge_hub_results(jobs, targets, query=query)

    def purge_hub_results(
        self, jobs: Jobs = None, targets: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> int:
        """`purge_results` that tells how many records were forgotten."""

        def nothing(value: Any) -> bool:
            return value is None or (isinstance(value, list | tuple) and not value)

        if nothing(jobs) and nothing(targets) and query is None:
            raise ValueError("name what to purge: jobs=, targets=, query=, or jobs='all'")
        body = Purge(everything=isinstance(jobs, str) and jobs == "all")
        if not body.everything:
            body.tasks = None if nothing(jobs) else self._ids_of(jobs)
            body.engines = None if nothing(targets) else self._resolve(targets)
            body.query = None if query is None else plain_query(query)
        return int(self._channel.ask(body))

    def purge_local_results(self, jobs: Jobs = None, targets: Any = None) -> None:
        """Forget this client's own history of tasks; records in the database stay.

        Raises
        ------
        PendingTask
            One of the tasks is outstanding.
        """
        everything = isinstance(jobs, str) and jobs == "all"
        ids = set(self.history if everything or jobs is None else self._ids_of(jobs))
        pending = ids & self.outstanding
        if pending:
            raise PendingTask(f"{len(pending)} of these tasks are outstanding: wait for them, or abort them, first")
        for view in self._views:
            view.history = [id for id in view.history if id not in ids]
        self._foreign = [id for id in self._foreign if id not in ids]

    def purge_everything(self) -> None:
        """Forget all finished tasks, here and in the database."""
        self.purge_results("all")
        self.purge_local_results("all")

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        """What each engine has done and has to do.

        Returns
        -------
        dict
            `{engine: {"queue": direct tasks, "tasks": load-balanced tasks, "completed": …}, "unassigned": …}`:
            counts, or with `verbose` lists of msg_ids. A single int as target gives the inner dict.
        """
        engines = self._resolve(targets)
        status = self._channel.ask(QueueStatus(engines, verbose))
        by_engine: dict[Any, Any] = {int(id): inner for id, inner in status["engines"].items()}
        if isinstance(targets, int):
            return dict(by_engine[engines[0]])
        return {**by_engine, "unassigned": status["unassigned"]}

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
        engines = self._resolve(targets)
        self._channel.ask(StopEngines(engines))
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


class _Results(Mapping[TaskId, Any]):
    """Values (or metadata) of tasks, fetched from the controller when asked for."""

    def __init__(self, client: Client, metadata: bool = False) -> None:
        self._client, self._metadata = client, metadata

    def __getitem__(self, id: TaskId) -> Any:
        result = self._client.get_result(id)
        if self._metadata:
            result.wait()
            return result.metadata
        return result.get()

    def __iter__(self) -> Iterator[TaskId]:
        outstanding = self._client.outstanding
        return iter([id for id in self._client.history if id not in outstanding])

    def __len__(self) -> int:
        return len(list(iter(self)))


def _connection(
    given: Any, profile: str | None, directory: Any, ipython: Any, cluster_id: str | None, timeout: float
) -> ConnectionInfo:
    """What to connect to."""
    if isinstance(given, ConnectionInfo):
        return given
    if isinstance(given, Mapping):
        import msgspec

        try:
            return msgspec.convert(dict(given), ConnectionInfo)
        except msgspec.ValidationError as error:
            raise ConnectionFileError(f"not the content of a connection file: {error}") from None
    if given is not None:
        path = Path(given).expanduser()
        if "://" in str(given):
            raise ValueError(
                f"{given}: a url is not enough to connect: give the connection file, which holds the key too"
            )
    else:
        wanted = os.environ.get("IPP_CLUSTER_ID", "") if cluster_id is None else cluster_id
        path = connection_file(profile_dir(profile, directory, ipython), wanted)
    if not path.exists():
        others = sorted(path.parent.glob("ipcontroller-*-client.json")) if given is None else []
        hint = f" Clusters with an id are here: {', '.join(p.name for p in others[:5])}." if others else ""
        deadline = time.monotonic() + min(timeout, 1.0 if given is None else timeout)
        while not path.exists():
            if time.monotonic() >= deadline:
                option = f" --profile={profile}" if profile else ""
                raise ConnectionFileError(
                    f"no cluster is running here: there is no connection file {path}.{hint} Start one with "
                    f"`ipcluster start -n 4{option}`, or with engineroom.Cluster(n=4)."
                )
            time.sleep(0.02)
    return read_connection_file(path)


def _whole(name: str, value: Any) -> int | None:
    """A count that the databases can count to."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise QueryError(f"{name} is a whole number, got {value!r}") from None
    if isinstance(value, bool) or not 0 <= number < 1 << 62:
        raise QueryError(f"{name} is a whole number, 0 or more, got {value!r}")
    return number


def _listed(ids: Sequence[int]) -> str:
    if not ids:
        return "none"
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{len(ids)}: {ids[0]} … {ids[-1]}"
