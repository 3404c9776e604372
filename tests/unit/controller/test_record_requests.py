"""Requests about records with bad parameters: errors for the asker, no bugs of the controller."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.controller.requests.record_requests import FROM_STORE
from engineroom.errors import QueryError
from engineroom.messages import FindRecords, GetFunction, PageRecords
from engineroom.stores import DictDB


@pytest.mark.parametrize(
    "body",
    [PageRecords({}, None, -5), PageRecords({}, None, 0), FindRecords({}, limit=-5), GetFunction("zz")],
)
def test_bad_parameters_are_query_errors(body: Any) -> None:
    with pytest.raises(QueryError):
        FROM_STORE[type(body)](DictDB(), body, "")
