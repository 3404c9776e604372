"""What is said when this process may not open enough."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from engineroom.descriptors import require_descriptors
from engineroom.errors import EngineroomError


@pytest.mark.parametrize(
    ("hard", "advice"), [(4096, r"raise the limit \(`ulimit -n 4096`\)"), (20, r"administrator sets \(`ulimit -Hn`\)")]
)
def test_the_advice_can_be_followed(monkeypatch: pytest.MonkeyPatch, hard: int, advice: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (20, hard))
    with pytest.raises(EngineroomError, match=f"A client needs .* may open 0 more: its limit is 20.*{advice}"):
        require_descriptors("A client")
