"""`bind_kernel`: opens an engine to Jupyter front ends. Importing this needs ipykernel.

An engine is no Jupyter kernel. Here a small kernel runs in a thread of the engine's process. It sends each cell to its
own engine, as a direct task of a client. So cells of a console and tasks of the cluster take turns, in one namespace,
and each cell has a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

from .._version import __version__
from ..client import Client
from ..config import ConnectionInfo, connection_file
from ..errors import ConfigError, EngineroomError, RemoteError
from ..on_engine import task_context

#: Seconds between two looks at what a running cell has printed, and that the kernel has to start.
LOOK_SECONDS, START_SECONDS = 0.05, 30.0


class EngineKernel(Kernel):  # type: ignore[misc]
    """A kernel whose cells run as tasks of an engine."""

    implementation = "engineroom"
    implementation_version = __version__
    banner = "An engine of a cluster: cells run in its namespace, between its tasks."
    language_info = {
        "name": "python",
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
    }
    #: set by `bind_kernel`
    client: Client
    engine: int

    async def do_execute(
        self, code: str, silent: bool, store_history: bool = True, user_expressions: Any = None,
        allow_stdin: bool = False, **kwargs: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a cell, and send what comes of it to the front end."""
        try:
            result = self.client[self.engine].execute(code, silent=silent)
        except (EngineroomError, IndexError) as error:  # the cluster has gone
            return self._failed(type(error).__name__, str(error), [])
        sent = {"stdout": 0, "stderr": 0}
        while not await result.wait_async(LOOK_SECONDS):
            self._stream(result, sent)
        self._stream(result, sent)
        for output in result.outputs:
            content = {"data": output["data"], "metadata": output.get("metadata", {}), "transient": {}}
            self.send_response(self.iopub_socket, "display_data", content)
        failed = result.exception()
        if failed is not None:
            shown = failed.traceback if isinstance(failed, RemoteError) else str(failed)
            return self._failed(getattr(failed, "ename", type(failed).__name__), str(failed), shown.splitlines())
        value = result.execute_result
        if value and not silent:
            content = {**value, "execution_count": self.execution_count}
            self.send_response(self.iopub_socket, "execute_result", content)
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

    def _stream(self, result: Any, sent: dict[str, int]) -> None:
        for name in sent:
            text = getattr(result, name)
            if len(text) > sent[name]:
                self.send_response(self.iopub_socket, "stream", {"name": name, "text": text[sent[name] :]})
                sent[name] = len(text)

    def _failed(self, ename: str, evalue: str, traceback: list[str]) -> dict[str, Any]:
        content = {"ename": ename, "evalue": evalue, "traceback": traceback or [f"{ename}: {evalue}"]}
        self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    def do_is_complete(self, code: str) -> dict[str, str]:
        """Whether a cell is complete, or waits for more lines."""
        from IPython.core.inputtransformer2 import TransformerManager

        status, indent = TransformerManager().check_complete(code)
        return {"status": status, "indent": " " * (indent or 0)}

    async def do_complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Names that may stand at the cursor."""
        matches, start = await self.client[self.engine].apply_async(_complete, code, cursor_pos)
        return {"matches": matches, "cursor_start": start, "cursor_end": cursor_pos, "metadata": {}, "status": "ok"}

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt the cell that runs."""
        self.client.send_signal("SIGINT", self.engine)
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)


def _complete(code: str, position: int) -> tuple[list[str], int]:
    from IPython.core.completer import IPCompleter, provisionalcompleter

    import __main__

    with provisionalcompleter():
        found = list(IPCompleter(namespace=vars(__main__)).completions(code, position))
    return [each.text for each in found], found[0].start if found else position


class _App(IPKernelApp):  # type: ignore[misc]
    """ipykernel's application, without what it does to a process: the engine keeps its streams, signals, debugger."""

    def _nothing(self, *args: Any) -> None: ...

    init_pdb = init_blackhole = init_poller = init_io = init_signal = init_path = init_crash_handler = _nothing
    log_connection_info = configure_tornado_logger = patch_io = _nothing

    def init_kernel(self) -> None:
        self.displayhook = types.SimpleNamespace()
        super().init_kernel()


class _Bound:
    """The kernel of this process."""

    def __init__(self, client: Client, engine: int, options: dict[str, Any]) -> None:
        self.client = client
        self.file: Future[str] = Future()
        threading.Thread(target=self._run, args=(engine, options), name="engineroom-kernel", daemon=True).start()

    def _run(self, engine: int, options: dict[str, Any]) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            kind = type("EngineKernel", (EngineKernel,), {"client": self.client, "engine": engine})
            app = _App(kernel_class=kind, **options)
            app.initialize([])
            self.file.set_result(str(Path(app.abs_connection_file)))
        except BaseException as error:
            self.file.set_exception(error)
            return
        with contextlib.suppress(KeyboardInterrupt):
            app.start()


_bound: _Bound | None = None


def _for_clients(connection: ConnectionInfo) -> Path:
    """The connection file for clients: what a front end runs are tasks, and the engine's own key may submit none.

    Raises
    ------
    ConfigError
        It is not on this host.
    """
    path = connection_file(Path(connection.profile_dir), connection.cluster_id)
    if not path.exists():
        raise ConfigError(
            f"bind_kernel needs the connection file of clients, and {path} is not on this host: copy it from the "
            "controller's host, or bind an engine that runs there"
        )
    return path


def bind(connection: ConnectionInfo, **options: Any) -> str:
    """Open this engine to Jupyter front ends; returns the path of the kernel's connection file."""
    global _bound
    task = task_context.current_task()
    assert task is not None
    if _bound is None:
        bound = _Bound(Client(_for_clients(connection)), task.engine_id, options)
        bound.file.result(START_SECONDS)
        _bound = bound
    return _bound.file.result()
