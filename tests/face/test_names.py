"""Every name that programs written for ipyparallel rely upon is here, with its signature; or we say that it is not.

`names.txt` has a line for each name. MISSING and DIFFERENT are the exceptions, each with its reason; the page
docs/migration.md says the same.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import inspect
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "migration.md"

#: Why names are not here, in the words of docs/migration.md → patterns of "module name".
MISSING: dict[str, list[str]] = {
    "`Client.curve_publickey`, `curve_secretkey`: every connection makes a pair of its own": [
        "engineroom.client.client Client.curve_publickey",
        "engineroom.client.client Client.curve_secretkey",
    ],
    "`Client.send_apply_request`, `send_execute_request`, `create_message_futures`, which were internal": [
        "engineroom.client.client Client.send_*_request",
        "engineroom.client.client Client.create_message_futures",
    ],
}

#: What differs in signatures, in the words of docs/migration.md → patterns of "module name".
DIFFERENT: dict[str, list[str]] = {
    "Views are made by the client": [f"engineroom* {kind}View" for kind in ("", "Direct", "LoadBalanced", "Broadcast")],
    "`map` chooses the chunk size": ["engineroom.client.view LoadBalancedView.map"],
    "`track` of a map is the view's flag": [
        "engineroom.client.view DirectView.map",
        "engineroom.client.view BroadcastView.map",
    ],
    "`start_controller` and `start_engines` take no settings of launchers": [
        "engineroom.cluster.cluster Cluster.start_controller",
        "engineroom.cluster.cluster Cluster.start_engines",
    ],
}

LINES = [line for line in (HERE / "names.txt").read_text().splitlines() if line and not line.startswith("#")]


def parsed(line: str) -> tuple[str, str, str]:
    """Module, dotted name and signature ("" for what is not called)."""
    module, _, rest = line.partition(" ")
    name, bracket, signature = rest.partition("(")
    return module, name, bracket + signature


def found(module: str, name: str) -> Any:
    """The thing; `ast` itself stands for an attribute that instances alone have."""
    thing: Any = importlib.import_module(module)
    for part in name.split("."):
        if inspect.isclass(thing) and not hasattr(thing, part):
            assert is_set_in(thing, part), f"{module} {name} is missing"
            return ast
        thing = getattr(thing, part)
    return thing


def is_set_in(cls: type, name: str) -> bool:
    """Whether instances have an attribute: it is declared, a key of metadata, or set by a method (`self.name = …`)."""
    for base in cls.__mro__[:-1]:
        keys = getattr(importlib.import_module(base.__module__), "KEYS", ())
        if name in getattr(base, "__annotations__", ()) or name in keys:
            return True
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name:
                return True
    return False


def parameters_of(signature: str) -> list[inspect.Parameter]:
    """The parameters of a signature as a text."""
    scope: dict[str, Any] = {}
    exec(f"def f{signature}: ...", scope)  # our own file
    return list(inspect.signature(scope["f"]).parameters.values())


def differences(wanted: list[inspect.Parameter], ours: list[inspect.Parameter]) -> list[str]:
    """What a call that suits `wanted` would meet in `ours`. Ours may have more parameters, if they have defaults."""
    said = []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = {p.name: p for p in ours}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in ours)
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in ours)
    places = [p for p in ours if p.kind in positional]
    for place, parameter in enumerate(p for p in wanted if p.kind in positional):
        mine = places[place] if place < len(places) else None
        if mine is None:
            if not takes_more:
                said.append(f"{parameter.name} is not number {place}")
        elif mine.name != parameter.name and parameter.kind is not parameter.POSITIONAL_ONLY:
            said.append(f"number {place} is {mine.name}, not {parameter.name}")
        elif not same_default(parameter.default, mine.default):
            said.append(f"{parameter.name} is {mine.default!r} by default, not {parameter.default!r}")
    for parameter in wanted:
        mine = names.get(parameter.name)
        if parameter.kind is parameter.VAR_POSITIONAL and not takes_more:
            said.append(f"there is no *{parameter.name}")
        elif parameter.kind is parameter.VAR_KEYWORD and not takes_any:
            said.append(f"there is no **{parameter.name}")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if mine is None and not takes_any:
                said.append(f"there is no {parameter.name}")
            elif mine is not None and not same_default(parameter.default, mine.default):
                said.append(f"{parameter.name} is {mine.default!r} by default, not {parameter.default!r}")
    more = places[sum(p.kind in positional for p in wanted) :]
    return said + [f"{mine.name} must be given" for mine in more if mine.default is mine.empty]


def same_default(wanted: Any, mine: Any) -> bool:
    """Whether defaults are equal. An empty list, tuple, dict or str and None mean "nothing" alike."""
    empty = (None, "", [], (), {})
    if wanted is inspect.Parameter.empty or mine is inspect.Parameter.empty:
        return wanted is mine or wanted is inspect.Parameter.empty
    return wanted == mine or (any(wanted == e for e in empty) and any(mine == e for e in empty))


def reason(table: dict[str, list[str]], line: str) -> str | None:
    """Why a line is an exception; None: it is not."""
    module, name, _ = parsed(line)
    named = f"{module} {name}"
    return next((why for why, patterns in table.items() if any(fnmatch.fnmatchcase(named, p) for p in patterns)), None)


def problem_of(line: str) -> str | None:
    """"missing", or what differs; None: all is well."""
    module, name, signature = parsed(line)
    try:
        thing = found(module, name)
    except (ImportError, AttributeError, AssertionError):
        return "missing"
    if not signature or thing is ast:
        return None
    ours = list(inspect.signature(thing).parameters.values())
    owner = name.rpartition(".")[0]
    if owner and ours and ours[0].name == "self":
        ours = ours[1:]
    return "; ".join(differences(parameters_of(signature), ours)) or None


@pytest.mark.parametrize("line", LINES)
def test_the_name_is_here(line: str):
    if parsed(line)[0] == "engineroom.joblib":
        pytest.importorskip("joblib")
    problem = problem_of(line)
    if problem == "missing":
        assert reason(MISSING, line), f"{line} is missing"
    elif problem:
        assert reason(DIFFERENT, line), f"{line}: {problem}"
    else:
        assert reason({**MISSING, **DIFFERENT}, line) is None, "it is no exception any more"


def test_every_exception_is_needed():
    said = [f"{module} {name}" for module, name, _ in map(parsed, LINES)]
    for pattern in itertools.chain(*MISSING.values(), *DIFFERENT.values()):
        assert any(fnmatch.fnmatchcase(each, pattern) for each in said), f"no name is like {pattern}"


@pytest.mark.parametrize("why", [*MISSING, *DIFFERENT])
def test_the_migration_page_says_so_too(why: str):
    assert why in " ".join(PAGE.read_text().split()), f"docs/migration.md should say: {why}"


#: Modules that `import ipyparallel` imports: programs name `ipyparallel.client.view.ViewExecutor` without an import.
IMPORTED = [
    "client", "client.asyncresult", "client.client", "client.map", "client.remotefunction", "client.view", "cluster",
    "cluster.cluster", "cluster.launcher", "controller", "controller.dependency", "error", "serialize",
    "serialize.canning", "serialize.codeutil", "serialize.serialize", "util",
]  # fmt: skip


def test_modules_are_attributes_of_their_packages():
    source = (
        "import functools, sys, engineroom\n"
        f"for name in {IMPORTED!r}:\n"
        "    found = functools.reduce(getattr, name.split('.'), engineroom)\n"
        "    assert type(found).__name__ == 'module', name\n"
        "assert not hasattr(engineroom.client, 'nothing_such')\n"
        "assert not hasattr(engineroom.controller, 'nothing_such')\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
