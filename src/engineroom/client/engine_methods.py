"""What a client does with engines: it waits for them, signals and stops them. `Client` has these methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ..config import COUNT, check_optional_switches, check_switches
from ..errors import ConfigError
from ..ids import EngineId
from ..messages import StopController
from .connection.channel import Channel
from .notebook.engine_bar import wait_showing
from .port import ClientPort
from .record_methods import documented_by
from .records.queries import Records
from .views.flags import yes_or_no
from .waiting.waits import limit_of


class EngineMethods:
    """Methods of `Client` about engines."""

    cluster: Any
    direct_view: Callable[..., Any]
    _blocks: Callable[[bool | None], bool]
    _channel: Channel
    _port: ClientPort
    _records: Records

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

        Parameters
        ----------
        timeout : float
            Seconds; negative: no limit.
        block : bool
            With False, a Future is returned at once.
        interactive : bool, optional
            Show a progress bar. Default: in IPython, if it takes longer than a second.
        widget : bool, optional
            As for `AsyncResult.wait_interactive`.

        Raises
        ------
        TimeoutError
            Too few engines came in time.
        EngineError
            There are fewer, and no more are starting.
        """
        check_optional_switches(interactive=interactive, widget=widget)
        if not COUNT.fits(n):
            raise TypeError(f"n is {COUNT.what}; got {n!r}")
        limit = limit_of(timeout)
        wanted = n if n is not None else (self.cluster.n if self.cluster is not None and self.cluster.n else 1)
        if not yes_or_no("block", block):
            return self._port.engines.wait_in_background(wanted, limit)
        wait_showing(self._port.engines.wait_for, wanted, limit, interactive=interactive, widget=widget)
        return None

    async def wait_for_engines_async(self, n: int | None = None, *, timeout: float = -1) -> None:
        """`wait_for_engines` for coroutines: their event loop goes on meanwhile."""
        import asyncio  # slow to import, and only those who await need it

        future = self.wait_for_engines(n, timeout=timeout, block=False)
        assert future is not None
        await asyncio.wrap_future(future)

    @documented_by(Records.queue_status)
    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        check_switches(verbose=verbose)
        status = self._records.queue_status(self._port.engines.named(targets), bool(verbose))
        if isinstance(targets, int):
            [of_one] = [inner for engine, inner in status.items() if engine != "unassigned"]
            return dict(of_one)
        return status

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces of engines."""
        return self.direct_view("all" if targets is None else targets).clear(block=self._blocks(block))

    def reload_modules(
        self, targets: Any = None, names: str | Sequence[str] | None = None
    ) -> dict[EngineId, list[str]]:
        """Have engines load modules again that were edited after the engines imported them.

        Modules that use a changed one are loaded again too, after it. The modules in this process are left alone.

        Parameters
        ----------
        targets : optional
            The engines; default: all.
        names : str or list of str, optional
            Modules. Default: those that are not installed, and whose files have changed.

        Returns
        -------
        dict
            Engine → the modules that it has loaded again, in this order.

        Raises
        ------
        RemoteError, CompositeError
            The code of a module raised on an engine. That module is as far as its code ran. Or the file of a module
            is gone: then that engine has loaded no module again.
        """
        engines = self._port.engines.resolve(targets)
        done = self.direct_view(engines).reload_modules(names, block=True)
        return dict(zip(engines, done, strict=True))

    def send_signal(self, sig: int | str, targets: Any = None, block: bool | None = None) -> None:
        """Send a signal to engine processes, by number or name ("SIGINT"), also while they are busy.

        It is on its way when this returns: a task that is submitted next may have begun when it arrives. To end tasks
        and no others: `rc.cancel`.
        """
        check_optional_switches(block=block)
        self._port.engines.send_signal(sig, targets)

    def shutdown(
        self,
        targets: Any = "all",
        restart: bool = False,
        hub: bool = False,
        block: bool | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Stop engines once they have finished what they are running; with `hub=True` the whole cluster, at once.

        A wait that takes longer than 3 s says on stderr which engines it waits for. `rc.cancel(targets=…)` ends what
        they run.

        Parameters
        ----------
        restart : bool
            A new engine takes the number of each. Direct tasks that the old one has not started fail with EngineError.
        block : bool, optional
            Wait until they are gone; with `restart`, until the new ones are there.
        timeout : float, optional
            Seconds that this wait may take; None or negative: no limit.

        Raises
        ------
        TimeoutError
            Engines still run a task. They leave once it has ended.
        ConfigError
            Both `restart` and `hub`.
        """
        if yes_or_no("hub", hub) & yes_or_no("restart", restart):
            raise ConfigError("hub=True stops the whole cluster: it cannot be restarted from a client")
        if hub:
            self._channel.ask(StopController())
            return
        self._port.engines.stop(targets, wait=self._blocks(block), restart=restart, timeout=limit_of(timeout))
