"""The paths of the dashboard: what the browser asks, and which question answers it. JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .._version import __version__
from ..errors import ControllerLost, EngineroomError, QueryError, UnknownTask
from . import graph, past, tasks
from .export import download
from .live import Live
from .metrics import exposition
from .security import Access
from .source import Source
from .stream import Stream
from .upkeep import Upkeep

STATIC = Path(__file__).parent / "static"

#: The largest body of an action, in bytes.
LARGEST_BODY = 1 << 20

#: The last instant that an address may name, in seconds since the epoch: in the year 5138.
LATEST = 1e11

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """Answers the browser's questions."""

    def __init__(self, source: Source, live: Live, access: Access) -> None:
        self._source, self._live, self._access = source, live, access
        self._outputs = tasks.Outputs(source)
        self._stream = Stream(source)
        self._upkeep = Upkeep(source)

    def routes(self) -> list[Route | Mount]:
        """All paths."""
        return [
            Route("/", self._page),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/metrics", self._metrics),
            Route("/api/about", answered(self._about)),
            Route("/api/overview", answered(self._overview)),
            Route("/api/past", answered(self._past)),
            Route("/api/events", self._events),
            Route("/api/keys", answered(self._keys)),
            Route("/api/tasks", answered(self._tasks)),
            Route("/api/count", answered(self._count)),
            Route("/api/export", answered(self._export)),
            Route("/api/groups", answered(self._groups)),
            Route("/api/task/{id}", answered(self._task)),
            Route("/api/task/{id}/output", answered(self._output)),
            Route("/api/task/{id}/children", answered(self._children)),
            Route("/api/stream", answered(self._window)),
            Route("/api/graph", answered(self._graph)),
            Route("/api/database", answered(self._database)),
            Route("/api/database/verify", answered(self._verify), methods=["POST"]),
            Route("/api/logs", answered(self._logs)),
            Route("/api/log", answered(self._log)),
            Route("/api/engines/{action}", answered(self._engines), methods=["POST"]),
            Route("/api/act/{action}", answered(self._act), methods=["POST"]),
        ]

    async def _page(self, request: Request) -> Response:
        self._live.expect_viewer()
        return FileResponse(STATIC / "index.html")

    async def _metrics(self, request: Request) -> Response:
        news = msgspec.json.decode(await self._live.look())
        return Response(exposition(news), media_type="text/plain; version=0.0.4")

    async def _about(self, request: Request) -> Any:
        return {
            "name": self._source.place.name,
            "version": __version__,
            "read_only": self._access.read_only,
            "action_key": "" if self._access.read_only else self._access.action_key,
        }

    async def _overview(self, request: Request) -> Any:
        return await self._live.look()

    async def _past(self, request: Request) -> Any:
        instant = _instant(request.query_params.get("at"))
        if instant is None:
            raise ValueError("which instant? at=SECONDS, since 1970")
        return await self._source.ask(lambda: past.at(self._source.records(), instant))

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._live.events(), media_type="text/event-stream")

    async def _keys(self, request: Request) -> Any:
        return tasks.keys()

    async def _tasks(self, request: Request) -> Any:
        given = request.query_params
        query, session, sort = given.get("query", ""), given.get("session", ""), given.get("sort", "-submitted")
        skip, limit = _number(given.get("skip"), 0), _number(given.get("limit"), 50)
        return await self._source.ask(
            lambda: tasks.find(self._source.records(), query, session, sort, skip, limit)
        )

    async def _count(self, request: Request) -> Any:
        query, session = request.query_params.get("query", ""), request.query_params.get("session", "")
        return await self._source.ask(lambda: tasks.count(self._source.records(), query, session))

    async def _export(self, request: Request) -> Any:
        given = request.query_params
        return await download(
            self._source, given.get("query", ""), given.get("session", ""), given.get("format", "jsonl")
        )

    async def _groups(self, request: Request) -> Any:
        given = request.query_params
        query, session, by = given.get("query", ""), given.get("session", ""), given.get("by", "label")
        return await self._source.ask(lambda: tasks.groups(self._source.records(), query, session, by))

    async def _task(self, request: Request) -> Any:
        return await self._source.ask(lambda: tasks.one(self._source, request.path_params["id"]))

    async def _output(self, request: Request) -> Any:
        return await self._source.ask(lambda: self._outputs.of(request.path_params["id"]))

    async def _children(self, request: Request) -> Any:
        return await self._source.ask(lambda: tasks.children(self._source.records(), request.path_params["id"]))

    async def _window(self, request: Request) -> Any:
        given = request.query_params
        begin, end, by = _instant(given.get("from")), _instant(given.get("to")), given.get("by", "label")
        return await self._source.ask(lambda: self._stream.window(begin, end, by))

    async def _graph(self, request: Request) -> Any:
        task, query = request.query_params.get("task"), request.query_params.get("query", "")
        if task:
            return await self._source.ask(lambda: graph.around(self._source.records(), task))
        return await self._source.ask(lambda: graph.among(self._source.records(), query))

    async def _database(self, request: Request) -> Any:
        return await self._source.ask(self._upkeep.database)

    async def _verify(self, request: Request) -> Any:
        return await self._source.ask(self._upkeep.start_check)

    async def _logs(self, request: Request) -> Any:
        return await self._source.ask(self._upkeep.logs)

    async def _log(self, request: Request) -> Any:
        return await self._source.ask(lambda: self._upkeep.log(request.query_params.get("name", "")))

    async def _engines(self, request: Request) -> Any:
        given, action = await body_of(request), request.path_params["action"]
        engines = given.get("engines")
        named = engines if isinstance(engines, list) else []
        return await self._source.ask(lambda: self._upkeep.signal(action, named))

    async def _act(self, request: Request) -> Any:
        given, action = await body_of(request), request.path_params["action"]
        seen = given.get("seen")
        return await self._source.ask(
            lambda: tasks.act(
                self._source,
                action,
                str(given.get("query") or ""),
                str(given.get("session") or ""),
                given.get("dry_run") is not False,
                seen if isinstance(seen, int) else None,
            )
        )


def answered(question: Callable[[Request], Awaitable[Any]]) -> Handler:
    """A handler that answers with JSON: what the question returns (bytes are JSON already), or what was wrong."""

    async def handler(request: Request) -> Response:
        try:
            found = await question(request)
        except (EngineroomError, TimeoutError, OSError, ValueError, LookupError) as error:
            return _problem(error)
        if isinstance(found, Response):
            return found
        return _json(found if isinstance(found, bytes) else msgspec.json.encode(found, enc_hook=_plain))

    return handler


def _problem(error: Exception) -> Response:
    kinds: dict[type[Exception], int] = {
        UnknownTask: 404, tasks.SeenOther: 409, QueryError: 400, ControllerLost: 503, TimeoutError: 504,
    }  # fmt: skip
    status = next((status for kind, status in kinds.items() if isinstance(error, kind)), 400)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return _json(msgspec.json.encode({"error": text, "code": getattr(error, "code", "error")}), status)


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def _plain(value: Any) -> Any:
    """What a record may hold that JSON does not know."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray | memoryview) else str(value)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that an action sends.

    Raises
    ------
    ValueError
        It is something else, or too large.
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BODY:
            raise ValueError("the request is too large")
    try:
        given = json.loads(content or b"{}")
    except RecursionError:
        raise ValueError("the request is nested too deeply") from None
    if not isinstance(given, dict):
        raise ValueError("an action is a JSON object")
    return given


def _number(text: str | None, default: int) -> int:
    """A number in an address: 0 or more."""
    if text is None or not text.isdecimal() or len(text) > 15:
        return default
    return int(text)


def _instant(text: str | None) -> float | None:
    """An instant in an address: seconds since the epoch. Raises ValueError for one after `LATEST`."""
    if not text:
        return None
    instant = float(text)
    if not 0 <= instant <= LATEST:
        raise ValueError(f"an instant is a number of seconds since 1970; got {text!r}")
    return instant


def application(source: Source, access: Access) -> tuple[Starlette, Live]:
    """The application, without its guard."""
    live = Live(source)
    return Starlette(routes=Api(source, live, access).routes()), live
