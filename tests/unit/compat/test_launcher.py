"""The classes of ipyparallel's launchers: as values of `engines=`, with their traits, and subclassed."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import traitlets
from traitlets.config import Config

import engineroom as er
from engineroom.cluster import launcher
from engineroom.compat.launcher import _PREFIXES
from engineroom.errors import ConfigError

GONE = ("WindowsHPC", "SSHProxy")
ENGINE_SETS = [f"{prefix}EngineSetLauncher" for prefix in _PREFIXES.values() if prefix not in GONE]
HOSTS = {"SSHEngineSetLauncher": {"engines": {"node1": 2}}}
BATCH = {"submit_command": "mysubmit", "delete_command": "kill", "status_command": "stat",
         "batch_template": "{program_and_args}"}  # fmt: skip


def script(folder: Path, engines: Any, n: int = 2, **sections: dict[str, Any]) -> str:
    return er.Cluster(engines=engines, n=n, profile_dir=folder, cluster_id="a", config=sections).dry_run()


@pytest.mark.parametrize("name", ENGINE_SETS)
def test_a_class_is_as_good_as_its_name(name: str, tmp_path: Path):
    config: dict[str, Any] = {**HOSTS, "BatchEngineSetLauncher": BATCH}
    kind = getattr(launcher, name)
    short = name.removesuffix("EngineSetLauncher").lower()
    packages = ("ipyparallel.cluster", "engineroom.cluster", "IPython.parallel.apps")
    dotted = [f"{package}.launcher.{name}" for package in packages]
    made = [script(tmp_path, given, **config) for given in (short, kind, name, *dotted)]
    assert "engineroom.engine" in made[0]
    assert made == made[:1] * 6
    assert launcher.find_launcher_class(short, "engine") is kind
    assert issubclass(kind, launcher.EngineLauncher)
    assert er.Cluster(engines=kind, profile_dir=tmp_path, config=config).engine_launcher_class is kind


@pytest.mark.parametrize("name", ["local", "mpi", "ssh", "slurm", "sge", "pbs", "lsf", "htcondor"])
def test_what_programs_read_of_a_launcher(name: str, tmp_path: Path):
    cluster = er.Cluster(engines=name, n=2, profile_dir=tmp_path, cluster_id="a", config=HOSTS, environment={"A": "b"})
    engines: Any = cluster._engine_launcher(2, {}, "1")
    assert (engines.n, engines.cluster_id, engines.profile_dir, engines.state) == (2, "a", str(tmp_path), "before")
    assert not engines.running
    assert Path(engines.work_dir) == Path.cwd()
    if name != "ssh":  # it has the environment of the other host
        assert engines.get_env()["A"] == "b"


def test_the_class_can_be_set_before_the_start(tmp_path: Path):
    cluster = er.Cluster(n=2, profile_dir=tmp_path, config={"SlurmLauncher": {"queue": "fast"}})
    cluster.engine_launcher_class = launcher.SlurmEngineSetLauncher
    assert "#SBATCH --partition=fast" in cluster.dry_run()
    assert cluster.controller_ip == "*"


def test_the_traits_of_a_batch_system(tmp_path: Path):
    made = script(
        tmp_path,
        "SlurmEngineSetLauncher",
        BaseLauncher={"environment": {"OMP": "1"}},
        EngineLauncher={"engine_args": ["--debug"]},
        BatchSystemLauncher={"queue": "fast"},
        SlurmLauncher={"account": "acc", "qos": "high", "timelimit": "1:00:00", "options": "--exclusive"},
        SlurmEngineSetLauncher={"engine_cmd": ["apptainer", "exec", "it.sif", "ipengine"]},
    )
    head = "#SBATCH --account=acc\n#SBATCH --partition=fast\n#SBATCH --qos=high\n#SBATCH --time=01:00:00\n"
    assert head + "#SBATCH --exclusive\n" in made
    assert "export OMP=1\n" in made
    assert "exec apptainer exec it.sif ipengine --profile-dir=" in made
    assert " --debug " in made


@pytest.mark.parametrize(
    ("given", "made"),
    [("30", "00:30:00"), ("90:30", "01:30:30"), ("4:00:00", "04:00:00"), ("1-12", "36:00:00"), ("1-0:30", "24:30:00")],
)
def test_slurms_own_times(given: str, made: str, tmp_path: Path):
    assert (
        f"#SBATCH --time={made}\n" in er.Cluster(profile_dir=tmp_path, engines="slurm", n=1, timelimit=given).dry_run()
    )


def test_a_configuration_of_older_versions(tmp_path: Path):
    (tmp_path / "ipcluster_config.py").write_text(
        "c = get_config()\n"
        "c.IPClusterEngines.engine_launcher_class = 'ipyparallel.apps.launcher.SlurmEngineSetLauncher'\n"
        "c.IPClusterEngines.n = 10\nc.IPClusterStart.controller_launcher_class = 'LocalControllerLauncher'\n"
        "c.IPClusterStart.delay = 0.1\nc.SlurmLauncher.qos = 'normal'\nc.SlurmLauncher.timelimit = '1:00:00'\n"
        "c.SlurmEngineSetLauncher.batch_template = '#!/bin/bash\\n#SBATCH --qos {qos}\\n#SBATCH --nodes={n//5 + 1}\\n"
        '#SBATCH --time {timelimit}\\nmpirun $BOX \\\\\\n  ipengine --profile-dir="{profile_dir}"\\n\'\n'
    )
    made = er.Cluster(profile_dir=tmp_path).dry_run()
    head = "#!/bin/bash\n#SBATCH --qos normal\n#SBATCH --nodes=3\n#SBATCH --time 01:00:00\n"
    assert made.startswith(f"{head}mpirun $BOX \\\n")
    assert f'--n=1 --profile-dir="{tmp_path}"' in made


def test_a_template_of_ipyparallels_manual(tmp_path: Path):
    template = (
        "#PBS -N ipython\n#PBS -l walltime={hours}:00:00\n#PBS -l nodes={n//4}:ppn=4\n\ncd $PBS_O_WORKDIR\n"
        "mpiexec -n {n} ipengine --profile-dir={profile_dir}\n"
    )
    made = script(tmp_path, "PBS", 8, PBSEngineSetLauncher={
        "batch_template": template, "queue": "fast", "namespace": {"hours": 2}})  # fmt: skip
    assert made.startswith(
        "#PBS -N ipython\n#PBS -l walltime=2:00:00\n#PBS -l nodes=2:ppn=4\n#PBS -q fast\n\ncd $PBS_O_WORKDIR\n"
        "mpiexec -n 8 "
    )
    assert made.rstrip().endswith(f"--n=1 --profile-dir={tmp_path}")


def test_a_template_has_what_is_asked_for_once(tmp_path: Path):
    for given, wanted in [
        ("#!/bin/sh\n{program_and_args}\n", "#!/bin/sh\n#SBATCH --partition=q\n"),
        ("#!/bin/sh\n#SBATCH -p {queue}\n{program_and_args}\n", "#!/bin/sh\n#SBATCH -p q\n"),
    ]:
        made = script(tmp_path, "slurm", SlurmLauncher={"batch_template": given, "queue": "q"})
        assert made.startswith(wanted)
        assert made.count("SBATCH") == 1
    template = "#!/bin/sh\n#SBATCH --partition=mine\n{program_and_args}\n"
    with pytest.raises(ConfigError, match="the option queue has no effect"):
        script(tmp_path, "slurm", SlurmLauncher={"batch_template": template, "queue": "q"})


@pytest.mark.parametrize(
    ("field", "found"),
    [("n//4", "2"), ("n*2+1", "17"), ("(n-1)%4", "3"), ("-n", None), ("n/0", None), ("m*2", None), ("n.real", None),
     ("n*1.5", "12.0"), ("0", None), ("3+4", None)],
)
def test_calculations_in_templates(field: str, found: str | None, tmp_path: Path):
    template = "#SBATCH -N {" + field + "}\n{program_and_args}\n"
    if found is None:
        with pytest.raises(ConfigError, match=r"has the field|has a lone brace"):
            script(tmp_path, "slurm", 8, SlurmLauncher={"batch_template": template})
    else:
        made = script(tmp_path, "slurm", 8, SlurmLauncher={"batch_template": template})
        assert made.startswith(f"#SBATCH -N {found}\n")


def test_hosts_with_engines_of_their_own(tmp_path: Path):
    engines = {"node1": 2, "node2": (3, ["--debug"]), "node3": {"n": 1, "engine_cmd": ["/opt/ipengine"]}}
    made = script(tmp_path, "ssh", 6, SSHEngineSetLauncher={"engines": engines, "user": "me"})
    lines = [line for line in made.splitlines() if not line.startswith("#")]
    assert [host in line for host, line in zip(("me@node1", "me@node2", "me@node3"), lines, strict=True)] == [True] * 3
    assert ["--debug" in line for line in lines] == [False, True, False]
    assert "/opt/ipengine --profile-dir=" in lines[2]
    assert "--n=3" in lines[1]
    for wrong in ("four", (2, "a", "b"), {"n": "two"}, {"m": 2}, 0):
        with pytest.raises(ConfigError, match="hosts"):
            script(tmp_path, "ssh", 1, SSHEngineSetLauncher={"engines": {"node1": wrong}})


def test_settings_without_effect_are_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        script(tmp_path, "local", LocalEngineSetLauncher={"delay": 0.5}, BaseLauncher={"output_limit": 10})
    assert "the setting delay of launchers has no effect: engines are started at once" in caplog.text
    assert "output_limit" in caplog.text
    with pytest.raises(ConfigError, match="the launcher local has no option 'dealy'"):
        script(tmp_path, "local", LocalEngineSetLauncher={"dealy": 0.5})
    with pytest.raises(ConfigError, match="a setting of the launchers cannot be used: Expected `object`"):
        script(tmp_path, "local", EngineLauncher={"environment": 3})


def test_lists_of_a_configuration_file_that_are_extended(tmp_path: Path):
    (tmp_path / "ipcluster_config.py").write_text(
        "c = get_config()\nc.Cluster.engine_launcher_class = 'MPIEngineSetLauncher'\n"
        "c.MPILauncher.mpi_args.extend(['-ppn', '2'])\nc.Cluster.controller_args.append('--nodb')\n"
        "c.BaseLauncher.environment.update({'COLOUR': 'blue'})\n"
    )
    cluster = er.Cluster(profile_dir=tmp_path, n=1)
    assert cluster.controller_args == ["--nodb"]
    assert "COLOUR=blue" in cluster.dry_run()
    assert "mpiexec -ppn 2 -n 1 " in cluster.dry_run()
    command = [sys.executable, "-m", "engineroom.cluster", "start", "--dry-run", f"--profile-dir={tmp_path}"]
    done = subprocess.run([*command, "-n", "1"], capture_output=True, text=True, check=True)
    assert "mpiexec -ppn 2 -n 1 " in done.stdout
    assert done.stderr == ""


def test_settings_of_launchers_on_the_command_line(tmp_path: Path):
    command = [sys.executable, "-m", "engineroom.cluster", "start", "--dry-run", f"--profile-dir={tmp_path}", "-n", "2"]
    options = ["--engines=SlurmEngineSetLauncher", "--SlurmEngineSetLauncher.queue=fast", "--SlurmLauncher.cores=3"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert "#SBATCH --cpus-per-task=3\n#SBATCH --partition=fast\n" in done.stdout
    assert done.stderr == ""
    done = subprocess.run([*command, *options, "--SlurmLauncher.quue=x"], capture_output=True, text=True)
    assert "the launcher slurmenginesetlauncher has no option 'quue'; did you mean queue?" in done.stderr


class OfTheSite(launcher.SlurmEngineSetLauncher):
    """As programs subclass them: traitlets, plain values, and a `start` that fills the context."""

    cores_of_mine = traitlets.Integer(2, config=True)
    submit_command = traitlets.List(["sbatch", "--wrap"])
    queue = "fast"
    default_template = traitlets.Unicode("#!/bin/sh\n#SBATCH -J {tag}\n#SBATCH -c {cores}\n{program_and_args}\n")

    def start(self, n: int) -> None:
        self.context["tag"] = f"of-{n}"
        self.context["cores"] = self.cores_of_mine * 2
        super().start(n)


class WithCommand(launcher.LSFEngineSetLauncher):
    """Overrides something that nothing calls here."""

    def find_args(self) -> list[str]:
        return ["mysubmit"]


def test_a_subclass_with_traits_and_a_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = tmp_path / "sbatch"
    made.write_text(f"#!/bin/sh\necho $* > {tmp_path}/args; cat > {tmp_path}/script; echo Submitted batch job 47\n")
    made.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = Config()
    config.OfTheSite.cores_of_mine = 3
    cluster = er.Cluster(engines=f"{__name__}.OfTheSite", n=4, profile_dir=tmp_path / "p", config=config)
    (tmp_path / "p" / "log").mkdir(parents=True)
    set_ = cluster._engine_launcher(4, {}, "1")
    assert isinstance(set_, OfTheSite)
    assert (set_.n, set_.cluster_id, set_.profile_dir) == (4, cluster.cluster_id, str(tmp_path / "p"))
    set_.start()
    assert set_.job_id == "47"
    assert (tmp_path / "args").read_text() == "--wrap\n"
    script = (tmp_path / "script").read_text()
    assert script.startswith("#!/bin/sh\n#SBATCH -J of-4\n#SBATCH -c 6\n#SBATCH --partition=fast\n")
    assert "engineroom.engine" in script
    assert set_.to_dict()["class"] == "slurm", "another process finds the job without the subclass"


def test_engines_by_class_work(tmp_path: Path):
    class Mine(launcher.LocalEngineSetLauncher):
        environment = {"MINE": "set"}

    cluster = er.Cluster(engines=Mine, n=1, profile_dir=tmp_path / "profile_a", database="none")
    with cluster as rc:
        assert rc[0].apply_sync(lambda: __import__("os").environ["MINE"]) == "set"
        engines = cluster.engine_set
        assert isinstance(engines, Mine)
        assert (engines.n, engines.state, engines.get_env()["MINE"]) == (1, "running", "set")
        assert er.Cluster.from_file(cluster.cluster_file).engine_set.running
    assert engines.state == "after"


def test_what_a_subclass_cannot_change_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"WithCommand\.find_args has no effect: the options engine_cmd and"):
        script(tmp_path, WithCommand)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (launcher.WindowsHPCEngineSetLauncher, "Windows HPC Server is not supported"),
        ("SSHProxyEngineSetLauncher", "The launcher ssh starts the engines of all hosts"),
        (launcher.LocalControllerLauncher, "there is no launcher 'LocalControllerLauncher'"),
        (int, "there is no launcher 'int'; the launchers there are: local, mpi"),
        ("no_such_module.Launcher2", "No module named 'no_such_module'"),
        ("os.path", "there is no launcher 'os.path'"),
    ],
)
def test_what_is_no_launcher_is_told(given: Any, said: str, tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        script(tmp_path, given)
    assert said in str(raised.value)


def test_controllers_by_class(tmp_path: Path):
    cluster = er.Cluster(controller=launcher.LocalControllerLauncher, profile_dir=tmp_path)
    assert (cluster.controller_launcher_class, cluster.controller_host) == ("local", "")
    config = {"SSHControllerLauncher": {"hostname": "login1", "user": "me"}}
    for given in ("ssh", "SSHControllerLauncher", launcher.SSHControllerLauncher):
        assert er.Cluster(controller=given, profile_dir=tmp_path, config=config).controller_host == "me@login1"
    with pytest.raises(
        ConfigError, match=r"controller='MPIControllerLauncher': .*: local, ssh, slurm.* MPI has nothing"
    ):
        er.Cluster(controller=launcher.MPIControllerLauncher, profile_dir=tmp_path)
    with pytest.raises(ConfigError, match="is made by a cluster"):
        launcher.LocalControllerLauncher(profile_dir="x")


def test_controllers_as_batch_jobs_by_class(tmp_path: Path):
    class Mine(launcher.SlurmControllerLauncher):
        queue = "long"

    def head(given: Any, **options: Any) -> list[str]:
        script = er.Cluster(controller=given, profile_dir=tmp_path, n=1, **options).dry_run()
        controller = script.partition("# ---- the engines")[0]
        assert "engineroom.controller" in controller
        asked = ("#SBATCH --partition", "#SBATCH --account", "#SBATCH --time")
        return [line for line in controller.splitlines() if line.startswith(asked)]

    config = {"SlurmControllerLauncher": {"timelimit": "30"}, "BatchSystemLauncher": {"account": "physics"}}
    names = ("slurm", "SlurmControllerLauncher", launcher.SlurmControllerLauncher,
             "ipyparallel.cluster.launcher.SlurmControllerLauncher")  # fmt: skip
    for given in names:
        assert head(given, config=config) == ["#SBATCH --account=physics", "#SBATCH --time=00:30:00"]
    assert head(Mine) == ["#SBATCH --partition=long"]
    # what is said of the engines' jobs holds for the controller's, if nothing else is said of that
    engines = {"engines": "slurm", "queue": "short", "account": "me", "walltime": "1h", "memory": "8GB"}
    assert head("slurm", **engines, controller_options={"walltime": "2h"}) == [
        "#SBATCH --account=me", "#SBATCH --partition=short", "#SBATCH --time=02:00:00"]  # fmt: skip
    assert head("sge", **engines) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"controller": "slurm", "controller_options": {"wall": "2h"}}, "has no option 'wall'; did you mean walltime"),
        ({"controller": "slurm", "queue": "short"}, "'queue'; it is an option of slurm, sge, .*: engines='slurm'"),
        ({"controller": "slurm", "queue": "short"}, "of a controller gets it by controller_options={'queue': …}"),
        ({"controller": "slurm", "queue": "short"}, "or --controller-option queue=…"),
        ({"controller_options": {"walltime": "2h"}}, "are those of a controller that is a batch job"),
        ({"controller": "slurm", "keep": True}, "keep=True is for a controller on this host"),
        ({"controller": "slurm", "cluster_file": ""}, "a controller as a job needs a cluster file"),
        ({"controller": "slurm", "controller_host": "node1"}, "needs both"),
        ({"controller": "teleport"}, "controller='teleport': the launchers there are: local, ssh, slurm, sge, pbs"),
        ({"controller": launcher.SlurmEngineSetLauncher}, "controller='SlurmEngineSetLauncher'"),
    ],
)
def test_a_controller_that_cannot_be_started_so_is_told(options: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        er.Cluster(profile_dir=tmp_path, **options)


def test_classes_by_name():
    assert launcher.find_launcher_class("Slurm", "controller") is launcher.SlurmControllerLauncher
    assert launcher.find_launcher_class("MPIEngineSetLauncher", "engine") is launcher.MPIEngineSetLauncher
    for name, kind in (("slurm", "set"), ("teleport", "engine"), ("os", "engine")):
        with pytest.raises(ValueError, match=r"kind is|there is no launcher"):
            launcher.find_launcher_class(name, kind)
