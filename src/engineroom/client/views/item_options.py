"""Labels and metadata of the items of a map: the options of each item's task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import ConfigError
from ...messages import TaskOptions
from ..records.query_args import plain_label, plain_metadata
from .base import replaced


def options_of_items(options: TaskOptions | None, labels: Any, metadata: Any, count: int) -> list[TaskOptions] | None:
    """The options of each task of a map with one task per item; None: all tasks have the same.

    Parameters
    ----------
    options : TaskOptions or None
        Those of all items.
    labels : iterable of str or None
        One for each item; None in it: the label of all.
    metadata : iterable of mappings
        One for each item; it is added to the metadata of all.
    count : int
        How many items there are.

    Raises
    ------
    ValueError
        There are more labels or metadata than items, or fewer.
    TypeError, ConfigError
        They are not what they should be; the message names the item.
    """
    if labels is None and metadata is None:
        return None
    if isinstance(labels, str):
        raise TypeError(f"labels is a list with a label for each item; got {labels!r}. label= is for all items")
    if isinstance(metadata, Mapping):
        raise TypeError(
            "metadata is a list with a dict for each item; got one dict. Set the view's flag `metadata` for all items"
        )
    given = options or TaskOptions()
    made = [given] * count
    if labels is not None:
        named = zip(made, _one_each("labels", labels, count), strict=True)
        made = [one if label is None else replaced(one, label=plain_label(label)) for one, label in named]
    if metadata is not None:
        described = zip(made, _one_each("metadata", metadata, count), strict=True)
        common = given.metadata or {}
        made = [
            replaced(one, metadata={**common, **_of_item(index, about)}) for index, (one, about) in enumerate(described)
        ]
    return made


def check_one_task_per_item(chunksize: int | None) -> None:
    """Raise ValueError for a chunksize that contradicts labels or metadata for each item."""
    if chunksize not in (None, 1):
        raise ValueError(
            f"labels= and metadata= are for single items, so each item is a task of its own: chunksize={chunksize} "
            "contradicts that"
        )


def _one_each(name: str, values: Any, count: int) -> list[Any]:
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} is a list with an entry for each item; got {values!r}")
    listed = list(values)
    if len(listed) != count:
        raise ValueError(f"{name} has {len(listed):,} entries, but the map has {count:,} items; nothing was sent")
    return listed


def _of_item(index: int, about: Any) -> dict[str, Any]:
    try:
        return plain_metadata(about)
    except ConfigError as error:
        raise ConfigError(f"metadata of item {index}: {error}") from None
