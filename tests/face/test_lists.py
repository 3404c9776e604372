"""Lists that programs written for ipyparallel rely upon: errors, keys of records and of metadata, options of tools."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

import engineroom as ipp
from engineroom.cli import ipcluster, ipcontroller, ipengine
from engineroom.client.client import Metadata

#: class → its base
ERRORS = {
    "KernelError": "IPythonError",
    "EngineError": "KernelError",
    "NoEnginesRegistered": "KernelError",
    "TaskAborted": "KernelError",
    "TaskTimeout": "KernelError",
    "TaskRejectError": "KernelError",
    "UnmetDependency": "KernelError",
    "RemoteError": "KernelError",
    "ImpossibleDependency": "UnmetDependency",
    "InvalidDependency": "ImpossibleDependency",
    "DependencyTimeout": "ImpossibleDependency",
    "CompositeError": "RemoteError",
    "AlreadyDisplayedError": "RemoteError",
}

METADATA = (
    "msg_id submitted started completed received engine_uuid engine_id follow after status execute_input "
    "execute_result error stdout stderr outputs data label"
)

RECORD = (
    "msg_id header content metadata buffers submitted client_uuid engine_uuid started completed received resubmitted "
    "result_header result_metadata result_content result_buffers queue execute_input execute_result error stdout "
    "stderr label"
)

#: tool → its options, as somebody types them; the last ones are those that take no value
OPTIONS: dict[str, tuple[Any, str]] = {
    "ipcluster start": (
        ipcluster.IPClusterStart,
        "-n=2 --engines=local --controller=local --ip=* --location=h --delay=1 --profile=p --profile-dir=d "
        "--cluster-id=c --work-dir=. --ipython-dir=d --log-url=u --log-level=INFO --daemonize --debug --quiet "
        "--log-to-file --clean-logs --init --show-config --show-config-json",
    ),
    "ipcluster engines": (
        ipcluster.IPClusterEngines,
        "-n=2 --engines=local --profile=p --cluster-id=c --log-level=20 --debug --quiet --daemonize --show-config",
    ),
    "ipcluster stop": (
        ipcluster.IPClusterStop,
        "--signal=2 --profile=p --cluster-id=c --log-level=WARN --all --debug --quiet --show-config-json",
    ),
    "ipcluster list": (ipcluster.IPClusterList, "-o=json --profile=p --log-level=ERROR --quiet --show-config"),
    "ipcluster clean": (ipcluster.IPClusterClean, "--profile=p --log-level=ERROR --all --force --quiet --show-config"),
    "ipcontroller": (
        ipcontroller.IPController,
        "--ip=* --location=h --port=5000 --ports=1000-1010 --transport=tcp --ssh=h --enginessh=h --ping=1000 "
        "--scheme=lru --hwm=1 --ident=i --user=u --keyfile=k --log-level=INFO --work-dir=. --profile=p --cluster-id=c "
        "--dictdb --sqlitedb --mongodb --nodb --reuse --restore --usethreads --secure --no-secure --debug --quiet "
        "--log-to-file --clean-logs --init --show-config --show-config-json",
    ),
    "ipengine": (
        ipengine.IPEngine,
        "--file=f --url=u -c=x=1 -s=f --ssh=h --sshkey=k --location=h --timeout=5 --cluster-id=c --profile=p "
        "--log-level=DEBUG --mpi --debug --quiet --show-config --show-config-json",
    ),
}


@pytest.fixture(scope="module")
def rc(cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(2, timeout=30)
        yield client


@pytest.mark.parametrize(("name", "base"), ERRORS.items())
def test_errors_are_of_their_kind(name: str, base: str):
    for error in (getattr(ipp, name), getattr(ipp.error, name)):
        assert issubclass(error, getattr(ipp, base))
    assert ipp.error.TimeoutError is TimeoutError


def test_metadata_has_its_keys(rc: ipp.Client):
    result = rc.load_balanced_view().apply_async(os.getpid)
    result.get()
    for key in METADATA.split():
        assert key in result.metadata
        assert getattr(result.metadata, key) == result.metadata[key] == result[key] == getattr(result, key)
        assert key in dir(result)
    for key in ("submitted", "started", "completed", "received"):
        assert result.metadata[key].tzinfo is not None
    with pytest.raises(AttributeError):
        Metadata().other = 1


def test_records_have_their_keys(rc: ipp.Client):
    result = rc[0].execute("6 * 7", silent=False)
    result.get()
    [record] = rc.db_query({"msg_id": result.msg_ids[0]})
    assert [key for key in RECORD.split() if key not in record] == ["buffers", "result_buffers"], "only if asked for"
    for key in RECORD.split():
        [asked] = rc.db_query({"msg_id": result.msg_ids[0]}, keys=[key])
        assert key in asked
        assert asked.get(key, "none") == asked[key]
        assert len(asked) <= 2
    assert asked.get("stdout", "none") == "none"
    assert record["execute_input"] == "6 * 7"
    assert record["execute_result"]["data"]["text/plain"] == "42"
    assert all(isinstance(record[key], datetime) for key in ("submitted", "started", "completed"))
    assert record["queue"] == "mux"


@pytest.mark.parametrize(
    "condition",
    [{"$eq": "a-1"}, {"$in": ["a-1"]}, {"$glob": "a-*"}, {"$gt": "a-0"}, {"$gte": "a-1"}, {"$lt": "b"}, {"$lte": "a-1"},
     {"$nin": ["b", "", None]}, {"$ne": "b", "$glob": "*"}, "a-1"],
)  # fmt: skip
def test_operators_find(rc: ipp.Client, condition: Any):
    result = rc.load_balanced_view(label="a-1").apply_async(os.getpid)
    result.get()
    found = rc.db_query({"label": condition, "msg_id": result.msg_ids[0]}, keys="label")
    assert [record["label"] for record in found] == ["a-1"]


@pytest.mark.parametrize("name", OPTIONS)
def test_tools_take_their_options(name: str):
    tool, options = OPTIONS[name]
    parsed = tool()
    parsed.parse_command_line(options.split())
    known = {option.lstrip("-").partition("=")[0] for option in options.split()}
    for option in known:
        assert option in parsed.aliases or option in parsed.flags or option in parsed.former, option
