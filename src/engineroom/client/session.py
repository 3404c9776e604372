"""Who a client is, in the records of its tasks; and the results of sessions that are over.

A session is the life of one client. It has an id, may have a name, and knows the notebook that it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from .. import markup
from ..errors import ConfigError
from .results.result import AsyncResult
from .waiting.waits import limit_of


class Session:
    """The session of a client.

    Attributes
    ----------
    session : str
        Its id: the `client_uuid` of its tasks' records.
    key : bytes
        The key of the cluster, which the client has sent to the controller.
    name : str or None
        A name of your own, by which its results are found later. Set it before the first task.

    Called with the name, the label, the notebook or the id of a session, it gives the results of that session:

    >>> rc.session("fit-v3")                                                          # doctest: +SKIP
    <SessionResults 'fit-v3': 12 results, 2 pending>
    """

    def __init__(
        self, uuid: str, key: str, results: Callable[[Any], SessionResults], name: Callable[[str], bool]
    ) -> None:
        self.session = uuid
        self.key = key.encode()
        self._results, self._tell_name = results, name
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        if not isinstance(value, str) or not value or len(value) > 200:
            raise ConfigError(f"the name of a session is a text of 1 to 200 characters; got {value!r}")
        if value == self._name:
            return
        if not self._tell_name(value):
            raise ConfigError(
                "this client has submitted tasks, so its session cannot be named any more: name it before its first "
                "task, or use labels (view.label), by which results are found, too"
            )
        self._name = value

    def __call__(self, name: Any) -> SessionResults:
        """The results of a session, or of all sessions of a name or notebook, in the order of their submission.

        Parameters
        ----------
        name : str or Client
            The name of a session; a notebook's path or name; a label of tasks; a session id, or its beginning;
            "mine" or "last".

        Raises
        ------
        QueryError
            There is no such session. The text lists those that there are.
        """
        return self._results(name)


class SessionResults(Sequence[AsyncResult]):
    """The results of a session: each as the call that made it returned it, in the order of submission.

    Those that are pending are followed: they have progress and output, and become ready. The list has what was
    submitted before it was made.
    """

    def __init__(self, name: str, names: Sequence[str], make: Callable[[int], AsyncResult]) -> None:
        self._name, self._names, self._make = name, names, make
        self._made: dict[int, AsyncResult] = {}

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> AsyncResult: ...

    @overload
    def __getitem__(self, index: slice) -> list[AsyncResult]: ...

    def __getitem__(self, index: int | slice) -> AsyncResult | list[AsyncResult]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        try:
            number = range(len(self))[index]
        except IndexError:
            count = f"the session {self._name!r} has {len(self)} results"
            raise IndexError(f"{count}; there is no number {index}") from None
        except TypeError:
            raise TypeError(f"the results of a session are numbered; got {index!r}") from None
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def __iter__(self) -> Iterator[AsyncResult]:
        return (self[number] for number in range(len(self)))

    @property
    def pending(self) -> list[AsyncResult]:
        """Those that are not ready."""
        return [result for result in self if not result.done()]

    def wait(self, timeout: float | None = -1) -> bool:
        """Wait for all; returns whether all are ready. `timeout` in seconds; None or negative: no limit."""
        from .results.task_future import wait_for_all

        return wait_for_all(list(self), limit_of(timeout))

    def wait_interactive(self, interval: float = 0.1, timeout: float | None = -1, widget: bool | None = None) -> None:
        """Wait for all, and show a progress bar: see `AsyncResult.wait_interactive`."""
        from .notebook.progress import show_progress

        show_progress(list(self), interval=interval, timeout=limit_of(timeout), name=self._name, widget=widget)

    def __repr__(self) -> str:
        pending = len(self.pending)
        state = f", {pending:,} pending" if pending else ""
        return f"<SessionResults {self._name!r}: {markup.plural(len(self), 'result')}{state}>"

    def _repr_html_(self) -> str:
        rows = [
            (number, result._name, result.label or "", f"{result.progress:,} of {len(result):,}", _state_of(result))
            for number, result in enumerate(self)
        ]
        count = markup.quiet(markup.plural(len(self), "result"))
        head = markup.block(markup.bold("Session"), " ", self._name, " ", count)
        return markup.block(head, markup.table(("", "call", "label", "done", "state"), rows[-100:]))


def _state_of(result: AsyncResult) -> str:
    if not result.done():
        return "pending"
    return "finished" if result.successful() else "failed"
