"""Clients and views as HTML. They are given plain facts: nothing is asked of the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ... import markup

#: Engines that are listed.
LISTED = 200


def client_html(
    url: str, engines: Sequence[tuple[int, str, int]], outstanding: int, facts: Iterable[tuple[str, Any]]
) -> str:
    """A client.

    Parameters
    ----------
    engines : sequence of (number, host, process id)
    facts : iterable of (name, value)
        What else is to be said; values of None are left out.
    """
    hosts = dict.fromkeys(host for _, host, _ in engines)
    where = f" on {markup.plural(len(hosts), 'host')}" if hosts else ""
    rows = [(number, host, pid) for number, host, pid in engines[:LISTED]]
    table = markup.table(("engine", "host", "pid"), rows)
    shown = markup.details(f"{markup.plural(len(engines), 'engine')}{where}", table) if engines else "no engines"
    known = [("cluster", url), ("outstanding", markup.plural(outstanding, "task")), *facts]
    return markup.block(markup.bold("Client"), markup.facts(known), shown)


def view_html(title: str, engines: str, outstanding: int, flags: Mapping[str, Any]) -> str:
    """A view; `flags` are those that differ from the defaults."""
    rows = [("engines", engines), ("outstanding", markup.plural(outstanding, "task"))]
    rows += [(name, repr(value)) for name, value in flags.items()]
    return markup.block(markup.bold(title), markup.facts(rows))
