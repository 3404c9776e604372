"""The public face: what `import engineroom` gives, and what it does not drag in."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys

import pytest

import engineroom
import engineroom.testing

#: public names that are plain values
VALUES = {"ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "__version__", "version_info"}

#: Nobody who talks to a cluster needs these at once.
HEAVY = ("IPython", "numpy", "pandas", "traitlets", "tqdm", "sqlite3", "networkx", "matplotlib")


@pytest.mark.parametrize("package", [engineroom, engineroom.testing], ids=["engineroom", "testing"])
def test_all_names_what_there_is(package: object):
    names = package.__all__
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(package, name)] == []
    public = {n for n, v in vars(package).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert public <= set(names), "it can be imported from here, so say so in __all__, or import it elsewhere"


@pytest.mark.parametrize("name", sorted(set(engineroom.__all__) - VALUES))
def test_every_public_name_says_what_it_is(name: str):
    thing = getattr(engineroom, name)
    assert thing.__doc__, f"engineroom.{name} has no docstring"
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        if not method.startswith("_") and inspect.isfunction(value) and value.__module__.startswith("engineroom"):
            assert inspect.getdoc(getattr(thing, method)), f"engineroom.{name}.{method} has no docstring"


def test_the_import_is_light():
    code = f"import sys, engineroom; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == []


def test_the_import_brings_only_what_every_process_needs():
    code = "import sys, engineroom; print(*sorted(name for name in sys.modules if name.startswith('engineroom.')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[1] for name in found} <= {"_version", "compat", "import_watch", "wire"}


def test_a_cluster_starts_its_processes_before_the_client_is_imported():
    code = "import sys, engineroom; engineroom.Cluster(load_profile=False, profile_dir='none'); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    late = ("engineroom.client", "importlib.metadata", "psutil", "traitlets", "tempfile", "sqlite3", "ssl")
    assert [name for name in late if name in found] == []


@pytest.mark.parametrize("command", ["ipcontroller", "ipengine"])
def test_a_controller_and_a_nanny_are_started_without_what_few_of_them_need(command: str):
    code = f"import sys, engineroom.cli.{command}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    late = ("engineroom.client", "importlib.metadata", "psutil", "tempfile", "sqlite3", "ssl")
    assert [name for name in late if name in found] == []


def test_type_checkers_are_told_what_is_imported_later():
    """The lines under TYPE_CHECKING, and the table that `__getattr__` reads, say the same."""
    tree = ast.parse(inspect.getsource(engineroom))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.name: ("." * node.level + (node.module or ""))
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name not in engineroom._MODULES
    }
    assert told | {"Client": ".client.client"} == engineroom._homes()
    assert set(engineroom.__all__) == {*told, "tasks", "__version__", "version_info"}


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError, match="'engineroom' has no attribute 'Clientt'"):
        _ = engineroom.Clientt
    assert set(engineroom.__all__) <= set(dir(engineroom))


def test_no_part_of_the_package_has_the_name_of_another_public_thing():
    # `import engineroom.remote.x as y` looks y up in `engineroom.remote`, which would be the decorator
    parts = {part.name for part in pkgutil.iter_modules(engineroom.__path__)}
    hidden = {name for name in parts & set(engineroom.__all__) if not inspect.ismodule(getattr(engineroom, name))}
    assert hidden == set()
