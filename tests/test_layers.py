"""Who may import whom. The arrows of the architecture, kept true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "engineroom"

VOCABULARY = {
    *("_version", "errors", "ids", "messages", "records", "config", "resources", "cores"),
    *("task_context", "engine_properties"),
}
CLUSTER = VOCABULARY | {"cluster", "client", "launchers", "wire", "util", "dependency"}

#: part → the parts it may import besides itself
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "util": set(),
    "datapub": set(),
    "dependency": VOCABULARY | {"wire"},
    "core": VOCABULARY,
    "wire": VOCABULARY,
    "transport": VOCABULARY,
    "stores": VOCABULARY,
    "launchers": VOCABULARY,
    "controller": VOCABULARY | {"core", "wire", "transport", "stores"},
    "engine": VOCABULARY | {"wire", "transport", "datapub", "dependency"},
    "client": VOCABULARY | {"wire", "transport", "util"},
    "tasks": VOCABULARY | {"wire", "client"},
    "cluster": VOCABULARY | {"launchers", "client"},
    "testing": VOCABULARY | {"core", "wire", "transport", "stores", "client"},
    "cli": CLUSTER | {"controller", "core", "engine", "transport", "stores", "testing"},
    "__init__": CLUSTER | {"tasks"},
}

#: third-party (and heavy) modules that have one home
HOMES = {"zmq": "transport", "sqlite3": "stores", "pymongo": "stores", "cloudpickle": "wire"}

FILES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The part a file belongs to. `__main__` modules are faces, like `cli`."""
    inside = path.relative_to(SOURCE).with_suffix("")
    return "cli" if inside.name == "__main__" else inside.parts[0]


def module_of(path: Path) -> str:
    inside = ("engineroom", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)


def imports_of(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, but for types; `at_load`: only what happens when it is loaded."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if at_load and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*base, alias.name]) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_follow_the_arrows(path: Path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "engineroom":
            target = rest.partition(".")[0]
            if (SOURCE / target).is_dir() or (SOURCE / f"{target}.py").exists():
                assert target == part or target in MAY_IMPORT[part], f"{part} may not import {target} ({name})"
        elif top in HOMES:
            assert part == HOMES[top], f"{top} lives in {HOMES[top]}, not in {part}"


def test_no_module_imports_itself_by_a_detour():
    modules = {module_of(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for name in imports_of(path, at_load=True):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            # What a module takes from its own package is a sibling, or defined there before: never the whole.
            if name and name != module and not module.startswith(f"{name}."):
                graph[module].add(name)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_table_names_nothing_that_is_gone():
    there = {part_of(path) for path in FILES}
    assert set(MAY_IMPORT) <= there
