"""Runs one task: unpickle, call, pickle. Whatever happens in it becomes an outcome; the engine lives on."""

from __future__ import annotations

import ast
import contextlib
import functools
import linecache
import pickle
import socket
import sys
import threading
import time
import traceback
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ... import import_watch
from ...errors import EngineError, ImpossibleDependency, UnmetDependency
from ...ids import Digest, EngineId
from ...messages import ErrorInfo, Function, TaskDone, TaskSpec
from ...messages.bounds import Status
from ...on_engine import classic, engine_calls, functional_dependency, random_streams, task_context
from ...on_engine.engine_properties import properties
from ...on_engine.random_streams import Seeded
from ...wire import exceptions, functions, modules, payload, script_globals, short_repr, source_lines
from ...wire import input_cache as values
from ...wire.exceptions import text_of
from ...wire.parts import Part
from . import displays
from .captured import CLibrary
from .ending import end_forked
from .filled_functions import FilledFunctions
from .module_check import ModuleCheck, ModulesDiffer
from .output import Streams, sendable
from .warning_state import WarningState

if TYPE_CHECKING:
    from .shell import Shell

#: Functions kept unpickled; beyond it the one used longest ago is forgotten (and asked for again if needed).
FUNCTIONS_KEPT = 1024
#: After a task that took longer than this, we look for what C code and child processes have printed. (A look costs two
#: system calls; after shorter tasks we look once for all of them.)
LOOK_SECONDS = 20e-6
#: After something was found, we look after each of so many tasks, however short.
OUTPUT_CHECKS = 256


class Terminated(BaseException):
    """SIGTERM came while a task was running: the engine leaves."""


class Interrupted(KeyboardInterrupt):
    """Raised in user code whose task was cancelled or has had its time: how it ends, if nothing catches this."""

    def __init__(self, status: Status, ename: str, text: str) -> None:
        super().__init__(text)
        self.status, self.ename = status, ename


class Executor:
    """The namespace, the functions, and the running of tasks."""

    def __init__(self, streams: Streams, keep: payload.Keep = payload.as_copy) -> None:
        """`keep`: what is sent for the buffers of results."""
        self._streams, self.keep = streams, keep
        self._stdout, self._stderr = streams.stdout, streams.stderr
        self._warnings = WarningState()
        self._c_library = CLibrary()
        self._checks_left = 0  # tasks after which, however short they are, we look for what C code has printed
        self._loaded: OrderedDict[Digest, functions.LoadedFunction] = OrderedDict()
        self._pickled: OrderedDict[Digest, Function] = OrderedDict()
        self._with_needs: dict[Digest, Function] = {}  # those loaded functions that need modules of users
        self._filled = FilledFunctions()
        self._shell: Shell | None = None
        self._cells = 0
        self._name_item: Callable[[int, ErrorInfo], ErrorInfo]  # says in an error which item of the last chunk failed
        self.engine = EngineId(-1)
        self.uuid = ""
        self.host = socket.gethostname()
        #: True while user code runs: the only time a signal may interrupt
        self.is_running = False
        #: how long the last task took
        self.seconds = 0.0
        #: whether this process is one that a task has forked
        self.is_forked = False
        #: whether the last task was so short that nobody looked for what C code has printed
        self.output_unchecked = False
        # The user's `__main__`: functions that travelled from another `__main__` live here.
        self.module = types.ModuleType("__main__", "The namespace of this engine.")
        sys.modules["__main__"] = self.module
        functions.bind_namespace(self.module.__dict__)
        script_globals.prepare(self.module.__dict__)
        self._modules = ModuleCheck(self.module.__dict__)
        import_watch.tell(self)

    def shell(self) -> Shell:
        """The IPython shell: made when it is first needed."""
        if self._shell is None:
            from .shell import Shell

            self._shell = Shell(self.module)
            _OURS.add(sys.modules["IPython.core.interactiveshell"].__file__)
            script_globals.refresh()  # IPython has added `display`
        return self._shell

    # ------------------------------------------------------------------------------------------ functions

    def learn(self, new: Sequence[Function]) -> None:
        """Take in pickled functions; they are unpickled when first called."""
        for function in new:
            self._pickled[function.digest] = function
            if len(self._pickled) > FUNCTIONS_KEPT:
                self._pickled.popitem(last=False)

    def knows(self, digest: Digest) -> bool:
        """Whether a task with this function can be run at once."""
        return not digest or digest in self._loaded or digest in self._pickled

    def _function(self, digest: Digest) -> functions.LoadedFunction:
        function = self._loaded.get(digest)
        if function is None:
            needs: dict[str, str] = {}
            try:
                function = self._load(digest, needs)
            except Exception as error:
                self._modules.explain(error, needs, self.engine)
                raise
            finally:
                self._modules.tell(needs, self.engine)
        return function

    def _load(self, digest: Digest, needs: dict[str, str]) -> functions.LoadedFunction:
        """Unpickle a function, and keep it. The modules that it needs go into `needs`, also if this raises."""
        function = functions.load_function(self._pickled[digest], needs)
        self._loaded[digest] = function
        pickled = self._pickled.pop(digest)
        if needs:
            self._with_needs[digest] = pickled
        if len(self._loaded) > FUNCTIONS_KEPT:
            self._with_needs.pop(self._loaded.popitem(last=False)[0], None)
        return function

    def modules_changed(self) -> None:
        """Modules are being loaded again: functions that need some are unpickled anew when they are next called."""
        for digest, pickled in self._with_needs.items():
            del self._loaded[digest]
            self._pickled[digest] = pickled
        self._with_needs.clear()
        self._filled.clear()
        self._modules.forget()

    def tidy(self) -> None:
        """Drop the buffers of functions that were not used for some seconds."""
        self._filled.tidy(time.monotonic())

    def _newest(self, spec: TaskSpec, frames: Sequence[Any]) -> functions.LoadedFunction:
        """The function of a call whose result may be reused: its modules are those of the client."""
        needs: dict[str, str] = {}
        try:
            function = self._loaded.get(spec.function) or self._load(spec.function, needs)
        except Exception:  # the module may be too old to have it
            if not self._modules.renew(needs, self.engine):
                raise
            function = self._load(spec.function, needs)
        needs.update(function.needs)
        if modules.MARK in (spec.payload or frames[0]):
            self._note_needs_of_arguments(spec, frames, needs)
        self._modules.renew(needs, self.engine)
        return self._function(spec.function)

    def _note_needs_of_arguments(self, spec: TaskSpec, frames: Sequence[Any], needs: dict[str, str]) -> None:
        """Add the modules that the arguments need. Modules that are too old to unpickle them are loaded again."""
        while True:
            try:
                with modules.collecting(needs), functions.collecting({}):
                    payload.loads(spec.payload, frames)
                return
            except Exception:
                if not self._modules.renew(needs, self.engine):
                    return  # the call raises it again

    # ------------------------------------------------------------------------------------------ running

    def run(
        self, spec: TaskSpec, attempt: int, frames: Sequence[Any], inputs: values.Inputs | None = None
    ) -> tuple[TaskDone, Sequence[Any]]:
        """Run a task to its outcome: (outcome, frames of the result). Raises only Terminated.

        `inputs` are the results of other tasks that it takes as arguments.
        """
        stdout, stderr = self._stdout, self._stderr
        if sys.stdout is not stdout or sys.stderr is not stderr or sys.stdin is not self._streams.stdin:
            self._streams.restore()
        self._warnings.begin()
        if self._shell is not None:
            self._shell.begin()
        stdout.in_task = stderr.in_task = True
        started = time.time()
        begin = time.perf_counter()
        status: Status = "ok"
        error: ErrorInfo | None = None
        content: dict[str, Any] | None = None
        raised: BaseException | None = None
        result: payload.Payload = b"", ()
        try:
            try:
                self.is_running = True
                if spec.kind == "execute":
                    value, content, raised = self._execute(spec, started)
                else:
                    value = self._call(spec, frames, inputs)
            finally:
                self.is_running = False
            if raised is None and spec.kind == "map":
                result, error = self._pickle_chunk(value, spec)
                status = "ok" if error is None else "error"
            elif raised is None:
                result = self._pickle(value)
            else:
                status, error = self._outcome(raised, spec)
        except Terminated:
            stdout.in_task = stderr.in_task = False
            raise
        except BaseException as caught:
            self.is_running = False  # again: it may have been the `finally` that was interrupted
            raised = caught
            status, error = self._outcome(caught, spec)
        if self.is_forked:
            end_forked(raised)
        seconds = self.seconds = time.perf_counter() - begin
        completed = started + seconds
        self._warnings.end(keep=spec.kind == "execute")
        if seconds > LOOK_SECONDS or self._checks_left:
            self.collect()
        else:
            self.output_unchecked = True
        stdout.in_task = stderr.in_task = False
        if self._shell is not None and self._shell.displays.outputs:
            content = {**(content or {}), "outputs": self._shell.displays.outputs}
        stream, buffers = result
        done = TaskDone(
            spec.id,
            attempt,
            status,
            started,
            completed,
            stream,
            error=error,
            content=content,
        )
        if stdout.parts:
            done.stdout = stdout.take()
        if stderr.parts:
            done.stderr = stderr.take()
        return done, buffers

    def collect(self) -> None:
        """Have the streams take in what C code and child processes have printed."""
        self.output_unchecked = False
        self.flush_c_library()
        if self._streams.collect():
            self._checks_left = OUTPUT_CHECKS
        elif self._checks_left:
            self._checks_left -= 1

    def flush_c_library(self) -> None:
        """Write out what C code has printed and still has in its buffers."""
        self._c_library.flush()

    def late_output(self) -> tuple[str, str]:
        """What C code printed in tasks so short that nobody looked: (stdout, stderr)."""
        stdout, stderr = self._stdout, self._stderr
        stdout.in_task = stderr.in_task = True
        self.collect()
        stdout.in_task = stderr.in_task = False
        return (stdout.take() if stdout.parts else "", stderr.take() if stderr.parts else "")

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """The running task waits: inside the block other tasks may be run. What they leave behind is put right."""
        self.collect()
        streams = sys.stdin, sys.stdout, sys.stderr
        shown, lent = (warnings.filters[:], warnings.showwarning), set(functions.lent)
        resume = self._stdout.suspend(), self._stderr.suspend()
        shown_before = displays.Displays() if self._shell is None else self._shell.displays
        try:
            yield
        finally:
            self.collect()
            for one in resume:
                one()
            sys.stdin, sys.stdout, sys.stderr = streams
            warnings.filters[:], warnings.showwarning = shown  # type: ignore[index]
            self._warnings.begin()
            functions.lent.update(lent)
            if self._shell is not None:
                self._shell.displays = shown_before

    @contextlib.contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Let no signal interrupt what a task does inside."""
        if threading.current_thread() is not threading.main_thread():  # signals interrupt the main thread alone
            yield
            return
        before, self.is_running = self.is_running, False
        try:
            yield
        finally:
            self.is_running = before

    def _call(self, spec: TaskSpec, frames: Sequence[Any], inputs: values.Inputs | None) -> Any:
        if spec.options is not None and spec.options.cache is not None and spec.options.cache.code:
            function = self._newest(spec, frames)
        else:
            function = self._loaded.get(spec.function) or self._function(spec.function)
            if type(function.call) is functions.Hollow:
                function = self._filled.get(spec.function, function.call, frames, time.monotonic())
        travelled = function.travelled
        if frames or inputs is not None or functions.MARK in spec.payload:
            with_arguments: dict[str, Any] = {}
            with functions.collecting(with_arguments), values.providing(inputs):
                args, kwargs = payload.loads(spec.payload, frames)
            if with_arguments:
                travelled = {**with_arguments, **travelled}
        else:
            args, kwargs = pickle.loads(spec.payload)
        call: Callable[..., Any] = function.call
        if spec.kind == "map":
            call = functools.partial(self._map, spec, call)
        elif spec.kind == "part":
            call = functools.partial(_part, call)
        if function.is_short_of_names:
            with script_globals.plain(self.module.__dict__):
                return self._lending(travelled, lambda: call(*args, **kwargs))
        if not travelled:
            return call(*args, **kwargs)
        return self._lending(travelled, lambda: call(*args, **kwargs))

    def _map(
        self,
        spec: TaskSpec,
        function: Callable[..., Any],
        *columns: Any,
        dist: str = "b",
        first: int = 0,
        step: int = 1,
    ) -> Part:
        """Call a function on each item of a chunk, also after one has failed.

        Item i of the chunk is item `first + i * step` of the map.
        """

        def name_item(index: int, info: ErrorInfo) -> ErrorInfo:
            info.index = first + index * step
            if spec.arguments:
                info.arguments = short_repr.of_item(columns, index)
            return info

        errors: dict[int, ErrorInfo] = {}

        def is_of_item(index: int, error: BaseException) -> bool:
            # An interrupt, an unmet dependency and SIGTERM are for the whole chunk; a forked process ends at once.
            if self.is_forked or issubclass(type(error), KeyboardInterrupt | Terminated):
                return False
            status, info = self._outcome(error, spec)
            if status == "error":
                errors[index] = name_item(index, info)
            return status == "error"

        if isinstance(function, Seeded):
            function = function.items(first, step)
        values = engine_calls.map_items(function, columns, is_of_item)
        self._name_item = name_item
        return Part(values, dist, errors)

    def _pickle_chunk(self, part: Part, spec: TaskSpec) -> tuple[payload.Payload, ErrorInfo | None]:
        """The pickle of a chunk's values, and the error for its record, if an item failed."""
        if not part.errors:
            try:
                return payload.dumps(part, keep=self.keep), None
            except Exception:  # the value of an item cannot be pickled: find out which
                part = Part(part.value, part.dist, {})
        errors = dict(part.errors)
        for index, value in enumerate(part.value):
            if index not in errors:
                try:
                    self._pickle(value)
                except Exception as error:
                    errors[index] = self._name_item(index, self._outcome(error, spec)[1])
        values = [None if index in errors else value for index, value in enumerate(part.value)]
        first = errors[min(errors)] if errors else None
        if first is None or len(values) == 1:
            return (b"", ()) if first else payload.dumps(part, keep=self.keep), first
        text = f"{first.evalue} (item {min(errors)} of this task; {len(errors)} of its {len(values)} items failed)"
        whole = msgspec.structs.replace(first, evalue=text)
        return payload.dumps(Part(values, part.dist, errors), keep=self.keep), whole

    def _lending(self, travelled: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """Add the globals that came with the function to the namespace, for the call; names that are there stay."""
        namespace = self.module.__dict__
        lent = {name: value for name, value in travelled.items() if name not in namespace}
        try:
            functions.lent.update(lent)
            namespace.update(lent)
            return call()
        finally:
            self.is_running = False  # an interrupt would leave what was lent behind
            for name, value in lent.items():
                if namespace.get(name) is value:  # else the task has bound it anew: that stays
                    del namespace[name]
            functions.lent.clear()

    def refusal_reason(self, digest: Digest, seconds: float) -> str:
        """Why this engine's properties forbid tasks with a function; "": they allow them. Raises only Terminated.

        The function's own `depend` decides. An error of it, or its taking longer than `seconds`, forbids them.
        """
        late = f"its depend took longer than {seconds:g} s"
        try:
            self.is_running = True
            function = self._function(digest)
            call: Any = function.call
            with task_context.time_limit(seconds, "DependencyTimeout", late):
                agrees = self._lending(function.travelled, lambda: bool(call.depend(dict(properties))))
        except Terminated:
            raise
        except Interrupted:
            return late
        except BaseException as error:
            if self.is_forked:
                end_forked(error)
            return f"its depend raised {type(error).__name__}: {text_of(error)}"
        finally:
            self.is_running = False
        if self.is_forked:
            end_forked(None)
        return "" if agrees else "its depend is false"

    def _execute(self, spec: TaskSpec, started: float) -> tuple[Any, dict[str, Any], BaseException | None]:
        """Run a cell: (reply, content, what it raised in IPython). Plain Python that shows nothing needs no IPython."""
        source = spec.payload.decode()
        silent = spec.options is None or spec.options.silent
        if silent and "get_ipython" not in source:
            try:
                tree = ast.parse(source)
            except SyntaxError:
                tree = None  # magics, top-level await, or nonsense: IPython will tell
            if tree is not None:
                self._cells += 1
                name = f"<cell {self._cells}>"
                linecache.cache[name] = (len(source), None, source.splitlines(True), name)
                script_globals.execute(compile(tree, name, "exec"), self.module.__dict__)
                return (
                    {"source": source, "execution_count": None, "data": {}, "metadata": {}},
                    {"execute_input": source},
                    None,
                )
        reply, caught = self.shell().run(source, silent=silent)
        content = {"execute_input": source, "execution_count": reply["execution_count"]}
        if reply["data"]:
            content["execute_result"] = {
                "data": reply["data"],
                "metadata": reply["metadata"],
                "execution_count": reply["execution_count"],
            }
        return reply, content, caught

    def _pickle(self, value: Any) -> payload.Payload:
        if type(value) is types.CoroutineType:
            value.close()
            raise TypeError("the function is async: send one that runs it, as lambda: asyncio.run(function())")
        try:
            return payload.dumps(value, keep=self.keep)
        except MemoryError as error:
            raise MemoryError(str(error) or "there is no memory on the engine for a copy of the result") from error
        except Exception as error:
            problem = payload.describe_failure(error, [("the result", value)])
            message = (
                str(problem).replace("so nothing was sent", "so it stays on the engine").partition(" Send what")[0]
            )
            raise type(problem)(message) from error

    def _outcome(self, error: BaseException, spec: TaskSpec) -> tuple[Status, ErrorInfo]:
        """How a task ends that raised this. Nothing a hostile exception does may end the engine."""
        try:
            return self._outcome_of(error, spec)
        except BaseException:
            text = "<nothing can be said of it: its class or its text raises when it is looked at>"
            name = _name(error)
            trace = f"{name}: {text}"
            return "error", ErrorInfo(name, text, trace, self.engine, self.uuid, spec.kind, False, self.host, None,
                                      spec.arguments or None)  # fmt: skip

    def _outcome_of(self, error: BaseException, spec: TaskSpec) -> tuple[Status, ErrorInfo]:
        kind = type(error)  # not isinstance(), which asks the exception for its __class__
        if issubclass(kind, Interrupted):
            assert isinstance(error, Interrupted)
            stopped = self._describe(error, spec, error.ename)
            stopped.stopped = True
            return error.status, stopped
        if kind is ModulesDiffer:
            refused = self._describe(error, spec, EngineError.__name__)
            refused.stopped = True
            return "error", refused
        # A task that was sent to this engine cannot be tried on another.
        unmet = issubclass(kind, UnmetDependency) and not issubclass(kind, ImpossibleDependency)
        status: Status = "unmet" if unmet and spec.engine < 0 else "error"
        return status, self._describe(error, spec, _name(error))

    def _describe(self, error: BaseException, spec: TaskSpec, name: str) -> ErrorInfo:
        """An exception as text."""
        text = text_of(error)
        frame: types.TracebackType | None = _traceback_of(error)
        try:
            while frame is not None and frame.tb_frame.f_code.co_filename in _OURS:
                frame = frame.tb_next
            source_lines.show_in_traceback(error)
            lines = traceback.format_exception(type(error), error, frame)
            if name != _name(error):
                lines[-1] = f"{name}: {text}\n"
        except BaseException:
            lines = [*traceback.format_tb(frame), f"{name}: {text}"]
        text = sendable(text)
        try:
            packed = exceptions.pack(error, text)
        except BaseException:  # a hostile exception: its text must do
            packed = b""
        trace = sendable("".join(lines))
        return ErrorInfo(
            name, text, trace, self.engine, self.uuid, spec.kind, False, self.host, None, spec.arguments or None, packed
        )


def _part(function: Callable[..., Any], *parts: Any, dist: str = "b") -> Part:
    """Call a function on whole parts (what a ParallelFunction's call does)."""
    return Part(function(*parts), dist)


def _name(error: BaseException) -> str:
    """The name of an exception's class, whatever its metaclass does."""
    try:
        return str(type.__dict__["__name__"].__get__(type(error)))
    except BaseException:
        return "Exception"


#: Reads the attribute itself: an exception's own `__getattribute__` may raise.
_traceback_of = BaseException.__dict__["__traceback__"].__get__


_MODULES = (
    classic, engine_calls, functional_dependency, random_streams, functions, payload, script_globals, values,
)  # fmt: skip
_OURS: set[str | None] = {module.__file__ for module in _MODULES} | {__file__}
