"""Graph dependencies: which tasks must have ended, and how, before another may run.

The controller decides when they are met (`core/dependencies.py`); here they are made and checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

from ...config import check_switches
from ...errors import InvalidDependency
from ...ids import TaskId
from ...messages import GraphDependency
from ..results.arguments import refuse_direct
from ..results.port import ResultPort
from ..results.result import AsyncResult


class Dependency(set[TaskId]):
    """A set of msg_ids, which is met when all (or any) of these tasks have ended in a way that counts.

    Parameters
    ----------
    dependencies : msg_id, AsyncResult, Dependency, or a collection of those
        An AsyncResult of several tasks stands for all of them.
    all : bool
        Whether all of them must have ended so, or any.
    success, failure : bool
        Which ends count.
    ids : optional
        Another name of `dependencies`.

    Raises
    ------
    TypeError
        Something among `dependencies` does not name a task.
    ValueError
        Neither success nor failure counts: such a dependency could never be met.

    Examples
    --------
    >>> Dependency(["a", "b"], all=False).check({"a"})
    True
    """

    def __init__(
        self,
        dependencies: Any = (),
        all: bool = True,
        success: bool = True,
        failure: bool = False,
        *,
        ids: Any = None,
    ) -> None:
        check_switches(all=all, success=success, failure=failure)
        if ids is not None:
            if dependencies:
                raise TypeError("dependencies and ids are two names of one argument: give one of them")
            dependencies = ids
        if not (success or failure):
            raise ValueError("success=False, failure=False: such a dependency could never be met")
        self.all, self.success, self.failure = bool(all), bool(success), bool(failure)
        super().__init__(_ids_in(dependencies))

    def check(self, completed: Collection[str], failed: Collection[str] | None = None) -> bool:
        """Whether it is met, given the tasks that have succeeded and those that have failed."""
        ended = {*(completed if self.success else ()), *((failed or ()) if self.failure else ())}
        return not self or (self <= ended if self.all else not self.isdisjoint(ended))

    def unreachable(self, completed: Collection[str], failed: Collection[str] | None = None) -> bool:
        """Whether it can no longer be met, given the tasks that have succeeded and those that have failed."""
        lost = {*(() if self.success else completed), *(() if self.failure else failed or ())}
        return bool(self) and (not self.isdisjoint(lost) if self.all else self <= lost)

    def as_dict(self) -> dict[str, Any]:
        """The arguments that make an equal Dependency, in types that JSON has."""
        return {
            "dependencies": sorted(self),
            "all": self.all,
            "success": self.success,
            "failure": self.failure,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The Dependency that `as_dict` describes."""
        return cls(**values)

    def copy(self) -> Self:
        """An equal Dependency."""
        return type(self)(self, self.all, self.success, self.failure)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dependency):
            return set.__eq__(self, other) and self._kind == other._kind
        return set.__eq__(self, other)

    def __ne__(self, other: object) -> bool:  # set has one of its own
        return not self == other

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), *self._kind)

    @property
    def _kind(self) -> tuple[bool, bool, bool]:
        return self.all, self.success, self.failure

    def __repr__(self) -> str:
        return f"Dependency({sorted(self)}, all={self.all}, success={self.success}, failure={self.failure})"


def dependency_flag(name: str, value: Any) -> Dependency | None:
    """The value of a view's flag `after` or `follow`: a new Dependency, or None.

    Raises
    ------
    TypeError
        It does not name tasks.
    """
    if value is None:
        return None
    if isinstance(value, Dependency):
        return value.copy()
    try:
        return Dependency(value)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def graph_dependency(dependency: Dependency | None, port: ResultPort) -> GraphDependency | None:
    """The dependency as it is sent; None if it names no tasks.

    Raises
    ------
    InvalidDependency
        One of its tasks is a direct one of this client, or has an id that this client has not given to a task yet.
    """
    if not dependency:
        return None
    ids = tuple(sorted(dependency))
    refuse_direct(ids, port)
    for id in ids:
        if id.startswith(f"{port.session}-") and not port.has_made(id):
            raise InvalidDependency(f"no such task: {id}: this client has not submitted it")
    return GraphDependency(ids, dependency.all, dependency.success, dependency.failure)


def _ids_in(dependencies: Any) -> Iterable[TaskId]:
    if isinstance(dependencies, AsyncResult):
        return dependencies._all_ids()
    if isinstance(dependencies, str):
        return [_checked(dependencies)]
    if isinstance(dependencies, Iterable) and not isinstance(dependencies, Mapping | bytes):
        return [id for member in dependencies for id in _members(member)]
    raise TypeError(_complaint(dependencies))


def _members(member: Any) -> Iterable[TaskId]:
    if isinstance(member, str):
        return [_checked(member)]
    if isinstance(member, AsyncResult | list | tuple | set | frozenset):
        return _ids_in(member)
    raise TypeError(_complaint(member))


def _checked(id: str) -> TaskId:
    if not id.strip():
        raise TypeError(_complaint(id))
    return TaskId(id)


def _complaint(value: Any) -> str:
    return f"a dependency names tasks by msg_id or AsyncResult, or as a list of those; got {value!r}"
