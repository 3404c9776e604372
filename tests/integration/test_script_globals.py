"""What a function or a class of a script could see where it was written, it sees wherever its code runs."""

from __future__ import annotations

import sys

import pytest

import engineroom as er

#: A class whose methods use a module and a helper of the script; comprehensions are functions in Python 3.11.
BOX = """
import json
FACTOR = {factor}
def scaled(x): return FACTOR * x
class Box:
    def __init__(self, x): self.x = x
    def __getstate__(self): return {{"text": json.dumps(self.x)}}
    def __setstate__(self, state): self.x = json.loads(state["text"])
    def __hash__(self): return hash(json.dumps(self.x))
    def __eq__(self, other): return json.dumps(self.x) == json.dumps(other.x)
    def __str__(self): return json.dumps([scaled(x) for x in self.x])
"""


def test_arguments_and_results_are_pickled_and_unpickled_with_the_globals_of_their_script(rc, typed):
    box = typed(BOX.format(factor=10))
    for view in (rc[0], rc.load_balanced_view()):
        there = view.apply_sync(lambda b: b, box([1]))
        assert (there.x, str(there)) == ([1], "[10]")
        assert view.apply_sync(len, {box([1]), box([1]), box([2])}) == 2
        assert view.map_sync(str, [box([1]), box([2])]) == ["[10]", "[20]"]


def test_methods_of_pushed_objects_see_the_globals_of_their_script(rc, typed):
    box = typed(BOX.format(factor=10))
    rc[0].push({"box": box([1, 2])}, block=True)
    assert rc[0].apply_sync(er.Reference("str"), er.Reference("box")) == "[10, 20]"
    rc[0].execute("text, number = str(box), len({box})", block=True)
    assert (rc[0]["text"], rc[0]["number"]) == ("[10, 20]", 1)
    rc[0].execute("assert str(box) == '[10, 20]'", block=True, silent=False)
    assert rc[0]["box"].x == [1, 2]


def test_names_that_travelled_are_not_names_of_the_engine(rc, typed):
    rc[0].push({"box": typed(BOX.format(factor=10))([1])}, block=True)
    with pytest.raises(er.RemoteError, match="FACTOR"):
        rc[0].execute("FACTOR", block=True)
    with pytest.raises(er.RemoteError, match="FACTOR"):
        rc[0].apply_sync(len, er.Reference("FACTOR"))
    with pytest.raises(er.RemoteError, match="FACTOR"):
        rc[0].pull("FACTOR", block=True)
    for body in ("[FACTOR for _ in 'a']", "FACTOR"):
        unknown = typed(f"def unknown_{len(body)}(): return {body}")
        factor = unknown.__globals__.pop("FACTOR")
        with pytest.raises(er.RemoteError, match="FACTOR"):
            rc[0].apply_sync(unknown)
        unknown.__globals__["FACTOR"] = factor


def test_names_of_the_engine_come_first(rc, typed):
    box = typed(BOX.format(factor=10))
    rc[0].push({"FACTOR": 3, "box": box([1])}, block=True)
    try:
        assert rc[0].apply_sync(str, er.Reference("box")) == "[3]"
    finally:
        rc[0].execute("del FACTOR", block=True)
    assert rc[0].apply_sync(str, er.Reference("box")) == "[10]"


def test_an_exception_of_a_script_says_its_text(rc, typed):
    fail = typed(
        "import json\nclass Bad(Exception):\n    def __str__(self): return json.dumps({'bad': self.args})\n"
        "def fail(): raise Bad(1, 2)"
    )
    with pytest.raises(er.RemoteError, match=r'\{"bad": \[1, 2\]\}'):
        rc[0].apply_sync(fail)


def test_a_thread_that_outlives_its_task_sees_the_globals_of_its_script(rc, typed):
    begin = typed(
        "import math, threading, types\n"
        "ROOM = 4\n"
        "def go_on(gate, found):\n"
        "    gate.wait(60)\n"
        "    found.append([math.floor(ROOM + x) for x in (0.5, 1.5)])\n"
        "    found.append((lambda: ROOM)())\n"
        "def begin():\n"
        "    import builtins\n"
        "    gate, found = threading.Event(), []\n"
        "    thread = threading.Thread(target=go_on, args=(gate, found))\n"
        "    thread.start()\n"
        "    builtins.begun = gate, found, thread\n"
    )
    other = typed("OTHER = 1\ndef other(): return [OTHER for _ in 'ab']")
    rc[0].apply_sync(begin)
    assert rc[0].apply_sync(other) == [1, 1], "another task in between"
    rc[0].execute("begun[0].set(); begun[2].join(30); found = begun[1]", block=True)
    assert rc[0]["found"] == [[4, 5], 4]
    rc[0].execute("import builtins; del builtins.begun, found", block=True)


def test_two_versions_of_a_script_do_not_meet(rc, typed):
    old = typed(BOX.format(factor=10) + "def get(): return FACTOR\nclass Old(Box):\n    def f(self): return FACTOR\n")
    rc[0].push({"old": old([1])}, block=True)
    new = typed("FACTOR = 20\nclass New(Box):\n    def f(self): return FACTOR\n")
    rc[0].push({"new": new([1])}, block=True)
    rc[0].execute("found = old.f(), new.f()", block=True)
    assert rc[0]["found"] == (10, 20)


def test_a_patched_builtin_is_patched_for_functions_of_scripts_too(rc, typed):
    patched = typed(
        "from unittest import mock\nNAME = 'x'\n"
        "def patched():\n"
        "    with mock.patch('builtins.ascii', lambda name: 'patched ' + name):\n"
        "        inside = ascii(NAME), [ascii(n) for n in NAME]\n"
        "    return inside, ascii(NAME)"
    )
    assert rc[0].apply_sync(patched) == (("patched x", ["patched x"]), "'x'")


def test_a_builtin_that_a_task_adds_is_seen_by_later_ones(rc, typed):
    use = typed("A = 1\ndef use(): return A + added_by_a_task")
    with pytest.raises(er.RemoteError, match="added_by_a_task"):
        rc[0].apply_sync(use)
    rc[0].execute("import builtins; builtins.added_by_a_task = 5", block=True)
    assert rc[0].apply_sync(use) == 6
    rc[0].execute("del builtins.added_by_a_task, builtins", block=True)
    with pytest.raises(er.RemoteError, match="added_by_a_task"):
        rc[0].apply_sync(use)


CLASSES = """
import abc, collections, dataclasses, functools, typing

@dataclasses.dataclass(slots=True)
class Point:
    x: int
    y: int = 2

@dataclasses.dataclass(slots=True, weakref_slot=True)
class Weighed(Point):
    weight: float = 1.5

class Hidden:
    __slots__ = ("__x", "y")
    def __init__(self): self.__x, self.y = 3, self
    def x(self): return self.__x

class Described:
    __slots__ = {"a": "what it is"}

class One:
    __slots__ = "one"

class Open(One):
    pass

class Abstract(abc.ABC):
    __slots__ = ("v",)
    @abc.abstractmethod
    def get(self): ...

class Concrete(Abstract):
    __slots__ = ()
    def __init__(self): self.v = 9
    def get(self): return self.v

class Pair(collections.namedtuple("Pair", "a b")):
    __slots__ = ()

class Typed(typing.NamedTuple):
    a: int

class Lazy:
    @functools.cached_property
    def v(self):
        'its text'
        return [1]

@functools.singledispatch
def kind_of(value):
    'what it is'
    return "object"

@kind_of.register
def _(value: list): return [kind_of(item) for item in value]

@kind_of.register
def _(value: int): return "int"
"""


@pytest.mark.parametrize("make", [
    "Point(1)", "Weighed(1)", "Hidden()", "Described()", "One()", "Open()", "Concrete()", "Pair(1, 2)", "Typed(1)",
])  # fmt: skip
def test_objects_with_slots_go_there_and_back(rc, typed, make):
    typed(CLASSES)
    sent = eval(make, sys.modules["__main__"].__dict__)
    kind = type(sent)

    def has_dict(value):
        return hasattr(value, "__dict__")

    for back in (rc[0].apply_sync(lambda value: value, sent), rc[0].apply_sync(lambda value: type(value), sent)):
        assert back is kind or type(back) is kind
    assert rc[0].apply_sync(has_dict, sent) == has_dict(sent)
    if hasattr(sent, "__eq__") and kind.__eq__ is not object.__eq__:
        assert rc[0].apply_sync(lambda value: value, sent) == sent


def test_a_hidden_slot_has_its_value_there(rc, typed):
    typed(CLASSES)
    main = sys.modules["__main__"]
    assert rc[0].apply_sync(lambda value: (value.x(), value.y is value), main.Hidden()) == (3, True)


def test_cached_properties_and_functions_by_type_travel(rc, typed):
    typed(CLASSES)
    main = sys.modules["__main__"]
    assert rc[0].apply_sync(lambda kind: (kind().v, kind.v.__doc__), main.Lazy) == ([1], "its text")
    lazy = main.Lazy()
    assert rc[0].apply_sync(lambda value: value.v is value.v, lazy)
    assert rc[0].apply_sync(main.kind_of, [1, "a", [2]]) == ["int", "object", ["int"]]
    back = rc[0].apply_sync(lambda function: function, main.kind_of)
    assert (back(3), back.__name__, back.__doc__) == ("int", "kind_of", "what it is")
