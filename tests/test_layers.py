"""Who may import whom: the arrows of the architecture, one table, kept true.

Every import counts: those for types only (under `TYPE_CHECKING`), and those inside functions. An import inside a
function may load a heavy module late; it may not break a circle.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "engineroom"

#: No module is longer, and no folder holds more modules (`__init__` and `__main__` not counted).
MOST_LINES, MOST_FILES = 600, 14

VOCABULARY = (
    "_version errors collecting ids messages records config resources cores descriptors import_path import_watch"
    " markup printable private shared_memory system watchdog"
)

#: part → what it may import besides itself. A part is a package, a folder or a module; a module belongs to the most
#: specific part that names it. `client` allows all of `client`; VOCABULARY is the line above.
MAY_IMPORT = {
    # vocabulary: words that everyone uses
    **dict.fromkeys(VOCABULARY.split(), "VOCABULARY"),
    "util": "",
    # pure: no sockets, files, clocks
    "core": "VOCABULARY",
    "core.tasks": "VOCABULARY",
    "core.engines": "VOCABULARY core.tasks",
    "core.unclaimed": "VOCABULARY core.engines",
    "core.actions": "VOCABULARY core.tasks",
    "core.effects": "VOCABULARY core.tasks core.actions",
    "core.dependencies": "VOCABULARY core.tasks core.effects",
    "core.events": "VOCABULARY core.dependencies",
    "core.placement": "VOCABULARY core.tasks core.engines core.effects",
    "core.state": (
        "VOCABULARY core.tasks core.engines core.actions core.effects core.dependencies core.events core.deadlines"
        " core.placement core.unclaimed"
    ),
    "core.handlers": (
        "VOCABULARY core.tasks core.engines core.effects core.dependencies core.events core.placement core.state"
        " core.unclaimed"
    ),
    "wire": "VOCABULARY on_engine",
    "on_engine": "VOCABULARY wire",
    # adapters: the only homes of sockets and databases
    "transport": "VOCABULARY",
    "stores": "VOCABULARY",
    "stores.base": "VOCABULARY",
    "stores.query": "VOCABULARY",
    "stores.canonical": "VOCABULARY stores.query",
    "stores.packing": "VOCABULARY",
    "stores.unreadable": "VOCABULARY",
    "stores.memory": "VOCABULARY stores.base stores.query stores.canonical stores.unreadable",
    "stores.sqlite": "VOCABULARY stores.base stores.query stores.canonical stores.packing stores.unreadable",
    "stores.mongodb": "VOCABULARY stores.base stores.query stores.canonical stores.packing stores.unreadable",
    "stores.maintenance": "VOCABULARY stores.base",
    # processes
    "controller": "VOCABULARY core wire transport stores",
    "controller.presence": "VOCABULARY core wire transport",
    "controller.presence.peers": (
        "VOCABULARY wire transport controller.presence.peer_clock controller.presence.said_hellos"
    ),
    "controller.supplies": "VOCABULARY wire transport controller.presence.peers",
    "controller.storage": "VOCABULARY wire stores",
    "controller.decisions": "VOCABULARY core controller.error_info",
    "controller.outbox": (
        "VOCABULARY core wire stores controller.error_info controller.supplies controller.presence.peers"
        " controller.storage"
    ),
    "controller.intake": (
        "VOCABULARY core stores controller.supplies controller.lookups controller.outbox"
        " controller.result_cache controller.storage"
    ),
    "controller.requests": (
        "VOCABULARY core wire stores controller.error_info controller.intake controller.lookups controller.outbox"
        " controller.result_cache controller.storage"
    ),
    "engine": "VOCABULARY wire transport on_engine",
    "engine.execution": "VOCABULARY wire on_engine engine.shared_page",
    "client": "VOCABULARY wire transport on_engine util",
    "client.connection": "VOCABULARY wire transport",
    "client.engines": "VOCABULARY client.connection",
    "client.port": "VOCABULARY wire client.connection client.engines",
    "client.calls": "VOCABULARY",
    "client.pictures": "VOCABULARY",
    "client.records": "VOCABULARY wire on_engine util client.connection client.pictures",
    "client.waiting": "VOCABULARY on_engine client.connection",
    "client.results": (
        "VOCABULARY wire util client.connection client.notebook client.pictures client.records.selection client.waiting"
    ),
    "client.views": (
        "VOCABULARY wire on_engine util client.connection client.interop client.magics client.port client.results"
        " client.calls client.hints client.notebook client.records.query_args client.synced_imports client.waiting"
    ),
    "client.interop": "VOCABULARY on_engine",
    "client.magics": "VOCABULARY client.notebook",
    "client.synced_imports": "VOCABULARY",
    "client.hints": "",
    "client.notebook": "VOCABULARY",
    # faces
    "launchers": "VOCABULARY",
    "cluster": "VOCABULARY launchers client",
    "tasks": "VOCABULARY wire on_engine client",
    "compat": "VOCABULARY wire on_engine client",
    "compat.paths": "",
    "compat.databases": "VOCABULARY stores cli.databases",
    "compat.launcher": "VOCABULARY launchers",
    "compat.top_level": "VOCABULARY on_engine compat lab",
    "testing": "VOCABULARY core wire transport stores client controller",
    "reading": "VOCABULARY client stores",
    "dashboard": "VOCABULARY client stores reading",
    "lab": "VOCABULARY cluster",
    "cli": "VOCABULARY core wire transport stores controller engine client cluster launchers testing reading dashboard",
    "controller.__main__": "cli",
    "cluster.__main__": "cli",
    "engine.__main__": "cli import_path",
    "__init__": "VOCABULARY util client cluster compat tasks on_engine wire.former_names",
}

#: Heavy or outside modules, and the only parts that import them.
HOMES = {
    "ssl": "transport",
    "sqlite3": "stores.sqlite",
    "pymongo": "stores.mongodb",
    "bson": "stores.mongodb",
    "pyarrow": "stores.maintenance client.records",
    "cloudpickle": "wire",
    "traitlets": "cli cluster.profile_config engine.execution.shell",
    "IPython": "engine.execution.shell client.notebook client.magics compat.bind_kernel",
    "starlette": "dashboard",
    "uvicorn": "dashboard",
    "jupyter_server": "lab",
    "httpx": "lab",
    "joblib": "client.interop.joblib_arrays client.interop.joblib_backend compat.joblib",
    "tqdm": "client.notebook cli.bars",
    "distributed": "launchers.dask client.interop.dask_cluster on_engine.dask_worker",
    "ray": "launchers.ray",
    "mpi4py": "engine.execution.mpi",
}

FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """What a module imports: modules of ours without "engineroom.", others by their full name."""
    return frozenset(_imports_of(module))


def _imports_of(module: str) -> Iterator[str]:
    path = FILES[module]
    package = ["engineroom", *module.split(".")] if module != "__init__" else ["engineroom"]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("engineroom.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                name = ".".join([*base, alias.name]).removeprefix("engineroom.")
                yield name if name in FILES else ".".join(base).removeprefix("engineroom.")


def part_of(module: str) -> str | None:
    """The most specific part of the table that a module belongs to."""
    while module and module not in MAY_IMPORT:
        module = module.rpartition(".")[0]
    return module or None


def is_in(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def allowed(part: str) -> list[str]:
    """The parts that a part may import."""
    return [part, *MAY_IMPORT[part].replace("VOCABULARY", VOCABULARY).split()]


def is_allowed(module: str, part: str, name: str) -> bool:
    """Whether this module of this part may import what has this name."""
    if name in FILES:
        return any(is_in(name, other) for other in allowed(part))
    homes = HOMES.get(name.partition(".")[0], module).split()
    return any(is_in(module, home) for home in homes)


@pytest.mark.parametrize("module", FILES)
def test_imports_follow_the_arrows(module: str):
    part = part_of(module)
    assert part is not None, f"{module} is new: say in MAY_IMPORT what it may import"
    assert [name for name in imports_of(module) if not is_allowed(module, part, name)] == []


def test_there_is_no_import_circle():
    graph = {module: {name for name in imports_of(module) if name in FILES and name != module} for module in FILES}
    circles = [sorted(group) for group in circles_of(graph)]
    assert circles == [], "these modules import each other"


def circles_of(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, pending = set[str](), [start]
        while pending:
            for name in graph[pending.pop()] - seen:
                seen.add(name)
                pending.append(name)
        reached[start] = seen
    groups = [frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]]
    return [set(group) for group in dict.fromkeys(groups)]


def test_circles_are_found():
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [{"a", "b", "c"}]


def test_no_module_is_too_long():
    lengths = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_folder_holds_too_much():
    modules = [path for path in FILES.values() if path.stem not in ("__init__", "__main__")]
    counts = Counter(str(path.parent.relative_to(SOURCE)) for path in modules)
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_the_table_names_nothing_that_is_gone():
    named = {name for part in MAY_IMPORT for name in allowed(part)}
    assert sorted(name for name in named if name not in FILES and name != "__init__") == []
