"""What the tests of pictures share: rows to draw, and a look at what was drawn."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

from engineroom.client.pictures.history import Span
from engineroom.client.pictures.svg import Picture
from engineroom.client.pictures.timeline import Ran

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOSTILE = "</text><script>alert(1)</script>\x1b[31m\x00\ud800\u202e\"'&"
#: Bytes of a picture, at most.
LARGEST = 500_000


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def ran(number: int, engine: int, begin: float, end: float | None, **more) -> Ran:
    return Ran(f"id-{number}", engine, at(begin), None if end is None else at(end), **more)


def root_of(picture: Picture) -> ElementTree.Element:
    """The picture, parsed; it has no elements but those that pictures are made of."""
    root = ElementTree.fromstring(picture.svg())
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "text", "rect", "path", "title"}
    assert not re.search(
        r"nan|inf", " ".join(v for e in root.iter() for k, v in e.attrib.items() if k in ("d", "x", "y"))
    )
    return root


def texts(picture: Picture) -> list[str]:
    return [element.text or "" for element in root_of(picture).iter() if element.tag.endswith("}text")]


def titles(picture: Picture) -> list[str]:
    return [element.text or "" for element in root_of(picture).iter() if element.tag.endswith("}title")]


def fills(picture: Picture) -> list[str]:
    return [element.get("fill", "") for element in root_of(picture).iter()]


def spans_of(names: list[str | None], count: int = 20, seconds: float = 1.0) -> list[Span]:
    return [
        Span(at(k * seconds), seconds, name, 3, 0.01 * (1 + place), 0.02 * (1 + place))
        for k in range(count)
        for place, name in enumerate(names)
    ]
