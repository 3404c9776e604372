"""The state of a cluster as Prometheus reads it (`/metrics`, in its text format)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import _version

#: name → (type, what it is)
METRICS = {
    "engineroom_up": ("gauge", "1 if the cluster answers, 0 if only its records do or nothing does"),
    "engineroom_info": ("gauge", "the version, always 1"),
    "engineroom_tasks": ("gauge", "records of tasks by state"),
    "engineroom_tasks_unassigned": ("gauge", "tasks that wait for an engine"),
    "engineroom_tasks_held": ("gauge", "tasks that engines have been given and not finished"),
    "engineroom_tasks_left": ("gauge", "unfinished tasks by label, of the labels with most"),
    "engineroom_engines": ("gauge", "engines by host"),
    "engineroom_engines_busy": ("gauge", "engines by host that have something to do"),
    "engineroom_engines_silent": ("gauge", "engines by host that get no more tasks, as nothing is heard of them"),
    "engineroom_engine_memory_bytes": ("gauge", "memory of the engines of a host, as of the tasks that they run"),
    "engineroom_completed_total": ("counter", "tasks that the present engines of a host have completed"),
    "engineroom_warnings": ("gauge", "warnings that the dashboard shows"),
}


def exposition(news: Mapping[str, Any]) -> str:
    """The text for Prometheus of what the overview shows."""
    samples: dict[str, list[str]] = {}
    for name, labels, value in _samples(news):
        samples.setdefault(name, []).append(f"{name}{_braces(labels)} {value:g}" if isinstance(value, float) else
                                            f"{name}{_braces(labels)} {value}")  # fmt: skip
    lines = []
    for name, (kind, about) in METRICS.items():
        if name in samples:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def _samples(news: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], int | float]]:
    yield "engineroom_up", {}, int(bool(news.get("live")))
    yield "engineroom_info", {"version": _version.__version__}, 1
    for state, count in (news.get("states") or {}).items():
        yield "engineroom_tasks", {"state": state or ""}, count
    for row in news.get("labels") or ():
        left = row["left"] if "left" in row else row["total"] - row["ended"]
        yield "engineroom_tasks_left", {"label": row["label"] or ""}, left
    for host in news.get("hosts") or ():
        labels = {"host": host["host"]}
        yield "engineroom_engines", labels, host["engines"]
        yield "engineroom_engines_busy", labels, host["busy"]
        yield "engineroom_engines_silent", labels, host["silent"]
        yield "engineroom_engine_memory_bytes", labels, host["memory"]
        yield "engineroom_completed_total", labels, host["completed"]
    if news.get("live"):
        yield "engineroom_tasks_unassigned", {}, news["unassigned"]
        yield "engineroom_tasks_held", {}, news["held"]
    yield "engineroom_warnings", {}, len(news.get("warnings") or ()) + int(bool(news.get("problem")))


def _braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
