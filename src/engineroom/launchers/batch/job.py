"""Engines, or a controller, as jobs of a batch system: submitted, watched, cancelled. All batch systems share this.

One submission starts all engines of a set: an array of jobs, each with one nanny on one host. The batch system starts
them when it has room; engines join as they come. A controller is an array of one job.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ...config import write_private
from ...errors import ConfigError, LaunchError
from ...messages import signal_number
from ...printable import one_line
from ..base import Launcher, LauncherFacts, LaunchRequest, end_of, last_line
from .options import BatchOptions
from .script import ARRAYS, ENVIRONMENTS, completed, fields_of, fill, names_in
from .system import BatchSystem, Part

log = logging.getLogger(__name__)

#: Seconds that a command of the batch system may take.
COMMAND_SECONDS = 60.0
#: Seconds to wait for cancelled jobs to leave the queue. The batch system ends them also if we do not see it.
CANCEL_SECONDS = 30.0
#: Seconds between two questions while somebody waits for the end.
HURRY_SECONDS = 0.2
#: Seconds that a job may be unknown right after its submission.
FORGET_SECONDS = 5.0
#: Options that are directives of a job script. A user's template without their field gets the line.
_DIRECTIVES = ("account", "queue", "walltime", "memory", "gpus", "constraint", "qos", "options")
#: Options that another process needs to end a job.
_COMMANDS = ("delete_command", "signal_command")


class BatchJob(LauncherFacts):
    """Engines, or a controller, as jobs of one batch system.

    Parameters
    ----------
    request : LaunchRequest
        What to start.
    options : BatchOptions
        What to ask of the batch system.
    """

    #: what it is called in `engines=`
    name: ClassVar[str]
    system: ClassVar[BatchSystem]
    Options: ClassVar[type[msgspec.Struct]] = BatchOptions
    sections: ClassVar[tuple[str, ...]] = ("BatchSystemLauncher",)
    former_names: ClassVar[Mapping[str, str]] = {
        "batch_template": "template",
        "batch_template_file": "template_file",
        "default_template": "template",
        "namespace": "fields",
        "timelimit": "walltime",
    }
    reaches_hosts: ClassVar[bool] = True
    restarts: ClassVar[bool] = False
    needs_connection_file: ClassVar[bool] = False

    def __init__(self, request: LaunchRequest, options: BatchOptions) -> None:
        options.check()
        self._request, self._options = request, options
        self.system = self.system.with_commands_of(options)  # type: ignore[misc]
        #: values for fields of the user's own in the template
        self.fields = dict(options.fields)
        #: whether the script adds the engines' environment. If not, the command that submits it has it
        self._has_environment = True
        self.log_file = request.log_file
        self._script_file = request.log_file.with_suffix(".sh")
        #: the environment of a controller: it may hold a password, which no batch system is to show
        self._environment_file = request.log_file.with_suffix(".env")
        self._per_job = 1
        self._script = self._make_script() if request.command else ""
        #: what the batch system calls the job; "": it has not been submitted
        self.job_id = ""
        self._submitted = 0.0
        self._parts: list[Part] = []
        self._asked = float("-inf")
        self._ended = threading.Event()
        self._stopping = threading.Event()
        self._asking = threading.Lock()
        self._callbacks: list[Callable[[int], None]] = []
        self._watcher: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------ the script

    def _make_script(self) -> str:
        request, options, system = self._request, self._options, self.system
        own = options.own_template()
        asked = [name for name in _DIRECTIVES if getattr(options, name, "")]
        template = completed(own, system.template, asked) if own else system.template
        fields = fields_of(template)
        self._has_environment = bool(fields.intersection(ENVIRONMENTS))
        used = names_in(fields)
        # A template that knows no array starts all engines in one job; one that says `{n}` runs the command n times.
        is_array = bool(fields.intersection(ARRAYS))
        per_job = min(options.engines_per_job, request.n) if is_array else 1 if "n" in used else request.n
        jobs = -(-request.n // per_job) if is_array else 1
        rest = request.n - per_job * (jobs - 1) if is_array else per_job
        self._per_job = per_job
        values = {
            "n": str(request.n),
            "jobs": str(jobs),
            "engines_per_job": str(per_job),
            "engines_of_last": str(rest),
            "cores": str(per_job * options.cores),
            "account": options.account,
            "queue": options.queue,
            "walltime": system.walltime(options.walltime_seconds) if options.walltime_seconds else "",
            "memory": system.memory(options.memory_mib) if options.memory_mib else "",
            "gpus": str(options.gpus or ""),
            "constraint": options.constraint,
            "extra_lines": "\n".join(
                filter(None, [system.once if request.is_controller else "", _lines(options.extra_lines)])
            ),
            "setup": _lines(options.setup),
            "environment": self._reads_environment() if request.is_controller else self._exports(),
            "program_and_args": (program := self._program(jobs, per_job, rest)),
            "program": program.partition(" ")[0],
            "program_args": program.partition(" ")[2],
            "output_file": system.output_file(str(request.log_file.with_suffix(""))),
            "job_name": options.job_name,
            "profile_dir": str(request.profile_dir),
            "cluster_id": request.cluster_id,
        }
        values["timelimit"] = values["walltime"]
        values = {**values, **system.more_fields(values, options), **_texts(self.fields)}
        script = fill(template, values)
        for name in ("account", "queue", "walltime", "memory", "gpus", "constraint"):
            if getattr(options, name) and self._ignores(name, template, values, script):
                raise ConfigError(
                    f"the option {name} has no effect: {system.title}'s script has no place for it. Say it in "
                    "extra_lines, or give a template of your own"
                )
        return script

    def _exports(self) -> str:
        """Lines for the shell that set the variables of the environment."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self._request.environment.items())

    def _reads_environment(self) -> str:
        return f". {shlex.quote(str(self._environment_file))}" if self._request.environment else ""

    def _ignores(self, name: str, template: str, values: Mapping[str, str], script: str) -> bool:
        """Whether the script is the same without an option."""
        default = next(each.default for each in msgspec.structs.fields(self._options) if each.name == name)
        without = {**values, name: ""}
        more = self.system.more_fields(without, msgspec.structs.replace(self._options, **{name: default}))
        more = {**more, "timelimit": without["walltime"], **_texts(self.fields)}
        return fill(template, {**without, **more}) == script

    def _program(self, jobs: int, per_job: int, rest: int) -> str:
        """The command of one job, for the shell. The last job of the array has the rest of the engines."""
        request, uneven = self._request, self.system.uneven
        command = list(request.command)
        if request.is_controller:
            # Without a walltime, the controller asks the environment of its job.
            return shlex.join([*command, f"--walltime={self._options.walltime_seconds or -1}"])
        if self._options.gpus and not any(word.startswith("--resources=") for word in command):
            command.append(f"--resources=gpu={self._options.gpus}")
        if self._options.walltime_seconds:
            command.append(f"--walltime={self._options.walltime_seconds}")
            command += [] if self._options.drain is None else [f"--drain={self._options.drain:g}"]
        words = shlex.join([*command, f"--file={request.connection_file}"])
        if jobs == 1 or rest == per_job:
            return f"{words} --n={per_job}"
        if not uneven:
            raise ConfigError(f"n={request.n} is not a multiple of engines_per_job={per_job}")
        spelled = uneven.format(jobs=jobs, most=per_job, rest=rest)
        return f"{words} --n={spelled}"

    def preview(self) -> str:
        """The script."""
        return self._script

    # ------------------------------------------------------------------------------------------ starting

    def start(self) -> None:
        """Submit the job.

        Raises
        ------
        LaunchError
            The batch system refuses it; the text has its own words.
        ConfigError
            The batch system's command is not there.
        """
        self._script_file.parent.mkdir(parents=True, exist_ok=True)
        self._script_file.write_text(self._script)
        if self._request.is_controller and self._request.environment:
            write_private(self._environment_file, self._exports() + "\n")
        environment = None if self._has_environment else {**os.environ, **self._request.environment}
        done = self._command(self.system.submit, input=self._script, environment=environment)
        found = re.search(self.system.job_id, done.stdout, re.MULTILINE)
        if done.returncode != 0 or found is None:
            words = one_line(done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")
            raise LaunchError(f"{self.system.title} did not take the job: {words}. The script is {self._script_file}")
        self.job_id, self._submitted = found[1] if found.re.groups else found[0], time.monotonic()
        what = "the controller" if self._request.is_controller else f"{self._request.n} engines"
        log.info("%s job %s was submitted: %s", self.system.title, self.job_id, what)
        if self._callbacks:
            self._watch()

    def _command(
        self, words: list[str], input: str = "", environment: Mapping[str, str] | None = None, **fields: str
    ) -> subprocess.CompletedProcess[str]:
        command = [
            word.format(job=self.job_id, script=self._script_file, **fields) if "{" in word else word for word in words
        ]
        try:
            return subprocess.run(
                command, input=input, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=environment
            )
        except FileNotFoundError:
            raise ConfigError(
                f"there is no command {command[0]} here: {self.system.title} is not installed on this host, or not "
                "on PATH. Start the cluster on a login node of the batch system"
            ) from None
        except subprocess.TimeoutExpired:
            raise LaunchError(f"`{command[0]}` did not answer within {COMMAND_SECONDS:g} s") from None

    # ------------------------------------------------------------------------------------------ state

    def _ask(self, oldest: float) -> list[Part]:
        """The state of the job, not older than so many seconds."""
        with self._asking:
            if self.job_id and not self._ended.is_set() and time.monotonic() - self._asked > oldest:
                try:
                    done = self._command(self.system.status)
                    if done.returncode == 0 or re.search(self.system.unknown, done.stderr):
                        known = done.returncode == 0
                        self._take(self.system.read_status(done.stdout, self.job_id) if known else [])
                    else:
                        log.warning("%s does not answer: %s", self.system.title, one_line(done.stderr))
                except (ConfigError, LaunchError) as error:  # also of an answer that cannot be read
                    log.warning("%s", error)  # what we know stays; it is asked again
                self._asked = time.monotonic()
            return self._parts

    def _take(self, parts: list[Part]) -> None:
        if not parts:  # the batch system has forgotten it, or does not know it yet
            if time.monotonic() - self._submitted < FORGET_SECONDS:
                return
            parts = [Part("ended", part.why if part.state == "ended" else "") for part in self._parts]
        self._parts = parts
        if all(part.state == "ended" for part in parts):
            self._ended.set()

    @property
    def running(self) -> bool:
        if not self.job_id:
            return False
        self._ask(self._options.poll_seconds)
        return not self._ended.is_set()

    @property
    def state(self) -> str:
        """ "before" its submission, "running" (or pending), or "after" its end."""
        return "running" if self.running else "after" if self.job_id else "before"

    @classmethod
    def default_n(cls, options: BatchOptions) -> int | None:
        """None: as many as this host has cores."""
        return None

    @property
    def expected(self) -> int:
        if not self.running:
            return 0
        ended = sum(part.state == "ended" for part in self._parts)
        return self._request.n - ended * self._per_job

    @property
    def pid(self) -> int | None:
        return None

    @property
    def waiting(self) -> int:
        if not self.running:
            return 0
        if not self._parts:
            return self._request.n  # just submitted
        return min(self._request.n, self._per_job * sum(part.state == "pending" for part in self._parts))

    def explain(self) -> str:
        """Why jobs wait, how long already, and how jobs have ended, in the batch system's own words."""
        if not self.job_id:
            return ""
        parts = self._ask(min(1.0, self._options.poll_seconds))
        told = []
        waiting = [part for part in parts if part.state == "pending"]
        if waiting:
            why = one_line(", ".join(dict.fromkeys(part.why for part in waiting if part.why)))
            if self.system.why:
                why = one_line(self.system.read_why(self._command(self.system.why).stdout)) or why
            since = time.monotonic() - self._submitted
            told.append(f"{len(waiting)} of {len(parts)} pending for {since:.0f} s" + (f" ({why})" if why else ""))
        ended = Counter(part.why for part in parts if part.state == "ended")
        told += [f"{count} ended" + (f" ({one_line(why)})" if why else "") for why, count in ended.items()]
        if not parts and self._ended.is_set():
            told.append("ended")
        if not told:
            return ""
        words = last_line(self.get_output()) if ended or self._ended.is_set() else ""
        where = f". The log {self._logs()[-1]} ends: {one_line(words)}" if words else ""
        return f"{self.system.title} job {self.job_id}: {', '.join(told)}{where}"

    def join(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running:
            left = self._options.poll_seconds if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._ended.wait(min(left, self._options.poll_seconds))
        return True

    def on_stop(self, callback: Callable[[int], None]) -> None:
        self._callbacks.append(callback)
        if self.job_id and self._watcher is None:
            self._watch()

    def _watch(self) -> None:
        def watch() -> None:
            while self.running and not self._stopping.wait(self._options.poll_seconds):
                pass
            for callback in self._callbacks:
                callback(1 if any(part.why for part in self._parts) else 0)

        self._watcher = threading.Thread(target=watch, name="batch-job", daemon=True)
        self._watcher.start()

    # ------------------------------------------------------------------------------------------ the end

    def stop(self) -> None:
        """Cancel the job, also while it is pending, and wait until it has left the queue."""
        self._stopping.set()
        if self.job_id and not self._ended.is_set():
            self._ask(0)
            if not self._ended.is_set():
                self._command(self.system.cancel)
            deadline = time.monotonic() + CANCEL_SECONDS
            while not self._ended.is_set() and time.monotonic() < deadline:
                self._ended.wait(HURRY_SECONDS)
                self._ask(0)
            self._ended.set()
        self._environment_file.unlink(missing_ok=True)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    def signal(self, number: int | str) -> None:
        if not self.system.signal:
            raise ConfigError(f"{self.system.title} has no command that signals a job")
        self._command(self.system.signal, signal=signal.Signals(signal_number(number)).name.removeprefix("SIG"))

    # ------------------------------------------------------------------------------------------ files

    def _logs(self) -> list[Path]:
        """The logs of its jobs; the one that was written last comes last."""
        stem = self.log_file.with_suffix("").name
        found = self.log_file.parent.glob(f"{stem}*.log")
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def get_output(self, remove: bool = False) -> str:
        """The end of the log that was written last, which is removed then, if that is wanted."""
        logs = self._logs()
        return end_of(logs[-1], remove) if logs else ""

    def to_dict(self) -> dict[str, Any]:
        described = {"class": self.name, "job_id": self.job_id, "pid": None, "log_file": str(self.log_file)}
        commands = {name: given for name in _COMMANDS if (given := getattr(self._options, name))}
        return {**described, "options": commands} if commands else described

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Launcher:
        """The job that another process submitted."""
        log_file = Path(described["log_file"])
        request = LaunchRequest(
            n=int(described.get("n", 0)), command=[], environment={}, connection_file=Path(), log_file=log_file,
            set_id="",
        )  # fmt: skip
        job = cls(request, msgspec.convert(described.get("options", {}), cls.Options))  # type: ignore[arg-type]
        job.job_id, job._submitted = described["job_id"], time.monotonic() - FORGET_SECONDS
        return job


def _lines(given: list[str] | str) -> str:
    return "\n".join(given) if isinstance(given, list) else given.rstrip("\n")


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}
