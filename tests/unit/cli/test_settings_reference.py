"""docs/settings.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from engineroom.cli.ipcontroller import IPController
from engineroom.cli.settings_reference import reference


def test_the_page_of_settings_is_what_the_code_says():
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text() == reference() + "\n", (
        "run `python -m engineroom.cli.settings_reference > docs/settings.md`"
    )


def test_every_setting_of_the_controller_is_in_it():
    made = reference()
    for cls in [IPController, *IPController().classes]:
        for name in cls.class_own_traits(config=True):
            assert f"| `{cls.__name__}.{name}` |" in made
