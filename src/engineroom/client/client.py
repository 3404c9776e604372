"""The client: a connection to a cluster, its engines, and the memory of its tasks.

`Client` is what users call. The work is done by its parts: `Channel` sends and receives, `Engines` knows the engines,
views submit, `OwnTasks` knows what was submitted, `Records` asks the database.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import ConnectionInfo, check_switches
from ..errors import ConnectionFileError, EngineroomError, TimeoutError
from ..ids import EngineId, TaskId
from ..messages import OptionChanges
from ..on_engine import task_context
from . import arguments, hints
from .connection.channel import Channel
from .connection.connecting import find_connection, profile_of, through_tunnel
from .connection.history import History
from .engine_methods import EngineMethods
from .former_arguments import options_of_subheader
from .interop_methods import InteropMethods
from .magics import bind_magics_once
from .own_tasks import Jobs, OwnTasks, TaskResults, names_one
from .port import ClientPort
from .record_methods import RecordMethods, documented_by
from .records.actions import ids_taken, select_or_none
from .records.queries import Records
from .records.query_args import plain_label, plain_metadata
from .records.scope import in_session
from .records.selection import Selection
from .results.metadata import ExecuteReply, Metadata  # noqa: F401 — programs import them from here
from .results.result import AsyncResult
from .session import Session
from .settings import ClientSettings
from .views import BroadcastView, DirectView, LoadBalancedView
from .views.flags import whole
from .waiting.waits import limit_of


class Client(EngineMethods, InteropMethods, RecordMethods, ClientSettings):
    """A connection to a cluster.

    Parameters
    ----------
    connection_info : path or dict, optional
        A connection file or its content. Default: found by profile.
        Without arguments the client finds the cluster that runs, whoever started it: the profile's unnamed one; else
        the only one of the profile, with any id; else the only one of all profiles. If several run, the error lists
        what to write for each.
    profile, profile_dir, ipython_dir, cluster_id : str, optional
        Where to find the connection file: `<profile_dir>/security/ipcontroller[-<cluster_id>]-client.json`.
    timeout : float
        Seconds to wait for the file to appear (or, if its controller has died, for the file of another), and for an
        answer.
    cluster : Cluster, optional
        The cluster this client belongs to. (`Cluster` imports `Client`: its type cannot be named here.)
    debug : bool
        Kept as an attribute.
    sshserver, sshkey : str, optional
        A host that reaches the controller, as ssh knows it (`user@login:22`), and the file of a private key. The client
        opens a tunnel through it with the system's ssh, and closes it at the end. The connection file must be here.
    former : optional
        Arguments of ipyparallel's Client: a warning says what replaces each.

    Raises
    ------
    ConnectionFileError
        No connection file, or a broken or stale one.
    AuthenticationError
        The controller refused the key.
    ControllerLost
        The controller has died, and no other has taken its place.
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
        cluster: Any = None,
        debug: bool = False,
        sshserver: str | None = None,
        sshkey: str | None = None,
        **former: Any,
    ) -> None:
        connection_info, profile_dir = arguments.checked(locals())
        self.connection = find_connection(
            connection_info, profile, profile_dir, ipython_dir, cluster_id, timeout, task_context.connection
        )
        self._at_the_end = contextlib.ExitStack()
        if sshserver is not None:
            self.connection = through_tunnel(self.connection, sshserver, sshkey or "", self._at_the_end)
        self.cluster = cluster
        self.profile = profile or profile_of(self.connection)
        self.debug = debug
        try:
            self._channel = Channel(self.connection, timeout=timeout)
        except (EngineroomError, TimeoutError):
            self._at_the_end.close()
            raise
        except Exception as error:  # the transport does not understand the url
            self._at_the_end.close()
            raise ConnectionFileError(f"cannot connect to {self.connection.url!r}: {error}") from error
        self._port = ClientPort(self._channel)
        self._records = Records(self._channel)
        self._tasks = OwnTasks(self._port, self._records)
        results, name = self._tasks.results_of_session, self._channel.name_session
        self.session = Session(self._channel.session, self.connection.key, results, name)
        if not task_context.may_wait():  # a client in a task is forgotten with the task
            bind_magics_once(self)

    @property
    def curve_serverkey(self) -> str:
        """The certificate of a controller that other hosts can reach; "" for one on this host alone."""
        return self.connection.certificate

    # ------------------------------------------------------------------------------------------ engines and views

    @property
    def ids(self) -> list[EngineId]:
        """Numbers of the engines, sorted."""
        return self._port.engines.ids

    def __len__(self) -> int:
        return len(self._port.engines)

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

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """A view of some engines; "all" means all engines at the time of each call."""
        view = DirectView(self, targets, **flags)
        self._tasks.views.add(view)
        return view

    def load_balanced_view(self, targets: Any = None, **flags: Any) -> LoadBalancedView:
        """A view whose tasks the scheduler gives to engines."""
        view = LoadBalancedView(self, targets, **flags)
        self._tasks.views.add(view)
        return view

    def broadcast_view(self, targets: Any = "all", is_coalescing: bool = False, **flags: Any) -> BroadcastView:
        """A direct view, as programs for large clusters name it: here every direct view broadcasts."""
        view = BroadcastView(self, targets, is_coalescing=is_coalescing, **flags)
        self._tasks.views.add(view)
        return view

    def activate(self, targets: Any = "all", suffix: str = "") -> DirectView:
        """Bind IPython's `%px` magics, with this suffix, to engines; returns the view that they use.

        Raises
        ------
        RuntimeError
            This is no IPython.
        """
        view = self.direct_view(targets)
        view.block = True
        view.activate(suffix)
        return view

    @property
    def _engines(self) -> dict[EngineId, str]:
        """Number → uuid, of the engines that are there: what the examples of IPython.parallel's manual use."""
        return {id: self._port.engine_uuid(id) or "" for id in self.ids}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise hints.no_attribute(self, name, hints.OF_CLIENT)

    # ------------------------------------------------------------------------------------------ this client's tasks

    @property
    def history(self) -> History:
        """msg_ids of this client's tasks, by submission; reads like a list of str."""
        return self._tasks.history()

    @property
    def outstanding(self) -> set[TaskId]:
        """msg_ids without an outcome."""
        return self._tasks.outstanding()

    @property
    def results(self) -> TaskResults:
        """Values of finished tasks, by msg_id: a dict whose values are fetched from the controller when asked for.

        To remove one is to have this client forget its task: it leaves the history, too, and `metadata`. Its record
        stays in the database.
        """
        return TaskResults(self._tasks)

    @property
    def metadata(self) -> TaskResults:
        """Metadata of finished tasks, by msg_id: a dict like `results`."""
        return TaskResults(self._tasks, metadata=True)

    def get_result(self, indices_or_msg_ids: Jobs = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """The result of any task: of this client, of another, or of an earlier session.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
            An int is an index into this client's history; default: the last.
        block : bool, optional
            Wait until it is ready.

        Returns
        -------
        AsyncResult
            AsyncHubResult for tasks that are not this client's. For an unknown msg_id, `get` raises UnknownTask.
        """
        check_switches(owner=owner)
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        result = self._tasks.result_of(self._tasks.ids_of(wanted), single=names_one(wanted), owner=owner)
        if self._blocks(block):
            result.wait()
        return result

    def wait(
        self,
        jobs: Jobs = None,
        timeout: float | None = -1,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
        dry_run: bool = False,
    ) -> Any:
        """Wait for tasks (default: all of this client's that are outstanding). Returns whether all are done.

        Parameters
        ----------
        jobs : msg_id, int, AsyncResult, Future, or a list of those
        query : dict or "all", optional
            Instead of `jobs`: the tasks, of any client, that match and are pending now.
        session : str or Client, optional
            With `query`: only tasks of this session: "mine", "last", an id, or a client.
        dry_run : bool
            With `query`: do not wait, return a Selection of the tasks that would be waited for.

        Raises
        ------
        UnknownTask
            There is no such task.
        """
        query = in_session(self._records, query, session)
        chosen = select_or_none(self._records, query, "wait for", dry_run=dry_run, others=jobs)
        if dry_run:
            return chosen
        if chosen is not None:
            ids = ids_taken(self._records, query, "wait for")
            jobs = self._tasks.result_of(ids, single=False) if ids else []
        return self._tasks.wait(jobs, limit_of(timeout))

    async def wait_async(self, jobs: Jobs = None, timeout: float | None = -1, *, cancel: bool = False) -> bool:
        """`wait` for coroutines: their event loop goes on meanwhile.

        Parameters
        ----------
        cancel : bool
            If the coroutine is cancelled while it waits, cancel the tasks, also those that are running. Default: they
            go on.
        """
        return await self._tasks.wait_async(jobs, limit_of(timeout), cancel=cancel)

    def wait_interactive(self, jobs: Jobs = None, interval: float = 1.0, timeout: float | None = -1.0) -> None:
        """Wait for tasks, with a progress bar."""
        from .notebook.progress import show_progress

        limit = limit_of(timeout)
        futures = self._tasks.futures() if jobs is None else self._tasks.futures_of(jobs, limit)
        show_progress(futures, interval=interval, timeout=limit)

    def abort(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """End tasks that have not started: `jobs`, or those at engines `targets`, or all of this client's.

        Their results raise TaskAborted. Tasks that are running go on: `cancel` ends those, too.

        Parameters
        ----------
        query : dict or "all", optional
            Instead of `jobs`: the tasks, of any client, that match and are pending now.
        session : str or Client, optional
            With `query`: only tasks of this session: "mine", "last", an id, or a client.
        dry_run : bool
            With `query`: do nothing, return the selection.

        Returns
        -------
        Selection or None
            With `query`.

        Raises
        ------
        UnknownTask
            There is no such task; nothing is ended.
        """
        return self._end(jobs, targets, block, in_session(self._records, query, session), dry_run, running=False)

    def cancel(
        self,
        jobs: Jobs = None,
        targets: Any = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
        dry_run: bool = False,
    ) -> Selection | None:
        """End tasks, also those that are running: `jobs`, or those at engines `targets`, or all of this client's.

        A running task is interrupted (KeyboardInterrupt), and its engine is killed and replaced if that does not stop
        it. Each task has one outcome: its own if it ends first, else its result raises TaskAborted.

        Parameters
        ----------
        block : bool, optional
            Wait until the controller has begun to end them. (`wait(jobs)` waits until they have ended.)
        query, session, dry_run
            As for `abort`.
        """
        return self._end(jobs, targets, block, in_session(self._records, query, session), dry_run, running=True)

    def _end(
        self, jobs: Jobs, targets: Any, block: bool | None, query: Any, dry_run: bool, *, running: bool
    ) -> Selection | None:
        action, blocks = "cancel" if running else "abort", self._blocks(block)
        others = jobs if jobs is not None else targets
        chosen = select_or_none(self._records, query, action, dry_run=dry_run, others=others)
        if chosen is not None:
            jobs = [] if dry_run else ids_taken(self._records, query, action)
            if not jobs:
                return chosen
        engines = None if targets is None else self._port.engines.resolve(targets)
        future = self._tasks.end(jobs, engines, running=running)
        if blocks:
            future.result()
        return chosen

    def resubmit(
        self,
        indices_or_msg_ids: Jobs = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool | None = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        session: Any = None,
        retries: int | None = None,
        label: str | None = None,
        dry_run: bool = False,
        subheader: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run finished tasks again, as new tasks with new msg_ids; the old records name them in `resubmitted`.

        Parameters
        ----------
        indices_or_msg_ids : msg_id, int, AsyncResult, or a list of those
        query : dict or "all", optional
            Instead of naming tasks: all finished tasks whose records match. The result's `selection` tells how many
            pending tasks match, too; these are left out.
        session : str or Client, optional
            With `query`: only tasks of this session: "mine", "last", an id, or a client.
        metadata, retries, label
            Options of the new tasks; default: the options of the old ones.
        dry_run : bool
            With `query`: do nothing, return the selection.
        subheader : dict, optional
            The former name of these options: `retries`, `label`; what else it has goes into `metadata`.

        Returns
        -------
        AsyncHubResult, or Selection if `dry_run`

        Raises
        ------
        UnknownTask, PendingTask
            Nothing is resubmitted then.
        """
        if subheader:
            retries, label, metadata = options_of_subheader(subheader, retries, label, metadata)
        blocks = self._blocks(block)
        query = in_session(self._records, query, session)
        chosen = select_or_none(self._records, query, "resubmit", dry_run=dry_run, others=indices_or_msg_ids)
        if dry_run:
            return chosen
        wanted = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        ids = self._tasks.ids_of(wanted) if chosen is None else ids_taken(self._records, query, "resubmit")
        changes = OptionChanges(
            None if retries is None else whole("retries", retries, "a number of times, 0 or more", 0),
            plain_label(label),
            None if metadata is None else plain_metadata(metadata),
        )
        result = self._tasks.resubmit(ids, changes, single=chosen is None and names_one(wanted))
        result.selection = chosen
        if blocks:
            result.wait()
        return result

    # ------------------------------------------------------------------------------------------ the state of tasks

    def result_status(self, msg_ids: Jobs, status_only: bool = True) -> dict[str, Any]:
        """Which tasks are pending and which completed; with `status_only=False` results by msg_id as well.

        Raises
        ------
        UnknownTask
            There is no such task.
        """
        check_switches(status_only=status_only)
        status = self._records.result_status(self._tasks.ids_of(msg_ids))
        if not status_only and status["completed"]:
            results = self.get_result(status["completed"]).split()
            status |= {r.msg_ids[0]: r.get(return_exceptions=True) for r in results}
        return status

    @documented_by(OwnTasks.explain)
    def explain(self, jobs: Jobs) -> Any:
        return self._tasks.explain(jobs)

    # ------------------------------------------------------------------------------------------ the end

    @property
    def closed(self) -> bool:
        """Whether this connection has ended: `close` was called, or the cluster has stopped."""
        return self._channel.failure is not None

    def close(self, linger: float | None = None) -> None:
        """End this connection, once all tasks are accepted: within `linger` seconds, by default 60. Tasks go on."""
        self._channel.close(None if linger is None else limit_of(linger))
        self._at_the_end.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._channel.close(submit_rest=kind is not KeyboardInterrupt)
        self.close()

    def spin(self) -> None:
        """Kept for old code: results come by themselves."""

    def spin_thread(self, interval: float = 1) -> None:
        """Kept for old code: results come by themselves."""

    def stop_spin_thread(self) -> None:
        """Kept for old code: results come by themselves."""

    def _repr_html_(self) -> str:
        from .notebook.pages import client_html

        engines = [(engine.id, engine.host, engine.pid) for engine in self._channel.engines]
        facts = [("session", self.session.session), ("closed", "yes" if self.closed else None)]
        return client_html(self.connection.url, engines, self._port.outstanding(), facts)

    def __repr__(self) -> str:
        return f"<Client of {self.connection.url}: {len(self)} engines>"
