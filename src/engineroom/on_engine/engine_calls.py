"""The functions that views call on engines for their own methods: push, pull, scatter, clear, properties, …

They work on the namespace and the properties of the engine that calls them. They travel by name. What a user's own
call does is not here: the engine's executor does that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..wire import modules
from ..wire.functions import lent, main_namespace
from ..wire.parts import Part
from ..wire.script_globals import execute
from .engine_properties import properties

#: Names of a fresh namespace; `clear` leaves these.
_BUILT_IN = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__", "__builtin__", "__file__")


class Reference:
    """Stands for an expression that is evaluated in the engine's namespace, where the call is unpickled.

    >>> view.apply(len, er.Reference("data"))   # doctest: +SKIP
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference is made from a str, not {type(name).__name__}")
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return evaluate, (self.name,)

    def __repr__(self) -> str:
        return f"<Reference: {self.name!r}>"


def evaluate(expression: str) -> Any:
    """The value of an expression in the namespace."""
    return execute(compile(expression.strip(), "<Reference>", "eval"), main_namespace())


def call_reference(expression: str, *args: Any, **kwargs: Any) -> Any:
    """Call what an expression in the namespace names."""
    return evaluate(expression)(*args, **kwargs)


def push(values: Mapping[str, Any]) -> None:
    """Bind names in the namespace.

    A name with dots sets an attribute of what the part before its last dot names. What is no name is a target of an
    assignment, as `a[0]`.
    """
    for name, value in values.items():
        whole, _, attribute = name.rpartition(".")
        if not _is_name(name):
            _assign(name, value)
        elif whole:
            setattr(_lookup(whole), attribute, value)
        else:
            main_namespace()[name] = value


def pull(names: str | Sequence[str]) -> Any:
    """The value of a name (dots reach into attributes) or of an expression, or a list for several."""
    if isinstance(names, str):
        return _lookup(names)
    return [_lookup(name) for name in names]


def _is_name(text: str) -> bool:
    """Whether this is a name, or several with dots between them."""
    return all(map(str.isidentifier, text.split(".")))


def _assign(target: str, value: Any) -> None:
    """Assign a value to a target, as `a[0]`."""
    namespace, assigned = main_namespace(), "_engineroom_pushed"
    code = compile(f"{target} = {assigned}", "<push>", "exec")
    namespace[assigned] = value
    try:
        execute(code, namespace)
    finally:
        del namespace[assigned]


def _lookup(name: str) -> Any:
    namespace = main_namespace()
    if name not in namespace and not _is_name(name):
        return evaluate(name)
    first, *rest = name.split(".") if _is_name(name) else [name]
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined on this engine")
    value = namespace[first]
    for attribute in rest:
        value = getattr(value, attribute)
    return value


def pull_part(name: str, dist: str) -> Part:
    """One engine's part of a scattered sequence."""
    return Part(_lookup(name), dist)


def push_part(name: str, part: Any, flatten: bool) -> None:
    """Bind one engine's part of a scattered sequence."""
    if flatten and len(part) == 1:
        part = part.iloc[0] if hasattr(type(part), "iloc") else part[0]  # pandas objects are indexed by labels
    push({name: part})


def apply_to_part(function: Callable[..., Any], *parts: Any) -> Any:
    """Call a function on whole parts. Only records of Engineroom 0.1 name it; they can be run again."""
    return function(*parts)


def map_parts(function: Callable[..., Any], *parts: Any) -> list[Any]:
    """Call a function on each element of the parts. The first error ends it.

    Not by `map`, which would take a StopIteration of the function for its own end.
    """
    if len(parts) == 1:
        return [function(item) for item in parts[0]]
    return [function(*items) for items in zip(*parts, strict=True)]


def map_items(
    function: Callable[..., Any], parts: Sequence[Any], is_of_item: Callable[[int, BaseException], bool]
) -> list[Any]:
    """Call a function on each element of the parts, also after an error. An item that failed has None in the list.

    `is_of_item` is called with the index of an item and what it raised. If it returns False, the error ends the call.
    """
    values: list[Any] = []
    keep = values.append
    if len(parts) == 1:
        for item in parts[0]:
            try:
                keep(function(item))
            except BaseException as error:
                if not is_of_item(len(values), error):
                    raise
                keep(None)
        return values
    for items in zip(*parts, strict=True):
        try:
            keep(function(*items))
        except BaseException as error:
            if not is_of_item(len(values), error):
                raise
            keep(None)
    return values


def clear() -> None:
    """Empty the namespace. Names that the running task has brought along stay, and IPython's own (`In`, `Out`, …).

    The shown values that IPython keeps (`Out`, `_`) are dropped.
    """
    namespace = main_namespace()
    for name in list(namespace):
        if name not in _BUILT_IN and name not in lent:
            del namespace[name]
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and shell.user_ns is namespace:
        shell.init_user_ns()
        shell.displayhook.flush()
        shell.push(dict.fromkeys(("_", "__", "___"), ""), interactive=False)  # else IPython takes them for the user's


def use_pickler() -> None:
    """Nothing to do: the pickler of tasks is the same for all."""


def reload_modules(names: Sequence[str] | None = None) -> list[str]:
    """Load modules again (None: the user's modules whose files have changed), and those that use them."""
    return modules.renewed(main_namespace(), lambda: modules.reload(names))


def set_properties(values: Mapping[str, Any]) -> None:
    """Set some of the engine's properties."""
    properties.update(values)


def get_properties(names: Sequence[str] | None) -> dict[str, Any]:
    """Some of the engine's properties, or all."""
    wanted = list(properties) if names is None else names
    return {name: _property(name) for name in wanted}


def has_properties(names: Sequence[str]) -> list[bool]:
    """Whether the engine has properties of these names."""
    return [name in properties for name in names]


def del_properties(names: Sequence[str]) -> None:
    """Remove some of the engine's properties: all of these, or none."""
    for name in names:
        _property(name)
    for name in names:
        del properties[name]


def clear_properties() -> None:
    """Remove all of the engine's properties."""
    properties.clear()


def _property(name: str) -> Any:
    if name not in properties:
        raise KeyError(f"this engine has no property {name!r}; it has {', '.join(properties) or 'none'}")
    return properties[name]


def import_modules(names: Sequence[tuple[str, str | None, Sequence[tuple[str, str]]]]) -> None:
    """Run imports: (module, alias or None, [(name, alias), …]) each. The name "*" stands for all public names."""
    import importlib

    namespace = main_namespace()
    for module, alias, members in names:
        # By `__import__`, because it imports members that are modules; what they are bound to is ours.
        loaded = __import__(module, fromlist=[member for member, _ in members]) if members else None
        for member, under in members:
            if member == "*":
                namespace.update({name: _member(loaded, name) for name in _public(loaded)})
            else:
                namespace[under] = _member(loaded, member)
        if not members:
            loaded = importlib.import_module(module)
            top = module.partition(".")[0]
            namespace[alias or top] = loaded if alias else sys.modules[top]


def _member(module: Any, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        raise ImportError(f"cannot import name {name!r} from {module.__name__!r}", name=module.__name__) from None


def _public(module: Any) -> Sequence[str]:
    """The names that `from module import *` binds."""
    listed: Sequence[str] | None = getattr(module, "__all__", None)
    return [name for name in vars(module) if not name.startswith("_")] if listed is None else listed
