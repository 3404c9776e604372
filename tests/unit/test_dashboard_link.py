"""The link of a dashboard, read from its file."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from engineroom.config import dashboard_file, dashboard_url, write_private


def test_the_link_is_given_while_somebody_listens(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/?token=x"
        text = json.dumps({"url": url, "pid": 1, "host": socket.gethostname()})
        write_private(dashboard_file(tmp_path, "a"), text)
        assert dashboard_url(tmp_path, "a") == url
        assert dashboard_url(tmp_path, "b") is None
        write_private(dashboard_file(tmp_path, "elsewhere"), text.replace(socket.gethostname(), "node99.example"))
        assert dashboard_url(tmp_path, "elsewhere") is None
        dashboard_file(tmp_path, "a").chmod(0o666)
        assert dashboard_url(tmp_path, "a") is None, "another user may have written it"
        dashboard_file(tmp_path, "a").chmod(0o600)
    assert dashboard_url(tmp_path, "a") is None, "the dashboard was killed"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"url": 1, "host": "HOST"}', '{"url": "http://evil.example/", "host": "HOST"}'],
)
def test_a_broken_file_has_no_link(tmp_path: Path, text: str):
    write_private(dashboard_file(tmp_path), text.replace("HOST", socket.gethostname()))
    assert dashboard_url(tmp_path) is None
