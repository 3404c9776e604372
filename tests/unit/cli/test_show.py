"""What `engineroom show --follow` prints of a text that grows."""

from __future__ import annotations

import pytest

from engineroom.cli.commands.show import news
from engineroom.controller.requests.running_tasks import CUT


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "one", "one"),
        ("one ", "one two", "two"),
        ("one", "one", ""),
        (f"{CUT}two ", "one two three", "three"),  # the whole output comes at the end
        ("first attempt", "second", "second"),
    ],
)
def test_what_is_new(before: str, now: str, new: str):
    assert news(before, now) == new
