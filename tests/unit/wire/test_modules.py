"""Which versions of users' modules are loaded, and what depends on them. In a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: helpers of the scripts below: edit a module, as an editor does, so that Python's own cache notices
BEGIN = """
import importlib, json, os, pickle, sys, time
from pathlib import Path
import engineroom
from engineroom.wire import modules
from engineroom.wire.functions import FunctionCache, load_function
from engineroom.wire.identity import code_digest
here = Path(sys.path[0])
def write(name, text):
    path = here / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    while path.stat().st_mtime_ns == before:
        path.write_text(text)
    importlib.invalidate_caches()
write("low", "def f(x): return x\\n")
write("high", "import low\\ndef g(x): return low.f(x) + 1\\n")
"""


def run(folder: Path, script: str) -> str:
    path = folder / "script.py"
    path.write_text(BEGIN + script)
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("define", "needs"),
    [
        ("from low import f", ["low"]),
        ("from high import g as f", ["high", "low"]),
        ("import high\nf = lambda x: high.g(x)", ["high", "low"]),
        ("from high import g\ndef helper(x): return g(x)\ndef f(x): return helper(x)", ["high", "low"]),
        ("def f(x):\n    import low\n    return low.f(x)", ["low"]),
        ("def f(x):\n    def inner():\n        from low import f\n        return f(x)\n    return inner()", ["low"]),
        ("import functools, low\nf = functools.partial(map, low.f)", ["low"]),
        ("import low\nclass C:\n    def m(self): return low.f(1)\nf = C().m", ["low"]),
        ("from math import sqrt as f", []),
        ("f = len", []),
        ("def f(x): return x + 1", []),
        ("write('package/__init__', 'A = 1\\n')\nwrite('package/part', 'def f(): pass\\n')\nfrom package.part import f",
         ["package", "package.part"]),
    ],
)  # fmt: skip
def test_a_function_needs_the_users_modules_that_its_code_uses(tmp_path: Path, define: str, needs: list[str]):
    assert run(tmp_path, f"{define}\nprint(sorted(modules.needs_of(f)))") == f"{needs}\n"


def test_the_version_is_of_what_was_loaded_not_of_the_file(tmp_path: Path):
    assert run(tmp_path, """
import low, high
first = modules.version_of("low")
assert first and first == modules.differing.__globals__["_version_of_file"]("low")
write("low", "def f(x): return 10 * x\\n")
assert modules.version_of("low") == first, "the old code is still loaded"
importlib.reload(low)
second = modules.version_of("low")
assert second and second != first
write("high", "import low\\ndef g(x): return low.f(x) + 2\\n")
assert modules.version_of("high") == "", "it was loaded from a file that nobody looked at"
assert code_digest(high.g) == "" and code_digest(low.f) != ""
del sys.modules["low"]
import low
assert modules.version_of("low") == second
print("good")
""") == "good\n"


def test_a_function_is_pickled_anew_when_a_module_that_it_needs_was_loaded_again(tmp_path: Path):
    assert run(tmp_path, """
import low, high
cache = FunctionCache()
def script(x): return high.g(x)
kept = high.g
before = [cache.get(f) for f in (high.g, script, len)]
assert [cache.get(f) is b for f, b in zip((high.g, script, len), before)] == [True] * 3
digests = [code_digest(f) for f in (high.g, script)]
write("low", "def f(x): return 10 * x\\n")
assert [cache.get(f) is b for f, b in zip((kept, script, len), before)] == [True] * 3, "nothing else was loaded"
importlib.reload(low)
after = [cache.get(f) for f in (kept, script, len)]
assert [a.digest != b.digest for a, b in zip(after, before)] == [True, True, False]
assert [code_digest(f) != d for f, d in zip((kept, script), digests)] == [True, True]
assert dict(load_function(after[0]).needs) == {n: modules.version_of(n) for n in ("high", "low")}
print("good")
""") == "good\n"


def test_an_import_inside_a_function_counts_before_and_after_it_is_made(tmp_path: Path):
    assert run(tmp_path, """
def f(x):
    import low
    return low.f(x)
cache = FunctionCache()
unloaded, digest = cache.get(f), code_digest(f)
assert f(3) == 3
assert cache.get(f).digest == unloaded.digest and code_digest(f) == digest
write("low", "def f(x): return 10 * x\\n")
assert code_digest(f) == digest, "the old code is still loaded"
importlib.reload(sys.modules["low"])
assert f(3) == 30 and cache.get(f).digest != unloaded.digest and code_digest(f) != digest
print("good")
""") == "good\n"


def test_what_differs_says_who_is_older(tmp_path: Path):
    assert run(tmp_path, """
import low, high
needs = modules.needs_of(high.g)
assert modules.differing(needs) == {}
write("low", "def f(x): return 10 * x\\n")
import hashlib
new = hashlib.blake2b((here / "low.py").read_bytes(), digest_size=16).hexdigest()
print(modules.differing({"low": new, "unknown": "1", "json": "2", "high": ""}))
print(modules.differing({"high": "0"}))
""").replace(str(tmp_path), "…") == (
        "{'low': 'it loaded an older version of …/low.py'}\n"
        "{'high': 'the client has another version than …/high.py (reload it in the client)'}\n"
    )


def test_a_module_whose_file_is_gone_is_named_and_none_is_loaded_again(tmp_path: Path):
    assert run(tmp_path, """
import low, high
high.KEPT = 1
(here / "low.py").unlink()
write("high", "import low\\ndef g(x): return low.f(x) + 2\\n")
try:
    modules.reload()
except ModuleNotFoundError as error:
    print(error)
assert high.g(1) == 2, "not loaded again"
assert modules.reload(["high"]) == ["high"] and high.g(1) == 3
write("low/__init__", "def f(x): return 10 * x\\n")
assert modules.reload(["low"]) == ["low", "high"], "another file has its name"
assert high.g(1) == 12
""").replace(str(tmp_path), "…") == (
        "these modules cannot be loaded again, because an import does not find them any more: low (…/low.py). "
        "No module was loaded again. Put their files back, or name the modules to load: rc.reload_modules(names=[…])\n"
    )


def test_modules_are_loaded_again_after_those_they_use(tmp_path: Path):
    assert run(tmp_path, """
write("high", "from low import f\\ndef g(x): return f(x) + 1\\n")
write("apart", "LOADED = []\\n")
import low, high, apart
from high import g
apart.LOADED.append(1)
modules.version_of("low"), modules.version_of("high")
assert modules.reload() == []
write("low", "def f(x): return 10 * x\\n")
space = {"g": g, "f": low.f, "h": g, "other": lambda: 1, "x": 5}
assert modules.renewed(space, modules.reload) == ["low", "high"]
assert space["g"](3) == space["h"](3) == 31 and space["f"](3) == 30 and space["x"] == 5
assert apart.LOADED == [1], "it has not changed, and uses nothing that has"
assert modules.reload() == []
assert modules.reload(["high", "not_loaded"]) == ["high"]
write("low", "def f(:\\n")
try:
    modules.reload()
except SyntaxError as error:
    print("good", Path(error.filename).name)
""") == "good low.py\n"
