"""What Engineroom 0.1 pickled can still be unpickled, though its modules have other names now."""

from __future__ import annotations

import base64
import importlib
import pickle
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import engineroom as er
from engineroom.ids import digest_of
from engineroom.messages import Function
from engineroom.on_engine import datapub, engine_calls, task_context
from engineroom.wire import functions, input_cache, payload
from engineroom.wire.former_names import FORMER
from engineroom.wire.functions import load_function

#: Made by that release, on Python 3.11: functions of a script (`checked`, `plain`), functions of views, arguments.
OF_0_1: dict[str, bytes] = pickle.loads(zlib.decompress(base64.b64decode("""
eNrtlu+LG0UYx2fz+5LctVjaUlHOFyJ3VtP2TdG2nHBbChKIEIuCcAyT3Ulmzf7qzozpiYH4IvEqIyo3pa8EXwniW/+QCr7wje98r3+Cz+xm7/
bOiCf6TjcJ2Zmd5zvPj8/Mzqz6eK+J0muqt1TdYdQZU1fv0jJCs+rj98rZQ3WRhiMvpEkUBR2XxjR0aejsa7WWN4Q+1Nsfa6PSwDgkAcVYHwuq
NsYPJPGXD1hNNTEOIlf66TgwCYgXpiYYu5EDdz11DmMShpEgwotCDl1TrVoYTxISx9Q1MqVsSlZlNVaHX4OtsWaPtVibravLjh9JN/acsU87hX
utNmC2McVDGTpGGlzfYufVOh5IzxfghtiPKXSqhh259L5pzHVfb3WtLoJPqVvplu3+E+RabslHgTW1LCQq6Oj6uoxWXB8h0ThufQi/byyEvrPy
nreR7nWRasdy4HucYZcIAvN+Ahl9pph96IYhml1Rlfc5OK+qrgxirlVlQDjVQivrocnoUkcvIN477j5k3nNedSCgnUJdWK27br8yQ7/VUPXO08
rt4vfn1rnPb3166wvy1Ytfsh9amz+2Np9WNrWN9Pa2gHyoKwW3Jl5CO3lCwZmNtJ6m3Dwmjsnmdl/3ej1jyF5W5xPKRZScqAG7Ns2KWXCvXriH
qkLl8Hji0iGRvuApJABWsb1EwHACJecyoemoy7gAAOZykLHH9V6K1MiPBsTPEGOb3S0uF3rRv66sIXilrJFmCMAcSn/o+QaM6ogkI67Z83MwgA
TXR+NJ2jPVcsB22AZ7Q7VGFHLjOTERDCw87nqJiXJXWdegruyeGduBJ7EPqdK7v1rpkvtlCcTfxBedGV8LAC7bl54YINFJIA2C8xykeQrSfAU9
S4/z/+4FuzVDP7Xan4lHr83e+jcAubgakGenpzeY3JWT28tR96od5C8ROsvW9A/wah7hBcWvxBKWqH0DCv/SshB/zFoU4qwrH3+owXQtIDGOSS
K4tm+C/dWz2BeMUpHKJErGevdqKWXvhVLO3mkJxyecew4YvGsMDv/H9b+IK6RqAfEa+BI6pAmcAai27wEGt88CX4N+QHxJRFrtvGp9ne2hZif0
wlgKbd8FwddzwUunBY0GuKoa6Q2OhkatJG6AzsGiKFd3ZJKYk4n9PQh+mwtuBHzEY+p0sBSeD0L1hBoUXaNTBF8QPsZOFAr6EF6qLTtTuw+9MN
IUtgZK2IPDjUVAhQhBg1jorqXWMhXzDN7oVZ8MqA9pbwRUkPS13jMJ5JFMHMrTU00iYR14AY0g/p7Mk3zMn00ghHeWIezB3H/uaHsZNhaZpytP
D6eOGYeawnzNwsnOfhMm3Mlz9lxBwvE9UD9xCmzePW7A6t5LM0IODh6JNBDZ+R3litC8
""")))  # fmt: skip

of_this_python = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="code is pickled for one version of Python")


@pytest.fixture(autouse=True)
def namespace() -> Iterator[dict[str, Any]]:
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    functions.bind_namespace(space)
    yield space
    functions.bind_namespace(None)


def loaded(name: str) -> functions.LoadedFunction:
    return load_function(Function(digest_of(OF_0_1[name]), OF_0_1[name]))


@pytest.mark.parametrize("former", FORMER)
def test_a_former_name_gives_the_module_of_today(former: str):
    module = importlib.import_module(former)
    assert module is importlib.import_module(FORMER[former])
    assert module.__name__ == module.__spec__.name == FORMER[former]


def test_former_names_work_in_a_new_process_too():
    """Here the modules of today are imported by their former names first."""
    code = "".join(f"import {former}\n" for former in FORMER)
    code += "from engineroom.datapub import publish_data\nfrom engineroom.on_engine import datapub as now\n"
    code += "assert publish_data is now.publish_data and engineroom.datapub is now"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_of_views():
    assert loaded("push").call is engine_calls.push
    assert loaded("map_parts").call is engine_calls.map_parts


def test_arguments(namespace: dict[str, Any]):
    namespace["base"] = 7
    assert payload.loads(OF_0_1["reference"], ()) == ((7,), {})
    with input_cache.providing({"t1": payload.dumps("a result")}):
        assert payload.loads(OF_0_1["input"], ()) == (("a result",), {})
    assert payload.loads(OF_0_1["functions"], ()) == [task_context.current_task, datapub.publish_data]
    assert payload.loads(OF_0_1["current"], ()).msg_id == "a"
    assert payload.loads(OF_0_1["dependency"], ()) == er.Dependency(["a"])


@of_this_python
def test_functions_of_a_script(namespace: dict[str, Any]):
    checked = loaded("checked")
    assert isinstance(checked.call, er.dependent)
    namespace.update(checked.travelled)
    assert checked.call(2) == "42"
    assert loaded("plain").call(2) == 42


@of_this_python
def test_the_function_of_a_classic_task(namespace: dict[str, Any]):
    work = loaded("work")
    namespace.update(work.travelled)
    assert work.call(((2,), {})) == {"result": 42}
