"""The broadcast view: a direct view under the name that programs for large clusters use."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import ViewClient
from .direct import DirectView
from .flags import yes_or_no


class BroadcastView(DirectView):
    """A direct view. Here every direct view broadcasts: a call's arguments are pickled and sent once, for all engines.

    Attributes
    ----------
    is_coalescing : bool
        Accepted, and changes nothing: values come in the order of the targets, and `AsyncResult.engine_id` names them.
    """

    FLAGS: ClassVar[dict[str, str]] = {
        **DirectView.FLAGS,
        "is_coalescing": "accepted; values come in the order of the targets",
    }

    def __init__(self, client: ViewClient, targets: Any = "all", **flags: Any) -> None:
        self.is_coalescing = False
        super().__init__(client, targets, **flags)

    def _checked_flag(self, name: str, value: Any) -> Any:
        return yes_or_no(name, value) if name == "is_coalescing" else super()._checked_flag(name, value)

    def __repr__(self) -> str:
        return super().__repr__().replace("<DirectView", "<BroadcastView", 1)
