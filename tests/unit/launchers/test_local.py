"""A process of this host that cannot be started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engineroom.errors import LaunchError
from engineroom.launchers.local import LocalProcess


@pytest.mark.parametrize(
    ("args", "environment", "which"),
    [
        (["true"], {"LONG_ONE": "x" * 200_000}, "the variable LONG_ONE, 200,008 bytes"),
        (["true", "--much=" + "x" * 200_000], {}, "the argument '--much=x+'…, 200,007 bytes"),
    ],
)
def test_what_is_too_long_for_the_system_is_named(
    tmp_path: Path, args: list[str], environment: dict[str, str], which: str
) -> None:
    process = LocalProcess(args, tmp_path / "log", environment=environment)
    with pytest.raises(LaunchError, match=f"the longest is {which}"):
        process.start()
    assert process.state == "before"
    assert os.listdir(tmp_path) == ["log"]
