"""What Prometheus reads, and the dashboard for Grafana that is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import engineroom
from engineroom.dashboard.metrics import METRICS, exposition

NEWS = {
    "live": True, "problem": None, "states": {"completed": 7, "failed": 1}, "unassigned": 3, "held": 2,
    "labels": [{"label": 'a "b"\\\n<c>', "total": 10, "ended": 4}, {"label": None, "left": 5}],
    "hosts": [{"host": "node1", "engines": 2, "busy": 1, "memory": 3 << 20, "completed": 8, "silent": 1}],
    "warnings": [{"text": "x"}],
}  # fmt: skip

LINE = re.compile(r'[a-z_]+(\{[a-z_]+="([^"\\\n]|\\["\\n])*"(,[a-z_]+="([^"\\\n]|\\["\\n])*")*\})? -?[\d.e+]+')


def test_every_line_is_in_the_format_whatever_a_label_says():
    lines = exposition(NEWS).splitlines()
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or LINE.fullmatch(line), line
    assert 'engineroom_tasks{state="failed"} 1' in lines
    assert 'engineroom_completed_total{host="node1"} 8' in lines
    assert 'engineroom_engines_silent{host="node1"} 1' in lines
    assert 'engineroom_tasks_left{label="a \\"b\\"\\\\\\n<c>"} 6' in lines


def test_a_cluster_that_cannot_be_asked_is_down():
    lines = exposition({"live": False, "problem": "gone", "now": 1.0}).splitlines()
    assert "engineroom_up 0" in lines
    assert "engineroom_warnings 1" in lines


def test_the_file_for_grafana_asks_for_metrics_that_there_are():
    file = Path(engineroom.__file__).parent / "dashboard" / "static" / "grafana.json"
    asked = {
        name
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"engineroom_\w+", target["expr"])
    }
    assert asked
    assert asked <= set(METRICS)
