"""Job scripts, and what batch systems answer: text in, text out. Nothing is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engineroom.errors import ConfigError, LaunchError
from engineroom.launchers import LaunchRequest
from engineroom.launchers.batch import htcondor, lsf, pbs, sge, slurm
from engineroom.launchers.batch.options import walltime_seconds
from engineroom.launchers.batch.script import fill
from engineroom.launchers.batch.system import Part
from engineroom.launchers.registry import launcher_class, read_options

SYSTEMS = ("slurm", "sge", "pbs", "lsf", "htcondor")


def request(folder: Path, n: int = 5) -> LaunchRequest:
    return LaunchRequest(
        n=n,
        command=["python", "-m", "engineroom.engine"],
        environment={"A": "it's"},
        connection_file=Path("/home/me/engine.json"),
        log_file=folder / "ipengine-1.log",
        set_id="1",
    )


def script(name: str, folder: Path, n: int = 5, **options: Any) -> str:
    return launcher_class(name)(request(folder, n), read_options(name, options)).preview()


EVERYTHING: dict[str, Any] = {
    "account": "acc", "queue": "que", "walltime": "90m", "memory": "3GiB", "gpus": 2, "constraint": "big",
    "engines_per_job": 2, "extra_lines": ["# one", "# two"], "setup": "module load python",
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_option_has_its_line_or_is_refused(name: str, tmp_path: Path):
    options = {**EVERYTHING} if name != "htcondor" else {k: v for k, v in EVERYTHING.items() if k != "queue"}
    made = script(name, tmp_path, **options)
    for word in ("acc", "big", "# one\n# two\n", "module load python", "engineroom.engine", "/home/me/engine.json"):
        assert word in made
    assert {"slurm": "--time=01:30:00", "sge": "h_rt=01:30:00", "pbs": "walltime=01:30:00", "lsf": "-W 01:30",
            "htcondor": "allowed_job_duration = 5400"}[name] in made  # fmt: skip
    assert {"slurm": "--mem=3072M", "sge": "h_vmem=1536M", "pbs": "mem=3072mb", "lsf": "mem=3072MB",
            "htcondor": "request_memory = 3072M"}[name] in made  # fmt: skip
    assert "--resources=gpu=2" in made
    assert "{" not in made.replace("${PBS_O_WORKDIR:-.}", "")


@pytest.mark.parametrize("name", SYSTEMS)
def test_without_options_no_line_is_empty(name: str, tmp_path: Path):
    made = script(name, tmp_path)
    assert not any(line.rstrip().endswith(("=", " -A", " -q", " -l", "= ")) for line in made.splitlines())


def test_the_last_job_has_the_rest_of_the_engines(tmp_path: Path):
    for name in ("slurm", "sge", "pbs", "lsf"):
        assert "< 3 ? 2 : 1 ))" in script(name, tmp_path, engines_per_job=2)
        assert script(name, tmp_path, n=4, engines_per_job=2).rstrip().endswith("--n=2")
    assert "engines = 2\nqueue 2\nengines = 1\nqueue 1\n" in script("htcondor", tmp_path, engines_per_job=2)
    assert "export A=''it''''''''s''" not in script("slurm", tmp_path)
    assert "#PBS -J" not in script("pbs", tmp_path, n=2, engines_per_job=2)
    assert "-^array_index^.log" in script("pbs", tmp_path)


def test_an_option_without_effect_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="the option queue has no effect: HTCondor's script has no place for it"):
        script("htcondor", tmp_path, queue="short")


def test_a_template_of_ones_own(tmp_path: Path):
    one = "#!/bin/sh\n#SBATCH -p {queue}\nsource ${{HOME}}/env\n{program_and_args}\n"
    made = script("slurm", tmp_path, template=one)
    assert made == "#!/bin/sh\nsource ${HOME}/env\npython -m engineroom.engine --file=/home/me/engine.json --n=5\n"
    each = "#SBATCH -n {n}\nsrun {program_and_args}\n"  # as in ipyparallel: the command runs n times
    assert script("slurm", tmp_path, batch_template=each).rstrip().endswith("--n=1")
    path = tmp_path / "own.sh"
    path.write_text(one)
    assert "#SBATCH -p fast" in script("slurm", tmp_path, template_file=str(path), queue="fast")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "echo {program_and_args} {nodes}"}, "has the field {nodes}, which there is not; there are"),
        ({"template": "echo ${HOME} {program_and_args}"}, "has the field {HOME}, which there is not"),
        ({"template": "echo hello"}, "has no field {program_and_args}: it would start no engines"),
        ({"template": "echo { {program_and_args}"}, "has a lone brace"),
        ({"template_file": "/nowhere/at.all"}, "the template /nowhere/at.all cannot be read: No such file"),
        ({"template": "x", "template_file": "y"}, "both say which script is used"),
        ({"walltime": "soon"}, "walltime is a number of seconds"),
        ({"walltime": 0}, "walltime is above 0"),
        ({"memory": "much"}, "memory is a number of bytes"),
        ({"engines_per_job": 0}, "engines_per_job is a number, 1 or more; got 0"),
        ({"gpus": "two"}, "an option of the launcher slurm cannot be used: Expected `int`, got `str` - at `.*gpus`"),
        ({"submit_command": "sbatch 'x"}, 'this is no command: "sbatch \'x": No closing quotation'),
        ({"job_id_regexp": "("}, "job_id_regexp is a regular expression; got '('"),
        ({"template_file": "a\0b"}, "cannot be read: embedded null byte"),
        ({"template_file": "~nobody-of-this-name/x"}, "cannot be read: Could not determine home directory"),
        ({"walltime": "9" * 5000 + ":1"}, "walltime is a number of seconds"),
        ({"walltime": "1e400"}, "walltime is a number of seconds"),
        ({"memory": "1e308GB"}, "memory is a number of bytes"),
        ({"job_name": "a\nrm -r x"}, "job_name is text on one line"),
        ({"queue": "q\r#"}, "queue is text on one line"),
        ({"wall": "2h"}, "has no option 'wall'; did you mean walltime?"),
        ({"mpi_cmd": "mpirun"}, "has no option 'mpi_cmd'; it is an option of mpi: engines='mpi'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        script("slurm", tmp_path, **options)
    assert said.split(" - ")[0] in str(raised.value)


def test_walltimes_are_read():
    assert [walltime_seconds(text) for text in (90, "90", "90s", "2h", "01:30", "2:00:00", "1-00:00:01")] == [
        90, 90, 90, 7200, 90, 7200, 86401]  # fmt: skip


def test_a_line_with_an_empty_field_is_left_out():
    values = {"a": "", "b": "x", "program_and_args": "run"}
    assert fill("1 {a}\n2 {b}\n3 {a} {b}\n{program_and_args}", values) == "2 x\nrun\n"


@pytest.mark.parametrize("field", ["{n!x}", "{n:\n}", "{n:d}", "{n:>99999999999}", "{n:{jobs}}", "{n!r}"])
def test_a_field_of_a_template_has_only_its_name(field: str):
    with pytest.raises(ConfigError, match="the field 'n' with a ':' or a '!': it has only its name"):
        fill(f"{{program_and_args}} {field}", {"n": "4", "jobs": "1", "program_and_args": "run"})


def test_an_answer_that_cannot_be_read_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in (("qsub", "7.1-5:1"), ("qstat", "garbled")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    launcher = launcher_class("sge")(request(tmp_path), read_options("sge", {}))
    launcher.start()
    assert launcher.running
    assert launcher.waiting == 5


def test_a_missing_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = launcher_class("slurm")(request(tmp_path), read_options("slurm", {}))
    with pytest.raises(ConfigError, match="there is no command sbatch here: Slurm is not installed on this host"):
        launcher.start()


# ---------------------------------------------------------------------------------------------- answers


def test_slurms_answers():
    answer = "PENDING|Priority\nRUNNING|None\nCOMPLETED|None\nFAILED|NonZeroExitCode\nTIMEOUT|TimeLimit\n"
    assert slurm.read_status(answer, "1") == [
        Part("pending", "Priority"), Part("running"), Part("ended"), Part("ended", "FAILED, NonZeroExitCode"),
        Part("ended", "TIMEOUT, TimeLimit"),
    ]  # fmt: skip


def test_grid_engines_answers():
    def entry(job: int, state: str, tasks: str) -> str:
        return (f"<job_list><JB_job_number>{job}</JB_job_number><state>{state}</state><tasks>{tasks}</tasks>"
                "</job_list>")  # fmt: skip

    answer = f"<job_info>{entry(7, 'r', '1')}{entry(7, 'qw', '2-8:2,9')}{entry(8, 'r', '1')}</job_info>"
    assert sge.read_status(answer, "7") == [Part("running")] + 5 * [Part("pending", "state qw")]
    assert sge.read_status(f"<x>{entry(7, 'Eqw', '1')}</x>", "7") == [Part("pending", "in error, state Eqw")]
    assert sge.read_status("<job_info/>", "7") == []
    with pytest.raises(LaunchError, match="the answer of qstat cannot be read"):
        sge.read_status("error: commlib", "7")
    assert sge.read_status(f"<x>{entry(7, 'qw', '1-4:0')}</x>", "7") == [Part("pending", "state qw")]
    assert len(sge.read_status(f"<x>{entry(7, 'qw', '1-999999999999:1')}</x>", "7")) == sge.MOST_PARTS
    assert sge.read_why("script: x\nerror reason    1:  can't get group\nscheduling info: no slots\n") == (
        "can't get group; no slots"
    )


def test_pbss_answers():
    answer = (
        "Job Id: 12[].s\n    job_state = B\n"
        "Job Id: 12[1].s\n    Job_Name = e\n    job_state = Q\n    comment = Not Running: Insufficient amount of\n"
        "\t resource: ncpus\n"
        "Job Id: 12[2].s\n    job_state = R\n"
        "Job Id: 12[3].s\n    job_state = X\n    Exit_status = 271\n"
    )
    assert pbs.read_status(answer, "12[].s") == [
        Part("pending", "Not Running: Insufficient amount of resource: ncpus"),
        Part("running"), Part("ended", "exit status 271"),
    ]  # fmt: skip


def test_lsfs_answers():
    answer = "PEND|-|New job is waiting for scheduling;\nRUN|-|-\nDONE|-|-\nEXIT|TERM_RUNLIMIT: killed|-\n"
    assert lsf.read_status(answer, "1") == [
        Part("pending", "New job is waiting for scheduling;"), Part("running"), Part("ended"),
        Part("ended", "TERM_RUNLIMIT: killed"),
    ]  # fmt: skip


def test_htcondors_answers():
    assert htcondor.read_status("1 undefined\n2 undefined\n5 no disk\n4 undefined\n", "1") == [
        Part("pending", "idle"), Part("running"), Part("pending", "held: no disk"), Part("ended"),
    ]  # fmt: skip


def controller(folder: Path) -> LaunchRequest:
    return msgspec.structs.replace(
        request(folder, n=1),
        command=["python", "-m", "engineroom.controller", "--ip=*"],
        environment={"PASSWORD": "s3cret"},
        is_controller=True,
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_controller_is_one_job_that_is_never_run_again(name: str, tmp_path: Path):
    job = launcher_class(name)(controller(tmp_path), read_options(name, {"walltime": "90m", "extra_lines": "# one"}))
    made = job.preview()
    quote = "''" if name == "htcondor" else "'"
    assert f"engineroom.controller {quote}--ip=*{quote} --walltime=5400" in made
    assert "--n=" not in made
    assert "--file=" not in made
    assert {"slurm": "#SBATCH --no-requeue\n# one", "sge": "#$ -r n\n# one", "pbs": "#PBS -r n\n# one",
            "lsf": "#BSUB -rn\n# one", "htcondor": "NumJobStarts > 0\n# one"}[name] in made  # fmt: skip
    assert {"slurm": "--array=1-1", "sge": "-t 1-1", "pbs": "select=1:ncpus=1", "lsf": "[1-1]", "htcondor": "queue 1"}[
        name
    ] in made
    without = launcher_class(name)(controller(tmp_path), read_options(name, {}))
    assert "--walltime=-1" in without.preview()


def test_the_environment_of_a_controller_is_in_a_file_of_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat > {tmp_path}/given\necho 7\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    job = launcher_class("slurm")(controller(tmp_path), read_options("slurm", {}))
    job.start()
    file = tmp_path / "ipengine-1.env"
    assert (tmp_path / "given").read_text() == job.preview()
    assert f". {file}" in job.preview()
    assert "s3cret" not in job.preview()
    assert file.read_text() == "export PASSWORD=s3cret\n"
    assert file.stat().st_mode & 0o777 == 0o600
