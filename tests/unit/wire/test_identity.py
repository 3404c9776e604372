"""What makes two calls equal, in this session and in others."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engineroom.client.connection.environment import packages, platform_name, without_secrets
from engineroom.wire.functions import name_of
from engineroom.wire.identity import arguments_digest, code_digest
from engineroom.wire.source_lines import SOURCE_LIMIT, source_of

HELPERS = """
{before}
factor = {factor}
class Model:
    rate = {rate}
    def step(self, x):
        return x * self.rate
def helper(x):
    return x * factor
def work(x, y={default}):
    import math
    unrelated = x.data if hasattr(x, "data") else None
    return Model().step(helper(x)) + y + math.pi + len({{"a", "b", "c"}})
data = {data}
print(code_digest(work), arguments_digest("apply", ({{"a", "b", "c"}}, Model()), {{"k": [1]}}))
"""
PLAIN = {"before": "", "factor": 2, "rate": 3, "default": 1, "data": 0}


def in_a_session(folder: Path, hash_seed: int = 0, name: str = "script.py", **changes: object) -> list[str]:
    """The digests of `work`, and of some arguments, in a Python of its own."""
    script = folder / name
    source = HELPERS.format(**{**PLAIN, **changes})
    script.write_text("from engineroom.wire.identity import arguments_digest, code_digest\n" + source)
    environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environ)
    return done.stdout.split()


def test_another_session_another_line_and_another_file_make_no_difference(tmp_path: Path):
    first = in_a_session(tmp_path)
    assert len(first) == 2
    assert in_a_session(tmp_path, 7, "other.py", before="\n\n# moved\n\n", data=5) == first


@pytest.mark.parametrize("changes", [{"factor": 5}, {"rate": 4}, {"default": 2}], ids=str)
def test_what_a_function_does_counts_with_all_it_refers_to(tmp_path: Path, changes: dict[str, object]):
    assert in_a_session(tmp_path, **changes)[0] != in_a_session(tmp_path)[0]


def test_functions_of_ones_own_modules_count_by_the_file(tmp_path: Path):
    script = "from engineroom.wire.identity import code_digest; import mine; print(code_digest(mine.f))"

    def digest(body: str) -> str:
        (tmp_path / "mine.py").write_text(f"def f(x):\n    return {body}\n")
        environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
                   "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
        return run.stdout

    assert digest("x + 1") == digest("x + 1")
    assert digest("x + 1") != digest("x + 22")


def equal(one: object, other: object) -> bool:
    digests = [arguments_digest("apply", (value,), {}) for value in (one, other)]
    assert all(digests)
    return digests[0] == digests[1]


def test_equal_values_have_one_digest_and_others_have_others():
    text = "".join(["a", "b"])
    assert equal(["ab", "ab"], [text, "".join(["a", "b"])])
    assert equal(np.arange(9), np.arange(9))
    assert equal({"x": {1, 2}}, {"x": {2, 1}})
    assert equal(functools.partial(max, 1), functools.partial(max, 1))
    for one, other in [
        (1, 1.0), (1, True), ("1", b"1"), ((1,), [1]), ([1, [2]], [[1], 2]), (np.arange(9), np.arange(9.0)),
        (np.zeros((2, 3)), np.zeros((3, 2))), (0.0, -0.0), ({"a": 1}, {"a": 2}), (b"ab", bytearray(b"ab")),
        (functools.partial(max, 1), functools.partial(min, 1)),
    ]:  # fmt: skip
        assert not equal(one, other), (one, other)


def test_an_object_that_is_there_twice_is_not_two_objects():
    shared: list[int] = []
    assert not equal([shared, shared], [[], []])
    loop: list[object] = []
    loop.append(loop)
    assert equal(loop, loop)


def test_what_cannot_be_compared_has_no_digest():
    class Hostile:
        def __reduce_ex__(self, protocol: object) -> object:
            raise RuntimeError("no")

    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    assert arguments_digest("apply", (Hostile(),), {}) == ""
    assert arguments_digest("apply", (deep,), {}) == ""
    assert code_digest(lambda: Hostile) != code_digest(lambda: deep)


def test_lambdas_on_one_line_differ_by_what_they_do():
    one, two, three = lambda x: x + 1, lambda x: x + 2, lambda x: x + 1
    assert code_digest(one) == code_digest(three) != code_digest(two)


def test_names_and_sources_of_functions():
    def inner() -> int:
        return 1

    assert name_of(inner).endswith("test_names_and_sources_of_functions.<locals>.inner")
    assert name_of(len) == "len"
    assert name_of(functools.partial(max, 1)) == "functools.partial"
    assert source_of(inner) == "def inner() -> int:\n    return 1\n"
    assert source_of(len) == ""
    space: dict[str, object] = {}
    exec("def typed(): pass", space)
    assert source_of(space["typed"]) == ""
    assert len(source_of(in_a_session)) < SOURCE_LIMIT


def test_command_lines_are_told_without_secrets():
    words = ["run.py", "--user=me", "--password=p1", "--token", "t1", "-n", "4", "postgres://u:p@host/db", "API_KEY=k"]
    shown = without_secrets(words)
    assert shown == ["run.py", "--user=me", "--password=***", "--token", "***", "-n", "4", "postgres://***@host/db",
                     "API_KEY=***"]  # fmt: skip


def test_the_platform_is_told_as_python_tells_it():
    assert platform_name() == platform.platform()


def test_packages_are_told_with_their_versions():
    assert packages()["msgspec"] == __import__("msgspec").__version__
