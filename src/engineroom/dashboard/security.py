"""Who may talk to the dashboard: checks each request before any page sees it.

A reader has the token: in the link (once; a cookie takes its place), in the cookie, or in a header `Authorization:
Bearer`. An action needs a second key as well, which only pages of this dashboard can read. Requests that other web
sites cause are refused, and so are requests that name another host (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Names by which this host calls itself.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: The header that carries the key for actions.
ACTION_HEADER = "x-engineroom-key"

#: Sent with every answer. Scripts and styles come from the dashboard's own files only; nothing is asked elsewhere.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: What somebody without a token may load: it makes the page that refuses him readable.
_OPEN_PATHS = frozenset({"/static/style.css", "/static/icon.svg"})

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Engineroom</title>
<link rel="icon" href="static/icon.svg">
<link rel="stylesheet" href="static/style.css"></head><body class="refused"><main><h1>{title}</h1>
<p>{text}</p></main></body></html>"""
#: Goes on by itself once it is loaded, so it needs nothing else; some browsers are set not to do that.
_ENTRY = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Engineroom</title>
<meta http-equiv="refresh" content="0;url=./"><link rel="icon" href="static/icon.svg"></head>
<body><a href="./">Open the dashboard</a></body></html>"""


class Access:
    """The secrets of one dashboard, and what they allow.

    Parameters
    ----------
    token : str
        The secret of the link.
    port : int
        Where the dashboard listens. Cookies do not tell ports apart, so the cookie's name has it.
    read_only : bool
        Whether all actions are refused.
    hosts : iterable of str
        More names by which browsers may call this host, as a proxy's.
    """

    def __init__(self, token: str, port: int, *, read_only: bool = False, hosts: Iterable[str] = ()) -> None:
        self.token, self.read_only = token, read_only
        self.hosts = LOOPBACK | {host.lower() for host in hosts}
        self.cookie_name = f"engineroom-{port}"
        self.cookie = self._derived("cookie")
        #: what an action's header has to say
        self.action_key = self._derived("action")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()

    def is_token(self, given: str | None) -> bool:
        """Whether this is the token."""
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def is_bearer(self, headers: Headers) -> bool:
        """Whether a program shows the token in its header."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.is_token(given.strip())

    def has_cookie(self, headers: Headers) -> bool:
        """Whether a browser has been given our cookie."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self.cookie.encode())

    def has_action_key(self, headers: Headers) -> bool:
        """Whether an action comes from a page of ours."""
        return hmac.compare_digest(headers.get(ACTION_HEADER, "").encode(), self.action_key.encode())

    def names_us(self, headers: Headers) -> bool:
        """Whether the request is meant for a host that is ours."""
        given = headers.get("host", "")
        try:
            return (urlsplit(f"//{given}").hostname or "") in self.hosts
        except ValueError:
            return False

    def is_foreign(self, headers: Headers) -> bool:
        """Whether a page of another web site made the browser ask."""
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return True
        origin = headers.get("origin")
        try:
            return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
        except ValueError:  # "http://[x"
            return True


def new_token() -> str:
    """A fresh secret: 256 bits."""
    return secrets.token_urlsafe(32)


class Guard:
    """The outermost layer of the application: lets a request through, or answers it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._answer(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None: it may pass."""
        access, headers, path, method = self._access, Headers(scope=scope), scope["path"], scope["method"]
        if not access.names_us(headers):
            return _refused(421, "Another host is meant", "This dashboard serves this host only. Behind a proxy, start "
                            "it with --allow-host=NAME, for the name in the address bar.")  # fmt: skip
        token = QueryParams(scope["query_string"]).get("token")
        if method == "GET" and path == "/" and token is not None:
            # Also from a link on another site, as a notebook's: this answer shows nothing and changes nothing.
            return self._let_in() if access.is_token(token) else _refused(401, "This link is not valid", _WHERE)
        if access.is_foreign(headers):
            return _refused(403, "Refused", "Another web site made your browser ask this.")
        if path in _OPEN_PATHS and method == "GET":
            return None
        is_program = access.is_bearer(headers)
        if not is_program and not access.has_cookie(headers):
            return _refused(401, "Open the dashboard with its link", _WHERE)
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return _refused(405, "Refused", "There are GET and POST.")
        if access.read_only:
            return _refused(403, "Read only", "This dashboard was started with --read-only: it changes nothing.")
        if not is_program and not access.has_action_key(headers):
            return _refused(403, "Refused", "An action needs the key that only the dashboard's own page has.")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, "Refused", "An action is sent as JSON.")
        return None

    def _let_in(self) -> Response:
        """Give the browser its cookie, and have it open the page without the token in the address.

        A redirect would not do: the cookie is SameSite=Strict, and is not sent along a redirect that began at a link
        on another site. The page that is given here asks by itself.
        """
        access = self._access
        response = HTMLResponse(_ENTRY)
        # Without a path, the cookie is for the folder of this page, whatever prefix a proxy gives it.
        response.set_cookie(access.cookie_name, access.cookie, path=None, httponly=True, samesite="strict")
        return response


_WHERE = "<code>engineroom dashboard</code> prints the link, and <code>rc.dashboard_url</code> has it."


def _refused(status: int, title: str, text: str) -> Response:
    return HTMLResponse(_PAGE.format(title=title, text=text), status_code=status)
