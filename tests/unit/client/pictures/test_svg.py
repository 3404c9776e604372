"""What all pictures have in common: texts of others are texts, files, colours, durations. No cluster."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from engineroom.client.pictures import svg
from engineroom.client.pictures.graph import GraphPicture
from engineroom.client.pictures.history import HistoryPlot
from engineroom.client.pictures.svg import Picture
from engineroom.client.pictures.timeline import Ran, Timeline
from engineroom.errors import ConfigError

from .looking import HOSTILE, at, ran, root_of, spans_of

PICTURES = [
    Timeline([Ran(HOSTILE, 0, at(0), at(9), "completed", HOSTILE, HOSTILE)], named=True),
    Timeline([ran(i, 0, i, i + 1, label=HOSTILE) for i in range(1000)]),
    GraphPicture({HOSTILE: []}, {HOSTILE: "failed"}),
    HistoryPlot(spans_of([HOSTILE]), {}, "label", (at(0), at(20))),
]


@pytest.mark.parametrize("picture", PICTURES)
def test_texts_of_others_are_texts(picture: Picture):
    root_of(picture)
    assert "<script" not in picture.svg()
    assert "\x1b" not in picture.svg()
    picture.svg().encode()


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_saved_as_a_file(picture: Picture, tmp_path: Path):
    path = picture.save(tmp_path / "picture.svg")
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert "prefers-color-scheme:dark" in path.read_text()
    with pytest.raises(ConfigError, match=r"name it ….svg"):
        picture.save(tmp_path / "picture.png")


@pytest.mark.parametrize("picture", PICTURES)
def test_a_notebook_shows_it_in_the_colour_of_its_text(picture: Picture):
    html = picture._repr_html_()
    assert 'fill="currentColor"' in html
    assert "background" not in html


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (2e-6, "2 µs"),
        (0.0032, "3.2 ms"),
        (1.5, "1.5 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (200_000, "2 days 7 h"),
    ],
)
def test_durations(seconds: float, shown: str):
    assert svg.duration(seconds) == shown
