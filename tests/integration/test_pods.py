"""The commands of the manifests, run on this host: what Kubernetes does around them is not there.

What the pods mount is in folders of the test. The names of hosts in the files are those of this host.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until

import engineroom as er
from engineroom.cluster import kubernetes
from engineroom.transport import new_identity

pytestmark = pytest.mark.slow


class Pods:
    """The containers of the manifests as processes."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        options = kubernetes.KubernetesOptions(image="engines", name="localhost", port=port, grace=20)
        certificate, hidden = new_identity()
        keys = kubernetes.secret(options, kubernetes.new_connection(options, certificate), hidden)
        self._mounts = {kubernetes.FILES: folder / "files", kubernetes.PROFILE: folder / "run"}
        self._mounts[kubernetes.DATA] = folder / "data"
        for each in self._mounts.values():
            each.mkdir()
        for name, content in keys["data"].items():
            path = folder / "files" / name
            path.write_bytes(base64.b64decode(content))
            path.chmod(0o440)
        self.client_file = folder / "files" / kubernetes.CLIENT_FILE
        self._specs = {each["kind"]: each["spec"]["template"]["spec"] for each in kubernetes.manifests(options)[1:]}
        self.running: list[subprocess.Popen[bytes]] = []

    def command(self, kind: str, **changed: object) -> list[str]:
        """The command of a kind of pod, with other values of some of its options."""
        [container] = self._specs[kind]["containers"]
        program, *words = container["command"]
        module = {"ipcontroller": "engineroom.controller", "ipengine": "engineroom.engine"}[program]
        for mounted, folder in self._mounts.items():
            words = [word.replace(mounted, str(folder)) for word in words]
        for name, value in changed.items():
            words = [f"--{name}={value}" if word.startswith(f"--{name}=") else word for word in words]
        return [sys.executable, "-m", module, *words]

    def start(self, kind: str, **changed: object) -> subprocess.Popen[bytes]:
        with (self._folder / f"{kind}.log").open("ab") as log:
            pod = subprocess.Popen(self.command(kind, **changed), stdout=log, stderr=log, start_new_session=True)
        self.running.append(pod)
        return pod

    def log(self, kind: str) -> str:
        return (self._folder / f"{kind}.log").read_text()


@pytest.fixture
def pods(tmp_path: Path, free_port: int) -> Iterator[Pods]:
    made = Pods(tmp_path, free_port)
    yield made
    for pod in made.running:
        pod.kill()
        pod.wait()
    wait_until(lambda: not processes_of(tmp_path))


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def slow(seconds: float, item: int) -> int:
    time.sleep(seconds)
    return item


def long(folder: str) -> int:
    """Takes long in the first engine that has it, and no time in the second one."""
    first = Path(folder, "first")
    if not first.exists():
        first.touch()
        time.sleep(60)
    return os.getpid()


def test_a_client_outside_finds_controller_and_engines_with_the_file_of_the_secret(pods: Pods):
    pods.start("StatefulSet")
    pods.start("Deployment")
    with er.Client(pods.client_file, timeout=60) as rc:
        assert rc.connection.urls[0].startswith("tcp://localhost:")
        rc.wait_for_engines(1, timeout=60)
        assert rc.load_balanced_view().map_sync(abs, range(-20, 0)) == list(range(20, 0, -1))
    key = json.loads(pods.client_file.read_text())["key"]
    for pod in pods.running:
        assert key.encode() not in Path(f"/proc/{pod.pid}/cmdline").read_bytes()


def test_a_pod_of_the_controller_that_is_moved_loses_nothing(pods: Pods):
    controller = pods.start("StatefulSet", **{"IPController.recovery_grace": 2})
    pods.start("Deployment")
    with er.Client(pods.client_file, timeout=60) as rc:
        rc.wait_for_engines(1, timeout=60)
        results = rc.load_balanced_view().map_async(slow, [0.05] * 60, range(60), chunksize=1)
        wait_until(lambda: results.progress > 5)
        controller.send_signal(signal.SIGTERM)
        assert controller.wait(60) == 128 + signal.SIGTERM
        pods.start("StatefulSet", **{"IPController.recovery_grace": 2})
        assert results.get(timeout=60) == list(range(60))
        assert len(rc.db_query({"state": "completed"})) == 60


def test_an_engine_that_is_told_to_stop_finishes_what_it_runs(pods: Pods):
    pods.start("StatefulSet")
    leaving = pods.start("Deployment")
    with er.Client(pods.client_file, timeout=60) as rc:
        rc.wait_for_engines(1, timeout=60)
        view = rc.load_balanced_view()
        results = view.map_async(slow, [2.0] + [0.0] * 9, range(10), chunksize=1)
        wait_until(lambda: rc.get_result(results.msg_ids[0]).started)
        leaving.send_signal(signal.SIGTERM)
        pods.start("Deployment")
        assert results.get(timeout=60) == list(range(10))
        assert leaving.wait(60) == 0
        assert "no more tasks are taken: it was told to stop (SIGTERM)" in pods.log("Deployment")
        engines = [record["engine_uuid"] for record in rc.db_query({}, keys=["engine_uuid"])]
        assert engines.count(engines[0]) < 10  # the others ran on the engine that came
        assert all(len(record["attempts"]) == 1 for record in rc.db_query({}, keys=["attempts"]))


def test_what_takes_too_long_goes_elsewhere_at_no_cost_to_its_retries(pods: Pods, tmp_path: Path):
    pods.start("StatefulSet")
    leaving = pods.start("Deployment", grace=1)
    with er.Client(pods.client_file, timeout=60) as rc:
        rc.wait_for_engines(1, timeout=60)
        result = rc.load_balanced_view().apply_async(long, str(tmp_path))
        wait_until(lambda: (tmp_path / "first").exists())
        leaving.send_signal(signal.SIGTERM)
        pods.start("Deployment")
        assert isinstance(result.get(timeout=60), int)
        assert leaving.wait(60) == 0
        [record] = rc.db_query({"msg_id": result.msg_ids[0]}, keys=["attempts"])
        first: Any = record["attempts"][0]
        assert "preempted: it was told to stop (SIGTERM)" in json.dumps(first, default=str)


def test_a_second_sigterm_means_now(pods: Pods, tmp_path: Path):
    pods.start("StatefulSet")
    leaving = pods.start("Deployment", grace=300)
    with er.Client(pods.client_file, timeout=60) as rc:
        rc.wait_for_engines(1, timeout=60)
        rc.load_balanced_view().apply_async(long, str(tmp_path))
        wait_until(lambda: (tmp_path / "first").exists())
        leaving.send_signal(signal.SIGTERM)
        wait_until(lambda: "it was told to stop" in pods.log("Deployment"))
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(60) == 0  # and not after its grace


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--identity=/no/such-client.json", "--ip=127.0.0.1"], "cannot read the connection file /no/such-client.json"),
        (["--identity=/no/such-client.json"], "say --ip='*', too"),
    ],
)
def test_an_identity_that_cannot_be_used_is_refused(tmp_path: Path, words: list[str], said: str):
    done = subprocess.run(
        [sys.executable, "-m", "engineroom.controller", f"--profile-dir={tmp_path}", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_the_secret_of_an_identity_must_be_there(pods: Pods, tmp_path: Path):
    (tmp_path / "files" / kubernetes.SECRET_FILE).unlink()
    done = subprocess.run(pods.command("StatefulSet"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot read" in done.stderr
    assert "the secret of --identity=" in done.stderr
