"""Which file a url names."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.records.database_urls import file_of, url_of


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///home/me/tasks.db", "/home/me/tasks.db"),
        ("sqlite:////home/me/tasks.db", "/home/me/tasks.db"),
        ("sqlite:///home/me/new tasks.db", "/home/me/new tasks.db"),
        ("mongodb://host/database", None),
        ("memory", None),
        ("/home/me/tasks.db", None),
        ("", None),
    ],
)
def test_a_url_names_a_file_or_none(url: str, file: str | None):
    assert file_of(url) == (None if file is None else Path(file))


def test_the_url_of_a_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert url_of("tasks.db") == f"sqlite://{tmp_path}/tasks.db"
    assert file_of(url_of("tasks.db")) == tmp_path / "tasks.db"
