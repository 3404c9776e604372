"""The controller: the process in the middle. `loop` runs it."""

from types import ModuleType

from ..wire.former_names import submodule


def __getattr__(name: str) -> ModuleType:
    """`engineroom.controller.dependency`, which programs written for ipyparallel name without an import."""
    return submodule(__name__, name)
