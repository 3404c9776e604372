"""What a call is looked up by, under the flag `cache`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ...ids import Digest
from ...messages import CacheKey, Function, TaskOptions
from ...wire.identity import arguments_digest, code_digest

#: Digests of functions kept.
KEPT = 1024

_NO_KEY = CacheKey()
#: by what they travel under: where that is the same, so is what they do
_code: OrderedDict[Digest, str] = OrderedDict()


def cache_key(
    options: TaskOptions | None,
    function: Any,
    pickled: Function,
    kind: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> CacheKey:
    """What makes a call equal to others; empty if it cannot be compared.

    A call that takes the results of other tasks, or has to wait for some, is not compared: what it means depends on
    them.
    """
    if options is not None and (options.inputs or options.after is not None or options.follow is not None):
        return _NO_KEY
    code = _code.get(pickled.digest)
    if code is None:
        code = _code[pickled.digest] = code_digest(function)
        if len(_code) > KEPT:
            _code.popitem(last=False)
    arguments = arguments_digest(kind, args, kwargs) if code else ""
    return CacheKey(code, arguments) if arguments else _NO_KEY
