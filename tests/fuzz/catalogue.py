"""All targets by name. A target's module is imported only when it is wanted: atheris looks at modules as they come."""

from __future__ import annotations

from importlib import import_module

from .target import Target

#: name → module and class
TARGETS = {
    "stream": "stream:StreamTarget",
    "decoding": "decoding:DecodingTarget",
    "controller": "controller:ControllerTarget",
    "query-text": "queries:QueryTextTarget",
    "queries": "queries:QueriesTarget",
    "database-files": "database_files:DatabaseFilesTarget",
    "cluster-files": "cluster_files:ClusterFilesTarget",
    "templates": "templates:TemplatesTarget",
    "batch-answers": "templates:BatchAnswersTarget",
    "dashboard": "dashboard:DashboardTarget",
}


def load(name: str) -> Target:
    """A target by its name."""
    module, _, kind = TARGETS[name].partition(":")
    made: Target = getattr(import_module(f"{__package__}.{module}"), kind)()
    return made
