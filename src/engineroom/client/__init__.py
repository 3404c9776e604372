"""The user's end: client, views, results."""

from types import ModuleType

from ..wire.former_names import submodule
from .client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> ModuleType:
    """`engineroom.client.view` and its like, which programs written for ipyparallel name without an import."""
    return submodule(__name__, name)
