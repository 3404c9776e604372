"""The paths of the Jupyter server that the panel asks, below `engineroom/`. JSON in, JSON out.

Who may ask is decided by Jupyter: authentication, authorization (the resource "engineroom"), XSRF and origin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from ..errors import EngineroomError
from .clusters import Clusters, Start, UnknownCluster
from .dashboards import NOT_TO_BROWSER, Dashboards

#: Answers to mistakes of the user, with a text that says what to do.
MISTAKES = (EngineroomError, LookupError, OSError, RuntimeError, TimeoutError, ValueError)

_CLUSTERS = "/engineroom/clusters"


class Count(msgspec.Struct, forbid_unknown_fields=True):
    """How many engines a cluster is to have."""

    n: int


class _Handler(APIHandler):
    auth_resource = "engineroom"

    def initialize(self, clusters: Clusters, jobs: set[asyncio.Task[None]]) -> None:
        self._clusters, self._jobs = clusters, jobs

    async def _answered(self, question: Callable[[], Any]) -> None:
        """Answer with what the question returns, in a thread; or with what is wrong."""
        try:
            found = await asyncio.to_thread(question)
        except MISTAKES as error:
            self.set_status(404 if isinstance(error, UnknownCluster) else 400)
            found = {"message": str(error) or type(error).__name__}
        self.finish(msgspec.json.encode(found))

    def _later(self, job: Callable[[], None]) -> None:
        """Run a job that goes on when the browser has gone."""
        task = asyncio.create_task(asyncio.to_thread(job))
        self._jobs.add(task)  # asyncio itself keeps no reference to a task
        task.add_done_callback(self._jobs.discard)


class ClustersHandler(_Handler):
    """All clusters."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """`clusters`: see `clusters.Shown`; `profiles`: names."""
        listed = self._clusters
        await self._answered(lambda: {"clusters": listed.listed(), "profiles": listed.profiles()})

    @authenticated
    @authorized
    async def post(self) -> None:
        """Begin to start a cluster; the answer has its `key`."""

        def start() -> dict[str, str]:
            key, job = self._clusters.start(msgspec.json.decode(self.request.body, type=Start))
            loop.call_soon_threadsafe(self._later, job)
            return {"key": key}

        loop = asyncio.get_running_loop()
        await self._answered(start)


class ClusterHandler(_Handler):
    """One cluster."""

    @authenticated
    @authorized
    async def patch(self, key: str) -> None:
        """Scale it to `n` engines."""

        def scale() -> dict[str, str]:
            wish = msgspec.json.decode(self.request.body, type=Count)
            loop.call_soon_threadsafe(self._later, self._clusters.scale(key, wish.n))
            return {"key": key}

        loop = asyncio.get_running_loop()
        await self._answered(scale)

    @authenticated
    @authorized
    async def delete(self, key: str) -> None:
        """Stop it, and wait until it has ended."""
        await self._answered(lambda: self._clusters.stop(key))


class DashboardHandler(JupyterHandler):
    """The dashboard of one cluster."""

    auth_resource = "engineroom"

    def initialize(self, clusters: Clusters, dashboards: Dashboards) -> None:
        self._clusters, self._dashboards = clusters, dashboards
        self._answering: asyncio.Task[Any] | None = None

    def check_xsrf_cookie(self) -> None:
        """Let actions pass: the dashboard's pages do not know Jupyter's XSRF token. Their actions carry a key that only
        these pages can read, and the dashboard checks it."""

    @authenticated
    @authorized
    async def get(self, key: str, path: str) -> None:
        """A page, a file, an answer, or a stream of events."""
        await self._pass_on(key, path)

    @authenticated
    @authorized
    async def post(self, key: str, path: str) -> None:
        """An action."""
        await self._pass_on(key, path)

    async def _pass_on(self, key: str, path: str) -> None:
        if not self.check_origin():
            raise HTTPError(403, "Another web site made your browser ask this.")
        self._answering = asyncio.current_task()
        # As the browser spelled it. `path` is decoded.
        asked, _, query = str(self.request.uri).partition(_CLUSTERS)[2].partition("/dashboard/")[2].partition("?")
        query = "&".join(part for part in query.split("&") if not part.startswith("token="))  # Jupyter's own
        try:
            files = await asyncio.to_thread(self._clusters.place_of, key)
            headers = {name.lower(): value for name, value in self.request.headers.items()}
            asking = self._dashboards.answer(
                key, files, str(self.request.method), f"/{asked}?{query}", headers, self.request.body
            )
            async with asking as answer:
                self.set_status(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in NOT_TO_BROWSER:
                        self.set_header(name, value)
                async for part in answer.aiter_raw():
                    self.write(part)
                    await self.flush()
        except (StreamClosedError, asyncio.CancelledError):
            return  # the browser has gone
        except MISTAKES as error:
            if self._headers_written:  # the dashboard ended in the middle of an answer
                return
            self.set_status(404 if isinstance(error, UnknownCluster) else 502)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.write(f"There is no dashboard to show: {error}")

    def on_connection_close(self) -> None:
        """The browser has gone: a stream of events would otherwise stay open until the next event."""
        if self._answering is not None:
            self._answering.cancel()
        super().on_connection_close()


def add_handlers(app: Any) -> None:
    """Give a Jupyter server our paths."""
    clusters, dashboards = Clusters(), Dashboards()
    common: dict[str, Any] = {"clusters": clusters, "jobs": set()}
    below = url_path_join(app.settings["base_url"], _CLUSTERS)
    app.add_handlers(
        ".*$",
        [
            (below, ClustersHandler, common),
            (f"{below}/([^/]+)", ClusterHandler, common),
            (f"{below}/([^/]+)/dashboard(/.*)", DashboardHandler, {"clusters": clusters, "dashboards": dashboards}),
        ],
    )
