"""Statements with lists of values: a few kinds of them, as each that SQLite has had is kept ready, and takes memory."""

from __future__ import annotations

from engineroom.stores.sqlite.where import one_of_few


def test_lists_of_any_length_have_few_statements():
    made = {one_of_few("seq", list(range(count))).sql for count in range(501)}
    assert len(made) == 11  # 0, 1, 2, 4 … 512


def test_a_list_stands_for_its_values_and_no_others():
    for count in range(20):
        found = one_of_few("seq", list(range(count)))
        assert set(found.parameters) == set(range(count))
        assert found.sql.count("?") == len(found.parameters)
