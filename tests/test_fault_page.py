"""The page of faults is what the marks of the tests say."""

from __future__ import annotations

from pathlib import Path

from support.faults import FAULTS, cases_of_faults, page

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"


def test_the_page_is_what_the_marks_say() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.support.faults > docs/faults.md`"


def test_marks_name_faults() -> None:
    assert set(cases_of_faults()) <= set(FAULTS)


def test_a_fault_without_a_test_says_why() -> None:
    shown = cases_of_faults()
    assert [number for number, fault in FAULTS.items() if number not in shown and not fault.gap] == []


def test_a_mark_is_found_in_the_source(tmp_path: Path) -> None:
    source = "import pytest\n\n@pytest.mark.slow\n@pytest.mark.fault(3, 5)\ndef test_one():\n    pass\n"
    (tmp_path / "test_some.py").write_text(source)
    assert cases_of_faults(tmp_path) == {3: [("test_some.py", "one")], 5: [("test_some.py", "one")]}
