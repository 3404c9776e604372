"""Launchers by name, and those that other packages offer."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import engineroom as er
from engineroom.errors import ConfigError
from engineroom.launchers import registry
from engineroom.launchers.local import LocalEngines


def test_every_launcher_of_ours_has_what_a_launcher_needs():
    for name in registry.OURS:
        kind = registry.launcher_class(name.upper())
        for attribute in ("Options", "sections", "former_names", "reaches_hosts", "restarts", "preview", "from_dict",
                          "start", "stop", "signal", "join", "on_stop", "get_output", "explain",
                          "to_dict"):  # fmt: skip
            assert hasattr(kind, attribute), (name, attribute)
        assert set(kind.former_names.values()) <= set(kind.Options.__struct_fields__)


def test_an_unknown_launcher_is_told_which_there_are():
    with pytest.raises(ConfigError, match=r"there is no launcher 'teleport'; .* local, mpi, ssh, .*htcondor"):
        registry.launcher_class("teleport")


class Elsewhere(LocalEngines):
    """As another package may have it."""


def test_another_package_offers_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    offered = {
        "elsewhere": metadata.EntryPoint("elsewhere", f"{__name__}:Elsewhere", registry.GROUP),
        "broken": metadata.EntryPoint("broken", "no_such_module_at_all:X", registry.GROUP),
    }
    monkeypatch.setattr(registry, "_offered", lambda: offered)
    assert registry.launcher_class("elsewhere") is Elsewhere
    assert registry.names()[-2:] == ["elsewhere", "broken"]
    assert "engineroom.engine" in er.Cluster(engines="elsewhere", n=2, profile_dir=tmp_path).dry_run()
    with pytest.raises(ConfigError, match="the launcher broken cannot be used here: No module named"):
        registry.launcher_class("broken")


@pytest.mark.parametrize("section", ["BatchSystemLauncher", "SlurmLauncher", "SlurmEngineSetLauncher"])
def test_options_come_from_a_configuration_file(section: str, tmp_path: Path):
    (tmp_path / "ipcluster_config.py").write_text(
        f"c = get_config()\nc.Cluster.engine_launcher_class = 'slurm'\nc.{section}.queue = 'long'\n"
        "c.Cluster.n = 3\n"
    )
    assert "#SBATCH --partition=long" in er.Cluster(profile_dir=tmp_path).dry_run()
    assert "#SBATCH --partition=short" in er.Cluster(profile_dir=tmp_path, queue="short").dry_run()


def test_the_names_that_ipyparallels_users_know(tmp_path: Path):
    config: dict[str, Any] = {"SlurmEngineSetLauncher": {"timelimit": "1:00:00", "options": "#SBATCH --qos=high"}}
    made = er.Cluster(profile_dir=tmp_path, engines="Slurm", n=1, config=config).dry_run()
    assert "#SBATCH --time=01:00:00\n#SBATCH --qos=high\n" in made


def test_engines_on_other_hosts_make_the_controller_listen(tmp_path: Path):
    assert er.Cluster(engines="slurm", profile_dir=tmp_path).controller_ip == "*"
    assert er.Cluster(engines="slurm", controller_ip="10.0.0.1", profile_dir=tmp_path).controller_ip == "10.0.0.1"
    assert er.Cluster(profile_dir=tmp_path).controller_ip == ""


def test_the_command_line_reads_the_same_configuration(tmp_path: Path):
    (tmp_path / "ipcluster_config.py").write_text(
        "c = get_config()\nc.Cluster.engine_launcher_class = 'ssh'\nc.Cluster.n = 3\n"
        "c.SSHEngineSetLauncher.engines = {'node1': 2, 'node2': 1}\nc.SSHLauncher.ssh_args = '-F my_config'\n"
    )
    command = [sys.executable, "-m", "engineroom.cluster", "start", "--dry-run", f"--profile-dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]  # variables through stdin
    assert [line.split()[:8] for line in lines] == [
        ["ssh", "-T", "-o", "BatchMode=yes", "-F", "my_config", host, "'exec"] for host in ("node1", "node2")
    ]
    assert done.stderr == ""
