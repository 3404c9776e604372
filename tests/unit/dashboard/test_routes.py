"""What the dashboard takes from an address and from the body of an action."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.requests import Request

from engineroom.dashboard.routes import _instant, body_of


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", "-1e308", "1e12", "-1", "soon"])
def test_what_is_no_instant_of_the_calendar_is_refused(text: str):
    with pytest.raises(ValueError):
        _instant(text)


def test_an_instant_is_seconds_since_the_epoch():
    assert (_instant(None), _instant(""), _instant("0"), _instant("1.8e9")) == (None, None, 0.0, 1.8e9)


def test_a_body_that_is_nested_too_deeply_is_refused():
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"[" * 500_000, "more_body": False}

    with pytest.raises(ValueError, match="nested"):
        asyncio.run(body_of(Request({"type": "http", "headers": []}, receive)))
