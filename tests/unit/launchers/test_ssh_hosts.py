"""How many engines each host gets, from what a user writes. Nothing is started."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.errors import ConfigError
from engineroom.launchers.ssh import SSHOptions


@pytest.mark.parametrize(
    ("hosts", "n", "expected"),
    [
        ("node1:2,node2:3", None, {"node1": 2, "node2": 3}),  # as on a command line
        (" node1:2 , me@node2:1 ", 3, {"node1": 2, "me@node2": 1}),
        ({"node1": 2, "node2": [1, ["--debug"]], "node3": {"n": 4}}, None, {"node1": 2, "node2": 1, "node3": 4}),
        ("node1,node2", 3, {"node1": 2, "node2": 1}),
        (["node1", "node2"], None, {"node1": 1, "node2": 1}),
    ],
)
def test_hosts_and_their_engines(hosts: Any, n: int | None, expected: dict[str, int]):
    assert SSHOptions(hosts=hosts).counts(n) == expected


@pytest.mark.parametrize(
    ("hosts", "n", "said"),
    [
        ("", None, "the launcher ssh needs the option hosts"),
        ("node1:x", None, "hosts is a list like node1:4,node2:2; got 'node1:x'"),
        ("node1:0", None, "hosts gives each host a number of engines, 1 or more"),
        ("node1:2,node2:2", 3, "n=3, but hosts has 4 engines in all"),
        ("-oProxyCommand=x:1", None, "is no name of a host"),
        ({"node1": "four"}, None, r"hosts\['node1'\] cannot be used"),
    ],
)
def test_hosts_that_make_no_sense(hosts: Any, n: int | None, said: str):
    with pytest.raises(ConfigError, match=said):
        SSHOptions(hosts=hosts).counts(n)
