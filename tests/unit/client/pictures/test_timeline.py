"""Timelines: rows, bars, and cells of gathered tasks, of which none is left out. No cluster."""

from __future__ import annotations

import re

import pytest

from engineroom.client.pictures import svg, timeline
from engineroom.client.pictures.svg import FAILED, OTHERS
from engineroom.client.pictures.timeline import Ran, Timeline
from engineroom.errors import ConfigError

from .looking import LARGEST, at, fills, ran, root_of, texts, titles


def test_a_timeline_is_a_list_of_rows_by_start_with_those_that_did_not_run_last():
    late, early, never = ran(0, 1, 5, 6), ran(1, 0, 1, 2), Ran("id-2", None, None, None, "aborted")
    rows = Timeline([late, never, early])
    assert rows == [early, late, never]
    assert repr(rows) == (
        "<Timeline: 2 tasks on 2 engines, 5 s, engines 20% busy, 1 did not run. save('timeline.svg') makes a file>"
    )


def test_each_of_a_few_tasks_has_a_bar_that_says_what_it_was():
    rows = Timeline([ran(0, 3, 0, 1.5, label="fit", function="f"), ran(1, 7, 1, 2, state="failed", label="fit")])
    found = titles(rows)
    assert len(found) == 2
    assert found[0].startswith("id-0\nf (fit)\nengine 3, completed, 1.5 s from ")
    assert {"3", "7", "fit 2", "failed 1"} <= set(texts(rows))
    assert FAILED in fills(rows)


def test_colours_are_by_label_if_there_are_labels_else_by_function():
    assert Timeline([ran(0, 0, 0, 1, label="a"), ran(1, 0, 1, 2)]).by == "label"
    assert Timeline([ran(0, 0, 0, 1, function="f")]).by == "function"
    assert "no label 1" in texts(Timeline([ran(0, 0, 0, 1, label="a"), ran(1, 0, 1, 2)]))
    assert {"failed 1", "completed 1"} <= set(
        texts(Timeline([ran(0, 0, 0, 1, state="failed"), ran(1, 0, 1, 2)], by="state"))
    )
    with pytest.raises(ConfigError, match=r"label, function, state; got 'colour'"):
        Timeline([], by="colour")


def test_a_running_task_reaches_until_now():
    rows = Timeline([ran(0, 0, 0, 1), ran(1, 1, 0, None, state="running")], now=at(4))
    assert "4 s" in repr(rows)
    assert "1 running" in repr(rows)
    assert len(titles(rows)) == 2


def test_tasks_that_wait_are_told_apart_from_those_that_did_not_run():
    rows = [
        Ran("w", None, None, None, "pending"),
        Ran("w2", None, None, None, "pending"),
        Ran("a", None, None, None, "aborted"),
    ]
    assert "2 waiting, 1 did not run" in repr(Timeline([ran(0, 0, 0, 1), *rows]))


@pytest.mark.parametrize("rows", [[], [Ran("x", None, None, None)], [ran(0, 0, 1, 1)], [ran(0, 0, 2, 1)]])
def test_a_timeline_of_nothing_or_of_no_time_is_a_picture_too(rows):
    root_of(Timeline(rows))


def gathered_seconds(picture: Timeline, colour: str) -> float:
    """The area of the cells of a colour."""
    area = 0.0
    for element in root_of(picture).iter():
        if element.tag.endswith("}path") and element.get("fill") == colour:
            area += sum(float(w) * float(h) for w, h in re.findall(r"h([\d.]+)v([\d.]+)h-", element.get("d", "")))
    return area


def test_many_tasks_are_gathered_and_none_is_left_out():
    each = timeline.SINGLE // 2
    rows = [ran(i, 0, i, i + 1, label="a") for i in range(each * 2)]
    rows += [ran(i, 1, i, i + 0.5, label="b") for i in range(each * 2)]
    picture = Timeline(rows)
    assert titles(picture) == []
    assert {f"a {2 * each}", f"b {2 * each}"} <= set(texts(picture))
    areas = [gathered_seconds(picture, colour) for colour in svg.COLOURS[:2]]
    assert areas[0] == pytest.approx(2 * areas[1], rel=0.05), "half the time is half the area"


def test_a_short_task_among_long_ones_and_a_failure_among_thousands_are_seen():
    rows = [ran(i, 0, i, i + 0.9, label="long") for i in range(2000)]
    rows += [
        ran(2000, 0, 1000.95, 1000.950001, label="short"),
        ran(2001, 0, 500.95, 500.96, state="failed", label="short"),
    ]
    picture = Timeline(rows)
    assert gathered_seconds(picture, svg.COLOURS[1]) > 0
    assert gathered_seconds(picture, FAILED) > 0


@pytest.mark.parametrize(("engines", "tasks"), [(1, 60_000), (64, 20_000), (10_000, 20_000), (200, 300)])
def test_pictures_stay_small(engines: int, tasks: int):
    names = [None, *(f"label {i}" for i in range(30))]
    rows = [
        ran(i, i % engines, i // engines, i // engines + (i * 7 % 11) / 10, label=names[i * i % 31])
        for i in range(tasks)
    ]
    picture = Timeline(rows)
    assert len(picture.svg()) < LARGEST
    assert OTHERS in fills(picture)
    rows_drawn = [text for text in texts(picture) if re.fullmatch(r"\d+(-\d+)?", text)]
    assert len(rows_drawn) < 120
    height = float(root_of(picture).get("height", "0"))
    assert height < 620


def test_nodes_are_written_into_bars_with_room():
    rows = [Ran("wide", 0, at(0), at(10)), Ran("no room at all", 0, at(10), at(10.01))]
    shown = texts(Timeline(rows, named=True))
    assert "wide" in shown
    assert "no room at all" not in shown
