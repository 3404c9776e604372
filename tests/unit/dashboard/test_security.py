"""Who may ask the dashboard: the guard by itself, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from engineroom.dashboard.security import ACTION_HEADER, HEADERS, Access, Guard, new_token

HOST = "127.0.0.1:8700"


@pytest.fixture
def access() -> Access:
    return Access(new_token(), 8700, hosts=["Hub.example"])


def asked(access: Access, path: str = "/api/tasks", method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of the answer; 200: the request went through."""
    path, _, query = path.partition("?")
    given = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(Guard(PlainTextResponse("through"), access)(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def cookie(access: Access) -> str:
    return f"{access.cookie_name}={access.cookie}"


def test_the_cookie_or_the_token_opens(access: Access):
    assert asked(access)[0] == 401
    assert asked(access, cookie=cookie(access))[0] == 200
    assert asked(access, cookie=f"other=1; {cookie(access)}")[0] == 200
    assert asked(access, authorization=f"Bearer {access.token}")[0] == 200
    assert asked(access, authorization=f"bearer  {access.token}")[0] == 200


@pytest.mark.parametrize(
    "text", ["", "=", ";;", "engineroom-8700", "engineroom-8700=", "engineroom-8700=\xff\xfe", 'a="']
)
def test_a_broken_cookie_is_none(access: Access, text: str):
    assert asked(access, cookie=text)[0] == 401


def test_the_secrets_are_three_and_none_tells_another(access: Access):
    secrets = {access.token, access.cookie, access.action_key}
    assert len(secrets) == 3
    assert asked(access, authorization=f"Bearer {access.cookie}")[0] == 401
    assert asked(access, cookie=f"{access.cookie_name}={access.token}")[0] == 401
    assert asked(access, f"/?token={access.cookie}")[0] == 401
    assert Access(access.token, 1, read_only=False).cookie == access.cookie, "the same token, the same cookie"
    assert new_token() != new_token()


def test_the_link_lets_in_from_anywhere_and_shows_nothing(access: Access):
    status, headers = asked(access, f"/?token={access.token}", sec_fetch_site="cross-site")
    assert status == 200
    assert access.cookie in headers["set-cookie"]
    assert asked(access, f"/api/tasks?token={access.token}")[0] == 401, "only the first page takes it"
    assert asked(access, f"/?token={access.token}", "POST")[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("LOCALHOST:1", 200), ("[::1]", 200), ("hub.example", 200), ("hub.example:443", 200),
     ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("hub.example.evil", 421), ("", 421), ("[", 421)],
)  # fmt: skip
def test_only_our_names_are_answered(access: Access, host: str, status: int):
    assert asked(access, cookie=cookie(access), host=host)[0] == status


def test_an_action_needs_all_of_it(access: Access):
    kind = "application/json; charset=utf-8"
    right = {"cookie": cookie(access), ACTION_HEADER: access.action_key, "content_type": kind}
    assert asked(access, method="POST", **right)[0] == 200
    for name in right:
        assert asked(access, method="POST", **{k: v for k, v in right.items() if k != name})[0] in (401, 403, 415)
    assert asked(access, method="POST", **right, origin=f"http://{HOST}")[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1", "x"):
        assert asked(access, method="POST", **right, origin=origin)[0] == 403
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert asked(access, method=method, **right)[0] == 405


def test_read_only_refuses_also_those_with_the_token(access: Access):
    access.read_only = True
    headers = {"authorization": f"Bearer {access.token}", "content_type": "application/json"}
    assert asked(access, method="POST", **headers)[0] == 403


def test_every_answer_binds_the_browser(access: Access):
    for _, headers in (asked(access), asked(access, cookie=cookie(access)), asked(access, host="x")):
        assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()


@pytest.mark.parametrize("origin", ["http://[x", "http://[::1", "http://]"])
def test_an_origin_that_is_no_address_is_another_site(access: Access, origin: str):
    assert asked(access, origin=origin)[0] == 403
    assert asked(access, origin=origin, cookie=cookie(access))[0] == 403
