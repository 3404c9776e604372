"""Engines as jobs of a real Slurm with two nodes: start, work, wait, end; nothing is left in the queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of, wait_until
from support.slurm import Slurm, jobs_of_a_killed_process

import engineroom as er

pytestmark = pytest.mark.slow


@pytest.fixture
def on_slurm(slurm: Slurm, tmp_path: Path) -> Iterator[Any]:
    """Makes clusters whose engines are jobs of Slurm; at the end nothing is left in the queue or running."""
    made: list[er.Cluster] = []

    def make(n: int, **options: Any) -> er.Cluster:
        folder = tmp_path / f"cluster{len(made)}"
        cluster = er.Cluster(engines="slurm", n=n, profile_dir=folder, controller_ip="127.0.0.1", poll_seconds=0.3,
                             **options)  # fmt: skip
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.stop_cluster_sync()
    wait_until(lambda: not slurm.queue)
    wait_until(lambda: not processes_of(tmp_path))


def where(_: int) -> tuple[str, str]:
    return os.environ["SLURM_JOB_ID"], os.environ["SLURMD_NODENAME"]


def test_an_array_of_jobs_starts_engines_on_both_nodes(on_slurm: Any, slurm: Slurm):
    with on_slurm(n=7, engines_per_job=2, walltime="10m", job_name="rooms") as rc:
        assert len(rc) == 7
        jobs = rc[:].apply_sync(where, 0)
        assert sorted([job for job, _ in jobs].count(job) for job, _ in jobs) == [1, 2, 2, 2, 2, 2, 2]
        assert {node for _, node in jobs} == {"n1", "n2"}
        assert "rooms" in slurm.ask("squeue", "-h", "-o", "%j")
        assert rc.load_balanced_view().map_sync(abs, range(-100, 0)) == list(range(100, 0, -1))
        launcher = rc.cluster.engine_set
        assert launcher.running
        assert launcher.explain() == ""
    assert slurm.queue == []


def test_a_profile_and_a_class_as_ipyparallel_has_them(slurm: Slurm, tmp_path: Path):
    folder = tmp_path / "profile_old"
    folder.mkdir(mode=0o700)
    template = "#!/bin/sh\n#SBATCH --ntasks={n}\n#SBATCH --output={output_file}\nsrun ipengine\n"
    (folder / "ipcluster_config.py").write_text(
        "c = get_config()\n"
        "c.Cluster.engine_launcher_class = 'ipyparallel.cluster.launcher.SlurmEngineSetLauncher'\n"
        "c.SlurmLauncher.timelimit = '0:10:00'\n"
        "c.SlurmLauncher.options = '--comment=as-before'\n"
        "c.BaseLauncher.environment.update({'OF_THE_SITE': 'yes'})\n"
        "c.SlurmEngineSetLauncher.submit_command = ['sbatch']\n"
        f"c.SlurmEngineSetLauncher.batch_template = {template!r}\n"
    )
    with er.Cluster(n=3, profile_dir=folder, controller_ip="127.0.0.1") as rc:
        assert rc[:].apply_sync(os.getenv, "OF_THE_SITE") == ["yes"] * 3
        assert len({job for job, _ in rc[:].apply_sync(where, 0)}) == 1
        assert "as-before 10:00" in slurm.ask("squeue", "-h", "-o", "%k %l")
    assert slurm.queue == []
    wait_until(lambda: not processes_of(tmp_path))


def test_a_job_that_waits_is_explained_and_cancelled(on_slurm: Any, slurm: Slurm):
    with pytest.raises(TimeoutError, match=r"Slurm job \d+: 2 of 2 pending for \d+ s \(BeginTime\)"):
        on_slurm(n=2, engine_timeout=8.0, extra_lines=["#SBATCH --begin=now+1hour"]).start_and_connect_sync()
    assert slurm.queue == []


def test_a_refused_job_is_told_in_slurms_own_words(on_slurm: Any):
    with pytest.raises(er.LaunchError, match=r"Slurm did not take the job: .*invalid partition specified: fast"):
        on_slurm(n=2, queue="fast").start_cluster_sync()


def test_a_job_that_fails_is_told_with_its_log(on_slurm: Any):
    with pytest.raises(er.LaunchError, match=r"1 ended \(FAILED.*no such module"):
        on_slurm(n=1, setup=["echo no such module", "exit 7"]).start_and_connect_sync()


@pytest.mark.fault(48)
def test_a_node_that_fails_takes_its_engines_and_no_others(on_slurm: Any, slurm: Slurm):
    with on_slurm(n=2, cores=4, extra_lines="#SBATCH --no-requeue") as rc:
        nodes = dict(zip(rc.ids, [node for _, node in rc[:].apply_sync(where, 0)], strict=True))
        assert set(nodes.values()) == {"n1", "n2"}
        slurm.ask("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        wait_until(lambda: len(rc) == 1)
        assert nodes[rc.ids[0]] == "n1"
        assert rc.load_balanced_view().map_sync(abs, [-1, -2]) == [1, 2]
        wait_until(lambda: "1 ended (NODE_FAIL" in rc.cluster.engine_set.explain())
        wait_until(lambda: "down" not in slurm.ask("sinfo", "-h", "-N", "-o", "%T"))  # the node has reported


def hold(gate: str) -> str:
    """Runs until a file appears."""
    import time

    while not os.path.exists(gate):
        time.sleep(0.05)
    return os.environ.get("SLURM_JOB_ID", "no job")


@pytest.mark.parametrize("how", ["walltime", "signal"])
def test_a_job_that_must_end_gives_back_what_it_runs(how: str, on_slurm: Any, slurm: Slurm, tmp_path: Path):
    walltime = ["--walltime=4", "--drain=2"] if how == "walltime" else []
    with on_slurm(n=1, engine_args=walltime) as rc:
        cluster, gate = rc.cluster, tmp_path / "gate"
        result = rc.load_balanced_view().apply_async(hold, str(gate))  # retries=0
        wait_until(lambda: result.started)
        if how == "signal":
            slurm.ask("scancel", "--full", "--signal=USR1", cluster.engine_set.to_dict()["job_id"])
            wait_until(lambda: "no more tasks are taken" in cluster.engine_set.get_output())
            waits = rc.load_balanced_view().apply_async(abs, -1)
            gate.touch()  # it may finish what it runs
            assert result.get(timeout=60) != "no job"
        wait_until(lambda: not rc.ids)
        wait_until(lambda: not slurm.queue)
        gate.touch()
        here = er.Cluster.from_file(cluster.cluster_file)
        here.start_engines_sync(1)  # on this host
        if how == "signal":
            assert waits.get(timeout=60) == 1
        else:
            assert result.get(timeout=60) == "no job"
            record = rc.db_query({"msg_id": result.msg_id}, keys=["attempts"])[0]
            first, second = record["attempts"]
            assert first["cause"] == "preempted: the walltime of its job (4 s) ends"
            assert second["cause"] == "ok"
        here.stop_engines_sync()


def test_another_process_finds_the_jobs_and_stops_them(on_slurm: Any, slurm: Slurm):
    cluster = on_slurm(n=1)
    cluster.start_cluster_sync()
    found = er.Cluster.from_file(cluster.cluster_file)
    assert found.engine_set is not None
    assert found.engine_set.running
    found.stop_engines_sync()
    assert slurm.queue == []


def test_a_batch_system_that_the_user_describes(slurm: Slurm, tmp_path: Path):
    cluster = er.Cluster(
        engines="batch",
        n=2,
        profile_dir=tmp_path,
        controller_ip="127.0.0.1",
        template="#!/bin/sh\n#SBATCH -o {output_file}\n{environment}\nexec {program_and_args}\n",
        submit_command="sbatch",
        job_id_regexp=r"batch job (\d+)",
        status_command="squeue --noheader --job={job}",
        delete_command=["scancel", "{job}"],
        poll_seconds=0.3,
    )
    with cluster as rc:
        assert len({job for job, _ in rc[:].apply_sync(where, 0)}) == 1
        found = er.Cluster.from_file(cluster.cluster_file)
        found.stop_engines_sync()
        assert slurm.queue == []
    with pytest.raises(er.ConfigError, match="the launcher batch needs the option submit_command"):
        er.Cluster(engines="batch", n=2, profile_dir=tmp_path).dry_run()


def test_jobs_that_wait_are_cancelled_when_the_process_that_wanted_them_is_killed(slurm: Slurm, tmp_path: Path):
    assert jobs_of_a_killed_process(slurm, f"engines='slurm', n=2, profile_dir={str(tmp_path)!r}") == 2
    wait_until(lambda: slurm.queue == [])
    wait_until(lambda: not processes_of(tmp_path))


def test_the_command_line_starts_and_stops(slurm: Slurm, tmp_path: Path):
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "engineroom.cluster", *words, f"--profile-dir={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    assert "#SBATCH --time=01:30:00" in run("start", "-n2", "--engines=slurm", "--walltime=90m", "--dry-run")
    assert "2 engines ready" in run("start", "-n2", "--engines=slurm", "--queue=debug", "--ip=127.0.0.1", "--daemonize")
    try:
        assert "slurm" in run("list")
        assert "1 engine added" in run("engines", "-n1", "--engines=slurm")
        assert len(slurm.queue) == 3
    finally:
        run("stop")
    assert slurm.queue == []
    wait_until(lambda: not processes_of(tmp_path))
