"""What a user meets when something goes wrong: errors that name their input, waits that end, cells after `clear`."""

from __future__ import annotations

import pytest

import engineroom as er


def shown(view: er.DirectView, code: str) -> list[str]:
    """What a cell shows, on each engine."""
    return [reply.data.get("text/plain", "") for reply in view.execute(code, silent=False).get()]


# ---------------------------------------------------------------------------------------------- cells after clear


@pytest.mark.parametrize(
    "before", ["1", "_oh = {}\nIn = 3\nget_ipython = None", "del _oh, In, Out, get_ipython", "globals().clear()"]
)
def test_cells_show_values_after_clear(rc: er.Client, before: str):
    shown(rc[:], before)
    rc.clear(block=True)
    assert shown(rc[:], "a = 20\na + 1") == ["21", "21"]
    assert shown(rc[:], "_ + 1") == ["22", "22"]
    assert rc[0].apply_sync(bool, er.Reference("get_ipython().user_ns is globals()"))


@pytest.mark.parametrize("code", ["del _oh, In, Out", "globals().clear()", "%reset -f"])
def test_a_cell_that_deletes_names_of_ipython_does_not_break_the_next(rc: er.Client, code: str):
    shown(rc[0:1], code)
    assert shown(rc[0:1], "1 + 1") == ["2"]


def test_clear_drops_the_values_that_cells_have_shown(rc: er.Client):
    shown(rc[0:1], "'kept'")
    rc.clear(block=True)
    assert "kept" not in shown(rc[0:1], "Out")[0]
