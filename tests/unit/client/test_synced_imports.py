"""What `sync_imports` sees of import statements, on this version of Python. Nothing is sent."""

from __future__ import annotations

import builtins
import pickle
import threading
from typing import Any

import pytest

from engineroom.client.synced_imports import Elsewhere, seen

STATEMENTS: dict[str, list[tuple[str, str | None, list[tuple[str, str]]]]] = {
    "import wave": [("wave", None, [])],
    "import wave as w": [("wave", "w", [])],
    "import xml.dom": [("xml.dom", None, [])],
    "import xml.dom as d": [("xml.dom", "d", [])],
    "import xml.dom as xml": [("xml.dom", "xml", [])],
    "import wave, xml.dom.minidom as m": [("wave", None, []), ("xml.dom.minidom", "m", [])],
    "from math import sin, cos as c": [("math", None, [("sin", "sin"), ("cos", "c")])],
    "from colorsys import *": [("colorsys", None, [("*", "*")])],
    "from . import dom": [("xml", None, [("dom", "dom")])],
    "from .dom import minidom as m": [("xml.dom", None, [("minidom", "m")])],
    "__import__('wave')": [("wave", None, [])],
}


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("template", ["{}", "def f():\n    {}\n    x = 1; y = x\nf()", "class A:\n    {}"])
def test_names_are_those_that_the_statement_binds(statement: str, local: bool, template: str) -> None:
    if "*" in statement and template != "{}":
        return  # Python allows it in no function and no class
    code = compile(template.format(statement), "<cell>", "exec")
    with seen(local=local, quiet=True) as found:
        exec(code, {"__package__": "xml", "__name__": "xml.here"})
    assert found == STATEMENTS[statement]


def test_imports_are_as_before_after_an_error() -> None:
    before = builtins.__import__
    with pytest.raises(ModuleNotFoundError), seen(local=True, quiet=True):
        import nowhere_at_all  # noqa: F401
    assert builtins.__import__ is before


def test_other_threads_are_not_seen() -> None:
    done: list[Any] = []
    with seen(local=False, quiet=True) as found:
        thread = threading.Thread(target=lambda: done.append(__import__("wave")))
        thread.start()
        thread.join()
    assert (found, done[0].__name__) == ([], "wave")


def test_what_is_elsewhere_arrives_as_what_it_stands_for() -> None:
    import xml.dom

    assert pickle.loads(pickle.dumps(Elsewhere("xml").dom)) is xml.dom
    assert repr(Elsewhere("xml").dom) == "<xml.dom, imported on the engines alone>"
    with pytest.raises(ImportError, match=r"xml\.dom was imported on the engines alone"):
        Elsewhere("xml").dom()
