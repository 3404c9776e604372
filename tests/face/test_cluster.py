"""What programs written for ipyparallel do with clusters, on the command line and off it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

import engineroom as ipp
from engineroom.cli import ipcluster, ipcontroller, ipengine
from engineroom.cli.base import UsageError


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., ipp.Cluster]]:
    """Makes clusters of a profile of their own, and stops them."""
    clusters: list[ipp.Cluster] = []

    def make(**arguments: Any) -> ipp.Cluster:
        arguments = {"n": 1, "profile_dir": tmp_path / "profile_default", "database": "memory", **arguments}
        clusters.append(ipp.Cluster(**arguments))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.stop_cluster_sync()


def test_options_of_ipcontroller_and_ipengine(made: Callable[..., ipp.Cluster], tmp_path: Path):
    script = tmp_path / "begin.py"
    script.write_text("first = 1\n")
    cluster = made(
        controller_args=["--ping=250", "--usethreads", "--HeartMonitor.max_heartmonitor_misses=40"],
        engine_args=["-s", str(script), "-c", "second = first + 1"],
    )
    with cluster as rc:
        assert rc[0].pull(["first", "second"], block=True) == [1, 2]
        [log] = (tmp_path / "profile_default" / "log").glob("ipcontroller*.log")
        assert "--usethreads has no effect" in log.read_text()


def test_code_that_raises_at_the_start_is_in_the_log(made: Callable[..., ipp.Cluster], tmp_path: Path):
    with made(engine_args=["-c", "1 / 0"]) as rc:
        assert rc[0].apply_sync(abs, -1) == 1
        [log] = (tmp_path / "profile_default" / "log").glob("ipengine*.log")
        assert "ZeroDivisionError" in log.read_text()


@pytest.mark.parametrize(
    ("tool", "words", "said"),
    [
        (ipcontroller.IPController, ["--ports=1-9", "--secure"], {"ports", "secure"}),
        (ipcontroller.IPController, ["--ssh", "login", "--hwm=1"], {"ssh"}),
        (ipcontroller.IPController, ["--IPController.use_threads=True"], {"IPController.use_threads"}),
        (ipengine.IPEngine, ["--url=tcp://a:1", "--log-to-file"], {"url", "log-to-file"}),
        (ipcluster.IPClusterStart, ["--delay", "2", "-n", "3"], {"delay"}),
        (ipcluster.IPClusterStop, ["--signal=9"], {"signal"}),
        (ipcluster.IPClusterEngines, ["--daemonize", "-n=1"], {"daemonize"}),
    ],
)
def test_options_without_effect_are_accepted_and_named(tool: Any, words: list[str], said: set[str]):
    parsed = tool()
    parsed.parse_command_line(words)
    assert set(parsed.without_effect) == said
    assert all(parsed.without_effect.values())


def test_other_options_are_refused():
    with pytest.raises(UsageError, match="no option --prots"):
        ipcontroller.IPController().parse_command_line(["--prots=1"])


def test_a_cluster_without_a_file_is_not_found(made: Callable[..., ipp.Cluster], tmp_path: Path):
    cluster = made(cluster_file="", n=1)
    assert not cluster.cluster_file
    with cluster as rc:
        cluster.start_engines_sync(1)
        rc.wait_for_engines(2, timeout=30)
        assert list(tmp_path.rglob("cluster*.json")) == []
        cluster.update_cluster_file()
        assert cluster.update_from_file() == []
        with pytest.raises(FileNotFoundError, match="no cluster was found"):
            ipp.Cluster.from_file(profile_dir=cluster.profile_dir, cluster_id=cluster.cluster_id)
    with pytest.raises(ipp.ConfigError, match="keep=True needs a cluster file"):
        made(cluster_file="", keep=True)


def test_a_cluster_found_by_a_file_writes_that_file(made: Callable[..., ipp.Cluster], tmp_path: Path):
    path = tmp_path / "elsewhere.json"
    with made(cluster_file=path) as rc:
        found = ipp.Cluster.from_file(path)
        found.start_engines_sync(1)
        rc.wait_for_engines(2, timeout=30)
        assert list(tmp_path.rglob("cluster*.json")) == []
        assert len(json.loads(path.read_text())["engines"]) == 2
        assert len(rc.cluster.update_from_file()) == 1
    assert not path.exists()


def test_a_cluster_that_does_not_run_says_how_to_start_it(made: Callable[..., ipp.Cluster]):
    cluster = made()
    for call in (cluster.connect_client_sync, lambda: cluster.signal_engine_sync(2, 0), lambda: cluster.scale_sync(2)):
        with pytest.raises(ipp.ConfigError, match=r"not running. start_cluster_sync\(\) starts it"):
            call()


FACTS = (
    "running state args arg_str find_args get_env work_dir profile_dir cluster_id n environment stop_timeout "
    "output_limit start stop signal join get_output on_stop to_dict"
)


def test_launchers_that_run_have_the_facts_that_programs_read(made: Callable[..., ipp.Cluster], tmp_path: Path):
    cluster = made(cluster_id="facts", environment={"MINE": "set"})
    with cluster:
        found = ipp.Cluster.from_file(cluster.cluster_file)
        for cluster_of in (cluster, found):
            for launcher in (cluster_of.controller, cluster_of.engine_set):
                assert [name for name in FACTS.split() if not hasattr(launcher, name)] == []
                assert (launcher.running, launcher.state, launcher.n) == (True, "running", 1)
                assert launcher.cluster_id == "facts"
                assert launcher.profile_dir == str(tmp_path / "profile_default")
                assert launcher.args == launcher.find_args()
                assert launcher.stop_timeout > 0
                assert launcher.output_limit > 0
                assert "engineroom" in launcher.arg_str
            assert "engineroom.controller" in cluster_of.controller.args
            assert "engineroom.engine" in cluster_of.engine_set.args
        assert cluster.engine_set.environment["MINE"] == "set"
        assert cluster.engine_set.get_env()["MINE"] == "set"
        with pytest.raises(ValueError, match="no signal 'SIGX'"):
            cluster.controller.signal("SIGX")


def test_a_launcher_takes_signals_by_name_and_gives_its_log_away(made: Callable[..., ipp.Cluster], tmp_path: Path):
    from engineroom.launchers import FoundProcess, LocalProcess

    log = tmp_path / "log" / "sleep.log"
    process = LocalProcess(["sh", "-c", "echo begun; exec sleep 60"], log)
    codes: list[int] = []
    process.on_stop(codes.append)
    process.start()
    assert process.args[0] == "sh"
    assert process.pid is not None
    found = FoundProcess(process.pid, "sleep", log)
    wait_until(lambda: "begun" in process.get_output())
    found.signal("SIGTERM")
    assert process.join(60)
    wait_until(lambda: codes == [-15])
    process.on_stop(codes.append)  # it has ended: the callback is called at once
    assert codes == [-15, -15]
    assert (process.state, found.state) == ("after", "after")
    assert process.get_output(remove=True) == "begun\n"
    assert (log.exists(), process.get_output()) == (False, "")
    process.stop()


@pytest.mark.parametrize(
    ("main", "words", "shown"),
    [
        (ipcluster.main, ["start", "-n=3", "--show-config"], "Cluster\n  .n = 3\n"),
        (ipcluster.main, ["list", "--show-config-json", "--log-level=ERROR"], '"log_level": "ERROR"'),
        (ipcontroller.main, ["--show-config-json", "--hwm=7"], '"hwm": 7'),
        (ipengine.main, ["--show-config", "-n=2"], "IPEngine\n  .n = 2\n"),
    ],
)
def test_tools_show_their_configuration_and_do_nothing(
    main: Any, words: list[str], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "profile_x"
    assert main([*words, f"--profile-dir={folder}"]) == 0
    assert shown in capsys.readouterr().out
    assert not folder.exists()


def test_a_higher_log_level_leaves_out_what_ipcluster_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = f"--profile-dir={tmp_path}"
    assert ipcluster.main(["clean", where]) == 0
    assert capsys.readouterr().out == "Nothing to clean.\n"
    for option in ("--quiet", "--log-level=WARN", "--log-level=40"):
        assert ipcluster.main(["clean", where, option]) == 0
        assert capsys.readouterr().out == ""
    assert ipcluster.main(["clean", where, "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["cluster", "controller", "engine"])
def test_tools_are_modules_too(module: str):
    command = [sys.executable, "-m", f"engineroom.{module}", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{ipp.__version__}\n"


def test_a_configuration_has_values_for_arguments_that_are_not_given(tmp_path: Path):
    from traitlets.config import Config

    config = Config()
    config.Cluster.n = 3
    config.Cluster.controller_args = ["--nodb"]
    config.Cluster.engine_launcher_class = "Local"
    cluster = ipp.Cluster(config=config, profile_dir=tmp_path)
    assert (cluster.n, cluster.controller_args, cluster.engine_launcher_class) == (3, ["--nodb"], "Local")
    assert ipp.Cluster(config=config, n=1, profile_dir=tmp_path).n == 1
    with pytest.raises(ipp.ConfigError, match="there is no launcher 'WinHPC'; the launchers there are: local, mpi"):
        ipp.Cluster(engine_launcher_class="WinHPC", profile_dir=tmp_path)


def test_the_profiles_configuration_has_values_too(tmp_path: Path):
    (tmp_path / "ipcluster_config.py").write_text(
        "c = get_config()\nc.Cluster.n = 3\nc.Cluster.controller_ip = '127.0.0.1'\nc.Cluster.engine_args = ['--mpi']\n"
    )
    (tmp_path / "ipcluster_config.json").write_text('{"Cluster": {"n": 4}}')
    cluster = ipp.Cluster(profile_dir=tmp_path)
    assert (cluster.n, cluster.controller_ip, cluster.engine_args) == (4, "127.0.0.1", ["--mpi"])
    assert ipp.Cluster(profile_dir=tmp_path, n=1).n == 1
    assert ipp.Cluster(profile_dir=tmp_path, load_profile=False).n is None
    assert ipp.Cluster(profile_dir=tmp_path, config={"Cluster": {"n": 2}}).n == 2
    (tmp_path / "ipcluster_config.json").write_text("{")
    with pytest.raises(ipp.ConfigError, match="cannot be read: "):
        ipp.Cluster(profile_dir=tmp_path)
    (tmp_path / "ipcluster_config.json").chmod(0o666)
    with pytest.raises(ipp.ConfigError, match="another user may have written it"):
        ipp.Cluster(profile_dir=tmp_path)


def test_a_manager_keeps_clusters_by_name(made: Callable[..., ipp.Cluster], tmp_path: Path):
    manager = ipp.ClusterManager()
    folder = tmp_path / "profile_default"
    key, cluster = manager.new_cluster(profile_dir=folder, cluster_id="mine")
    assert key == "default:mine"
    assert manager.get_cluster(key) is cluster
    with pytest.raises(KeyError, match="already"):
        manager.new_cluster(profile_dir=folder, cluster_id="mine")
    manager.remove_cluster(key)
    with pytest.raises(KeyError, match="there is no cluster"):
        manager.get_cluster(key)

    running = made(n=0, cluster_id="night")
    running.start_cluster_sync()
    found = manager.load_clusters(profile_dir=folder)
    assert list(found) == ["default:night"]
    assert found["default:night"].controller.pid == running.controller.pid
    running.stop_cluster_sync()
    assert set(manager.load_clusters(profile_dirs=[folder], init_default_clusters=True)) >= {"default:"}


def test_files_of_killed_clusters_are_cleaned(made: Callable[..., ipp.Cluster], tmp_path: Path):
    from engineroom.cluster import clean_cluster_files

    cluster = made(n=0)
    cluster.start_cluster_sync()
    clean_cluster_files([cluster.profile_dir])
    assert cluster.cluster_file.exists(), "it runs"
    cluster.stop_cluster_sync()
    cluster.cluster_file.write_text("{}")
    clean_cluster_files([cluster.profile_dir])
    assert not cluster.cluster_file.exists()


@pytest.mark.parametrize("words", [["--signal=FOO"], ["--signal", "99"], ["--signal"]])
def test_a_signal_that_is_none_is_refused(words: list[str]):
    with pytest.raises(UsageError, match="--signal: there is no signal"):
        ipcluster.IPClusterStop().parse_command_line(words)


@pytest.mark.parametrize("words", [["--signal=SIGINT"], ["--signal", "TERM"], ["--signal=2"]])
def test_a_signal_of_a_stop_is_accepted_without_effect(words: list[str]):
    command = ipcluster.IPClusterStop()
    command.parse_command_line(words)
    assert list(command.without_effect) == ["signal"]
