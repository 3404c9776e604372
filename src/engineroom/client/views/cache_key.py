"""The key under which a call is looked up in the database, under the flag `cache`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ...ids import Digest
from ...messages import CacheKey, Function, TaskOptions
from ...wire.identity import arguments_digest, code_digest
from ...wire.modules import Needing, needs_of

#: Digests of functions kept.
KEPT = 1024

_NO_KEY = CacheKey()
#: digest of a function's pickle → digest of its code
_code: OrderedDict[Digest, str] = OrderedDict()


def cache_key(
    options: TaskOptions | None,
    function: Any,
    pickled: Function,
    kind: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> CacheKey:
    """The key of a call: equal calls have equal keys. Empty if the call cannot be compared.

    Calls that take the results of other tasks, or wait for some, are not compared: their meaning depends on these.
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


def with_needs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments, as they are sent when their call is compared: the engine sees which modules they need."""
    needs = needs_of(*args, *kwargs.values())
    if not needs:
        return args, kwargs
    if args:
        return (Needing(args[0], needs), *args[1:]), kwargs
    first = next(iter(kwargs))
    return args, {**kwargs, first: Needing(kwargs[first], needs)}
