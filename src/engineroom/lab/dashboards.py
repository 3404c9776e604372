"""Dashboards behind the Jupyter server: passes a request of the browser on to the dashboard of a cluster.

The dashboard is the process that `engineroom dashboard` starts; here it is started when somebody first asks for it, and
ends with its cluster. The browser never learns its port or its token: who may use this Jupyter server may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..cluster.cluster_files import ClusterFiles
from ..cluster.processes.dashboard_process import DashboardProcess
from ..config import dashboard_url
from ..errors import EngineroomError

if TYPE_CHECKING:
    import httpx

#: Headers of the browser that the dashboard is told. Jupyter's own cookies and tokens are not among them.
TO_DASHBOARD = ("accept", "content-type", "x-engineroom-key", "sec-fetch-site")
#: Headers of an answer that are about the connection, or that the dashboard's server adds for itself.
NOT_TO_BROWSER = {"connection", "content-length", "date", "keep-alive", "server", "set-cookie", "transfer-encoding"}


class NoDashboard(EngineroomError):
    """The dashboard of a cluster could not be started, or does not answer."""


class Dashboards:
    """Connections to the dashboards of clusters, which are started when they are first asked for."""

    def __init__(self) -> None:
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._one_start = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def answer(
        self, key: str, files: ClusterFiles, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpx.Response]:
        """The dashboard's answer to a request, as a stream.

        Raises
        ------
        NoDashboard
            There is none, and the text says why.
        """
        import httpx

        client = await self._client(key, files)
        told = {name: headers[name] for name in TO_DASHBOARD if name in headers}
        try:
            async with client.stream(method, path, headers=told, content=body) as answer:
                if answer.status_code == 401:  # another dashboard has taken its port
                    self._clients.pop(key, None)
                yield answer
        except httpx.TransportError as error:
            self._clients.pop(key, None)
            raise NoDashboard(f"the dashboard does not answer: {error}") from None

    async def _client(self, key: str, files: ClusterFiles) -> httpx.AsyncClient:
        """A connection that has the dashboard's cookie."""
        try:
            import httpx
        except ModuleNotFoundError:
            raise NoDashboard("the dashboard in JupyterLab needs httpx: pip install 'engineroom[lab]'") from None

        async with self._one_start:
            if key in self._clients:
                return self._clients[key]
            link = urlsplit(await asyncio.to_thread(_started, files))
            # Events may be far apart: there is no limit to a read. The dashboard is on this host: no proxy is asked.
            client = httpx.AsyncClient(
                base_url=f"http://{link.netloc}", timeout=httpx.Timeout(None, connect=5), trust_env=False,
                limits=httpx.Limits(max_connections=None),
            )  # fmt: skip
            entered = await client.get(f"/?{link.query}")  # with its token; the answer has the cookie
            if entered.status_code != 200:
                raise NoDashboard(f"the dashboard refuses its own link (status {entered.status_code})")
            self._clients[key] = client
            return client


def _started(files: ClusterFiles) -> str:
    """The link of a cluster's dashboard, which is started if none runs."""
    link = dashboard_url(files.profile_dir, files.cluster_id)
    if link is None:
        process = DashboardProcess(True, files)
        process.start()
        link = process.url
    if link is None:
        raise NoDashboard(f"the dashboard did not start. Its log: {files.log_of('dashboard')}")
    return link
