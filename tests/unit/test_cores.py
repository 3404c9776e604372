"""How many cores and how much memory a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engineroom.cluster.commands import engines_to_start
from engineroom.cores import out_of_memory_kills, usable_cores, usable_memory

V1 = "sys/fs/cgroup/cpu,cpuacct"
V2 = "sys/fs/cgroup"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of 16 cores, all of them ours, without cgroups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write


def test_without_a_quota_the_affinity_counts(root, monkeypatch):
    assert usable_cores(root({})) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert usable_cores(root({})) == 2


def test_a_quota_of_cgroup_version_2(root):
    assert usable_cores(root({"proc/self/cgroup": "0::/job", f"{V2}/job/cpu.max": "400000 100000"})) == 4
    assert usable_cores(root({f"{V2}/job/cpu.max": "150000 100000"})) == 2
    assert usable_cores(root({f"{V2}/job/cpu.max": "5000 100000"})) == 1
    assert usable_cores(root({f"{V2}/job/cpu.max": "max 100000"})) == 16


def test_the_least_quota_of_a_cgroup_and_those_above_it_counts(root):
    files = {
        "proc/self/cgroup": "0::/slurm/job/step",
        f"{V2}/slurm/cpu.max": "800000 100000",
        f"{V2}/slurm/job/cpu.max": "300000 100000",
        f"{V2}/slurm/job/step/cpu.max": "max 100000",
    }
    assert usable_cores(root(files)) == 3


def test_a_quota_of_cgroup_version_1(root):
    files = {
        "proc/self/cgroup": "11:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job",
        f"{V1}/job/cpu.cfs_quota_us": "600000",
        f"{V1}/job/cpu.cfs_period_us": "100000",
    }
    assert usable_cores(root(files)) == 6
    assert usable_cores(root({f"{V1}/job/cpu.cfs_quota_us": "-1"})) == 16


def test_a_container_that_sees_its_cgroup_as_the_root(root):
    files = {"proc/self/cgroup": "0::/docker/0123", f"{V2}/cpu.max": "200000 100000"}
    assert usable_cores(root(files)) == 2
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/0123",
        f"{V1}/cpu.cfs_quota_us": "300000",
        f"{V1}/cpu.cfs_period_us": "100000",
        f"{V2}/cpu.max": "nonsense",
    }
    assert usable_cores(root(files)) == 3


def test_a_quota_does_not_add_cores(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert usable_cores(root({"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "800000 100000"})) == 1


def test_a_cluster_has_an_engine_for_each_usable_core(monkeypatch):
    monkeypatch.setattr("engineroom.cluster.commands.usable_cores", lambda: 7)
    assert engines_to_start(None) == 7
    assert engines_to_start(3) == 3


def test_the_lowest_memory_limit_counts(root):
    machine = usable_memory(root({}))
    assert machine == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory(root({"proc/self/cgroup": "0::/job/step", f"{V2}/job/step/memory.max": "max"})) == machine
    assert usable_memory(root({f"{V2}/job/memory.max": "1000000"})) == 1_000_000
    v1 = {"proc/self/cgroup": "5:memory:/job", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2000000"}
    assert usable_memory(root(v1)) == 2_000_000


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("0::/job/step", f"{V2}/job/step/memory.events", "low 0\nmax 40\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("5:memory:/job", "sys/fs/cgroup/memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2"),
        ("0::/", "proc/vmstat", "nr_free_pages 1000\noom_kill 2\n"),
    ],
    ids=["version2", "version1", "machine"],
)
def test_processes_that_the_kernel_killed_for_want_of_memory_are_counted(root, group, file, text):
    everybody = {"proc/vmstat": "oom_kill 77\n"} if file != "proc/vmstat" else {}
    assert out_of_memory_kills(root({**everybody, "proc/self/cgroup": group, file: text})) == 2


def test_where_the_kernel_does_not_count_none_were_killed(root):
    assert out_of_memory_kills(root({"proc/vmstat": "oom_kill many\n"})) == 0
