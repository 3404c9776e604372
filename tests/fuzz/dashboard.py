"""Requests to the dashboard, in process, over its ASGI application: the guard, all paths, and a database behind them.

A case is a list in msgpack: `[method, path, query string, [[name, value], …], body, who]`. `who` adds what a browser or
a program shows: a cookie, a header with the token, the key for actions, the right host.

No request may raise, or be answered with a status of 500 or more (but 503, as no cluster runs). Without the token, no
answer but a refusal, and none that holds a secret or a record.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec

from engineroom.dashboard.routes import application
from engineroom.dashboard.security import _OPEN_PATHS, ACTION_HEADER, Access, Guard
from engineroom.dashboard.source import Source
from engineroom.ids import ClientId, Digest
from engineroom.messages import Environment, Function
from engineroom.reading.records import Records
from engineroom.stores import SQLiteDB

from . import mutations
from .queries import _QUERIES, ATOMS, _entries
from .target import Complaints, Finding, TreeTarget, memory_folder

TOKEN, PORT = "a-token-of-the-fuzz-target-32-chars", 8700
#: Who asks: bits of the last value of a case.
COOKIE, BEARER, KEY, OTHER_HOST = 1, 2, 4, 8
#: In every record: an answer without the token must not hold it.
MARK = b"ValueError"
_PATHS = (
    "/", "/metrics", "/static/app.js", "/static/style.css", "/api/about", "/api/overview", "/api/past", "/api/keys",
    "/api/tasks",
    "/api/count", "/api/export", "/api/groups", "/api/task/t1", "/api/task/t1/output", "/api/task/t1/children",
    "/api/stream",
    "/api/graph", "/api/database", "/api/logs", "/api/log", "/api/engines/interrupt", "/api/act/abort",
    "/api/act/resubmit",
    "/api/act/purge", "/api/database/verify", "/api/events",
)  # fmt: skip
_QUERY_STRINGS = (
    "", "query={}&sort=-submitted&skip=0&limit=2", "at=1800000001", "query={%22state%22:%22failed%22}", "format=csv",
    "by=label",
    "from=1800000000&to=1800000010&by=state", "task=t1", "name=x.log", f"token={TOKEN}", "token=x",
)  # fmt: skip
_HEADERS = (
    ["cookie", "x=y"], ["origin", "http://127.0.0.1:8700"], ["origin", "http://[x"], ["sec-fetch-site", "cross-site"],
    ["content-type", "application/json"], ["host", "evil.example"], ["host", "[::1"], ["authorization", "Bearer x"],
    ["range", "bytes=0-5"], ["range", "bytes=9-1,x"], ["if-modified-since", "x"], ["if-none-match", "*"],
    ["content-length", "-1"],
    [ACTION_HEADER, "x"], ["cookie", 'a="\\777"; engineroom-8700=x'], ["cookie", "\xff\0=;,"],
)  # fmt: skip


class _Place:
    """A database that no cluster uses. A purge only counts: the records stay, for the next case."""

    name = "fuzz"
    log_folder: Path | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.log_folder = path.parent / "log"

    def is_running(self) -> bool:
        return False

    def retention(self) -> dict[str, Any] | None:
        return None

    def open(self) -> Records:
        return Records(store=SQLiteDB.open_readonly(self._path), url=f"sqlite://{self._path}")

    def purge(self, query: dict[str, Any]) -> int:
        store = SQLiteDB.open_readonly(self._path)
        try:
            return store.count(query)
        finally:
            store.close()


class DashboardTarget(TreeTarget):
    """All that a browser may send, and much that it may not."""

    name = "dashboard"
    atoms = (
        *ATOMS, *_PATHS, *_QUERY_STRINGS, *_HEADERS, "GET", "POST", "HEAD", "PUT", "OPTIONS", "/static/\0",
        "/static/../security.py",
        "/static/" + "a" * 300, "//", "/api/task/\0", "/api/task/t1%0a", COOKIE, COOKIE | KEY, BEARER, BEARER | KEY,
        0, "at=1e400", "at=nan",
        "skip=-1", "limit=99999999999999999999", "sort=", "sort=-", "sort=header.x", "by=", "%ff=%00", "&&;=", b"{}",
        b"[]", b"{",
        b'{"query": "{}", "dry_run": false, "seen": 3}', b'{"engines": [0, -1, "x"]}', b"[" * 2000, {"query": "{}"},
    )  # fmt: skip

    def __enter__(self) -> DashboardTarget:
        self._complaints = Complaints()
        self._complaints.__enter__()
        self._folder = tempfile.TemporaryDirectory(dir=memory_folder())
        path = Path(self._folder.name) / "tasks.db"
        (path.parent / "log").mkdir()
        (path.parent / "log" / "x.log").write_text("a line\n\x1b[31m\n")
        store = SQLiteDB(path, synchronous="OFF")
        store.write(_entries())
        # A client may have sent these.
        store.add_environments([(ClientId("u1"), Environment("e" * 32, b'{"a": "\xff'))])
        store.add_functions([Function(Digest(b"\x0f" * 16), b"\x80\x05\x95\xff", None, "\x1b[31m")])
        store.close()
        self.access = Access(TOKEN, PORT)
        self._source = Source(_Place(path))
        app, self._live = application(self._source, self.access)
        self._app = Guard(app, self.access)
        self._runner = asyncio.Runner()
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._live.close())
        self._runner.close()
        self._source.close()
        self._source._pool.shutdown()
        self._folder.cleanup()
        self._complaints.__exit__()

    def seeds(self) -> list[bytes]:
        cases: list[Any] = [["GET", path, "", [], b"", who] for path in _PATHS for who in (0, COOKIE)]
        cases += [["GET", path, text, [], b"", COOKIE] for path in _PATHS[6:17] for text in _QUERY_STRINGS]
        cases += [["GET", "/api/tasks", f"query={quote(repr(query))}", [], b"", BEARER] for query in _QUERIES]
        cases += [["GET", "/api/about", "", [header], b"", COOKIE] for header in _HEADERS]
        body = msgspec.json.encode({"query": '{"state": "failed"}', "session": "", "dry_run": True, "engines": [0]})
        json = ["content-type", "application/json"]
        cases += [
            ["POST", path, "", [json], body, who] for path in _PATHS[-6:] for who in (0, COOKIE, COOKIE | KEY, BEARER)
        ]
        cases += [["GET", "/", f"token={TOKEN}", [], b"", 0], ["GET", "/", "token=x", [], b"", OTHER_HOST]]
        return [msgspec.msgpack.encode(case) for case in cases]

    def mutate(self, case: bytes, rng: Random) -> bytes:
        """One more header, now and then; and mostly somebody who may see something: a refusal is soon looked at."""
        if rng.random() < 0.5:
            try:
                made = msgspec.msgpack.decode(mutations.change_packed(case, rng, self.atoms), type=list[Any])
                made[5] = COOKIE if made[0] == "GET" else COOKIE | KEY
                return msgspec.msgpack.encode(made)
            except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, OverflowError):
                pass
        if rng.random() < 0.15:
            try:
                made = msgspec.msgpack.decode(case, type=list[Any])
                made[3].append(list(rng.choice(_HEADERS)))
                return msgspec.msgpack.encode(made)
            except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, AttributeError):
                pass
        return mutations.change_packed(case, rng, self.atoms)

    def run(self, case: bytes) -> None:
        try:
            method, path, query, headers, body, who = msgspec.msgpack.decode(
                case, type=tuple[str, str, str, list[tuple[str, str]], bytes, int]
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if not path.startswith("/"):
            path = f"/{path}"
        sent = [("host", "evil.example" if who & OTHER_HOST else f"127.0.0.1:{PORT}"), *headers]
        if who & COOKIE:
            sent.append(("cookie", f"{self.access.cookie_name}={self.access.cookie}"))
        if who & BEARER:
            sent.append(("authorization", f"Bearer {TOKEN}"))
        if who & KEY:
            sent.append((ACTION_HEADER, self.access.action_key))
        # The server takes headers as bytes, and gives the path with its escapes undone.
        named = [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in sent
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(), "root_path": "", "query_string": query.encode("ascii", "replace"),
            "headers": named,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT),
        }  # fmt: skip
        status, answer = self._runner.run(self._ask(scope, body))
        if status >= 500 and status != 503:
            raise Finding(f"{method} {path!r:.200}: status {status}: {answer[:300]!r}")
        shows = b" ".join(value for _, value in named) + scope["query_string"]
        has_token = any(secret.encode() in shows for secret in (TOKEN, self.access.cookie))
        if not has_token:
            self._check_refusal(method, path, status, answer)
        self._complaints.check()

    def _check_refusal(self, method: str, path: str, status: int, answer: bytes) -> None:
        is_open = path in _OPEN_PATHS and method == "GET"
        if status < 400 and not is_open:
            raise Finding(f"{method} {path!r:.200} is answered without the token: {status}")
        for secret in (TOKEN.encode(), self.access.cookie.encode(), self.access.action_key.encode(), MARK):
            if secret in answer:
                raise Finding(f"{method} {path!r:.200}: a secret or a record in an answer without the token")

    async def _ask(self, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
        """The status and the answer. The browser leaves when it has sent its body: a stream of events ends then."""
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        started, answer = [0], bytearray()
        has_ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            if scope["path"].removesuffix("\n") != "/api/events":  # the end of a line is the end of a path
                await has_ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started[0] = message["status"]
            else:
                answer.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        return started[0], bytes(answer)
