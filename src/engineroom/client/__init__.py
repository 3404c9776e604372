"""The user's end: client, views, results."""

from .client import Client

__all__ = ["Client"]
