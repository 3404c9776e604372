"""Classic tasks as objects: code or a function, data in and out, and what happens when it fails."""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ..client.views import flags
from ..config import check_switches


class BaseTask:
    """What all classic tasks have in common. Attributes are given to the constructor, or set afterwards.

    A value that an attribute cannot have raises TypeError or ValueError when it is set.

    Attributes
    ----------
    pull : tuple of str
        Names whose values are fetched after the run; the task fails if one does not exist. Set it to a str or a list.
    push : dict
        Set in the engine's namespace before the run.
    clear_before, clear_after : bool
        Empty the engine's namespace before the run (before `push`), or after it, also when it fails.
    retries : int
        How often it is run again after failing or losing its engine.
    recovery_task : BaseTask or None
        Run when the task has failed for good; its result becomes the task's result. It may have one itself.
    depend : callable or None
        Called on each engine with a dict of its properties: the task may run where it returns true. An exception
        counts as False. The task waits until it is true on some engine.
    priority : int
        Higher ones go first.
    """

    # Defaults are class attributes: an instance holds only what was given.
    pull: tuple[str, ...] = ()
    push: Mapping[str, Any] | None = None
    clear_before = False
    clear_after = False
    retries = 0
    recovery_task: BaseTask | None = None
    depend: Callable[[dict[str, Any]], Any] | None = None
    priority = 0

    #: attribute → its check, which returns the value to keep
    _CHECKS: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "pull": lambda value: _checked_pull(value),
        "push": lambda value: _checked_push(value),
        "clear_before": bool,
        "clear_after": bool,
        "retries": lambda value: flags.whole("retries", value, "a number of times, 0 or more", 0),
        "depend": lambda value: _checked_depend(value),
        "priority": lambda value: flags.whole("priority", value, "a whole number of at most 31 bits", 1 - (1 << 31)),
    }

    def __init__(
        self,
        pull: str | Iterable[str] | None = None,
        push: Mapping[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], Any] | None = None,
        priority: int = 0,
    ) -> None:
        check_switches(clear_before=clear_before, clear_after=clear_after)
        if pull is not None:
            self.pull = pull  # type: ignore[assignment]
        if push is not None:
            self.push = push
        if clear_before:
            self.clear_before = True
        if clear_after:
            self.clear_after = True
        if retries != 0:
            self.retries = retries
        if recovery_task is not None:
            self.recovery_task = recovery_task
        if depend is not None:
            self.depend = depend
        if priority != 0:
            self.priority = priority

    def __setattr__(self, name: str, value: Any) -> None:
        check = self._CHECKS.get(name)
        if check is not None:
            value = check(value)
        elif name == "recovery_task":
            self._check_recovery(value)
        object.__setattr__(self, name, value)

    def _check_recovery(self, value: Any) -> None:
        if value is not None and not isinstance(value, BaseTask):
            raise TypeError(f"a recovery_task is a Task or a MapTask, or None; got {value!r}")
        if value is not None and any(task is self for task in value.chain()):
            raise ValueError(f"{value!r} cannot recover {self!r}: the chain of recovery tasks would be a loop")

    def chain(self) -> list[BaseTask]:
        """This task, its recovery task, the recovery task of that, and so on.

        Raises
        ------
        ValueError
            They form a loop.
        """
        chain = [self]
        while (following := chain[-1].recovery_task) is not None:
            if any(task is following for task in chain):
                raise ValueError(f"the recovery tasks of {self!r} form a loop: {following!r} comes twice")
            chain.append(following)
        return chain

    @property
    def _is_text(self) -> bool:
        """Whether the arguments are only code and names, so that there are no AsyncResults in them."""
        return False

    def _what(self) -> Any:
        """The code, or (args, kwargs), that `Work` runs."""
        raise NotImplementedError

    def _function(self) -> Callable[..., Any] | None:
        """The function that `Work` calls; None: `_what` is code."""
        return None

    def _arguments(self) -> tuple[Any, ...]:
        """The arguments of `Work`, those at the end left out where they are the defaults."""
        if self.push or self.clear_before or self.clear_after:
            push = dict(self.push) if self.push else None
            return self._what(), self.pull, push, self.clear_before, self.clear_after
        return (self._what(), self.pull) if self.pull else (self._what(),)

    def _parts(self) -> list[tuple[str, Any]]:
        """The pickled values by name: for the error message if one cannot be pickled."""
        return [(f"push[{name!r}]", value) for name, value in (self.push or {}).items()]


class Task(BaseTask):
    """A task made of code.

    Parameters
    ----------
    expression : str
        Python code, run in the engine's namespace.
    pull, push, clear_before, clear_after, retries, recovery_task, depend, priority
        See `BaseTask`.

    Examples
    --------
    >>> Task("b = 2 * a", pull="b", push={"a": 21}, retries=2)
    Task('b = 2 * a')
    """

    _CHECKS: ClassVar[dict[str, Callable[[Any], Any]]] = {
        **BaseTask._CHECKS,
        "expression": lambda value: _checked_expression(value),
    }

    def __init__(
        self,
        expression: str,
        pull: str | Iterable[str] | None = None,
        push: Mapping[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], Any] | None = None,
        priority: int = 0,
    ) -> None:
        self.expression = expression
        super().__init__(pull, push, clear_before, clear_after, retries, recovery_task, depend, priority)

    @property
    def _is_text(self) -> bool:
        return not self.push

    def _what(self) -> Any:
        return self.expression

    def __repr__(self) -> str:
        text = self.expression if len(self.expression) <= 40 else f"{self.expression[:37]}..."
        return f"{type(self).__name__}({text!r})"


class MapTask(BaseTask):
    """A task made of a function and arguments: `TaskResult.result` is what it returns.

    Parameters
    ----------
    function : callable
    args : sequence
    kwargs : mapping, optional
    **options
        See `BaseTask`.

    Examples
    --------
    >>> MapTask(pow, (2, 10), retries=1)
    MapTask(pow)
    """

    _CHECKS: ClassVar[dict[str, Callable[[Any], Any]]] = {
        **BaseTask._CHECKS,
        "function": lambda value: _checked_function(value),
        "args": lambda value: _checked_args(value),
        "kwargs": lambda value: _checked_kwargs(value),
        "pull": lambda value: _checked_pull(value, "result"),
    }

    def __init__(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs or {}
        super().__init__(**options)

    def _what(self) -> Any:
        return self.args, self.kwargs

    def _function(self) -> Callable[..., Any] | None:
        return self.function

    def _parts(self) -> list[tuple[str, Any]]:
        named = [(f"argument {index}", value) for index, value in enumerate(self.args)]
        return [*named, *((f"argument {name!r}", value) for name, value in self.kwargs.items()), *super()._parts()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.function, '__name__', self.function)})"


def _checked_expression(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a Task is made from code, a str, not {type(value).__name__}: for functions, use MapTask")
    return value


def _checked_function(value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"a MapTask is made from a function, not {value!r}")
    return value


def _checked_args(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"the arguments of a MapTask are a tuple or a list; got {value!r}")
    return tuple(value)


def _checked_kwargs(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"the named arguments of a MapTask are a dict; got {value!r}")
    return dict(value or {})


def _checked_pull(value: Any, taken: str = "") -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise TypeError(f"pull is a name, or a list of names; got {value!r}")
    names = tuple([_checked_name("pull", name) for name in value])
    if taken in names:
        raise ValueError(f"a MapTask cannot pull {taken!r}: that is the name of what its function returns")
    return names


def _checked_push(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"push is a dict of names and values; got {value!r}")
    return {_checked_name("push", name): item for name, item in value.items()}


def _checked_name(what: str, name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what}: names are strings, not {name!r}")
    if not _is_name(name):
        raise ValueError(f"{what}: {name!r} is not an identifier, so no value can have that name")
    return name


@functools.lru_cache(1024)
def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _checked_depend(value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"depend is a function of an engine's properties, or None; got {value!r}")
    return value
