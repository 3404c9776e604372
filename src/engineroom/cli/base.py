"""What the command-line tools share: profiles, configuration files, flags, help, errors in one line."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from traitlets import Bool, Int, TraitError, Undefined, Unicode
from traitlets.config import Application, Config
from traitlets.config.loader import ArgumentError, ConfigFileNotFound
from traitlets.config.loader import ConfigError as ConfigLoaderError
from traitlets.config.loader import ConfigLoaderError as LoaderError

from .._version import __version__
from ..cluster.commands import STORE_BUSY
from ..config import make_profile_dir, profile_dir
from ..errors import ConfigError, EngineroomError, QueryError, StoreBusy
from ..printable import one_line, printable
from ..private import why_not_trusted
from .former_options import EVERYWHERE, Former
from .text import paint, width_of_terminal

#: Exit codes.
FAILED, BAD_USAGE, ALREADY_RUNNING, INTERRUPTED = 1, 2, 10, 130

BASE_ALIASES = {
    "profile": "EngineroomApp.profile",
    "profile-dir": "EngineroomApp.profile_directory",
    "ipython-dir": "EngineroomApp.ipython_directory",
    "cluster-id": "EngineroomApp.cluster_id",
    "log-level": "Application.log_level",
    "work-dir": "EngineroomApp.work_dir",
    "config": "EngineroomApp.config_path",
}

BASE_FLAGS: dict[str, Any] = {
    "debug": ({"Application": {"log_level": 10}}, "log everything"),
    "quiet": ({"Application": {"log_level": 50}}, "log only what is critical"),
    "no-config": ({"EngineroomApp": {"use_config": False}}, "do not read the profile's configuration files"),
    "show-config": (
        {"Application": {"show_config": True}},
        "print the settings that configuration files and options give; do nothing else",
    ),
    "show-config-json": ({"Application": {"show_config_json": True}}, "the same as JSON"),
}

#: Flags of every traitlets application, and those that print something and end.
_BUILT_IN = frozenset({"h", "help", "help-all", "V", "version", "show-config", "show-config-json", "generate-config"})


class UsageError(ConfigError):
    """The command line cannot be understood."""

    code = "usage"


class EngineroomApp(Application):
    """Base of the tools."""

    version = __version__
    aliases: Any = {**BASE_ALIASES}
    flags: Any = {**BASE_FLAGS}
    #: how the command is typed: "ipcluster start [options] [-- …]"
    usage: ClassVar[str] = ""
    #: how many arguments it takes that are not options: (at least, at most), and their name in messages
    positional: ClassVar[tuple[int, int, str]] = (0, 0, "argument")
    #: what its arguments may be, if that is known: for completion
    completes: ClassVar[tuple[str, ...]] = ()
    #: whether it accepts `-- …`: options for another command
    passes_on: ClassVar[bool] = False

    profile = Unicode("", help="The profile: a folder of configuration, connection files and the task database.").tag(
        config=True
    )
    profile_directory = Unicode("", help="The profile's folder itself, instead of its name.").tag(config=True)
    ipython_directory = Unicode("", help="Where profiles are; default: $IPYTHONDIR or ~/.ipython.").tag(config=True)
    cluster_id = Unicode("", help="Distinguishes several clusters of one profile.").tag(config=True)
    use_config = Bool(True, help="Read <profile>/<tool>_config.py and .json.").tag(config=True)

    work_dir = Unicode("", help="The folder to work in; default: the current one.").tag(config=True)
    config_path = Unicode("", help="One more configuration file; it wins over those of the profile.").tag(config=True)

    config_names: ClassVar[tuple[str, ...]] = ()
    #: options of ipyparallel's tool that have no effect
    former: ClassVar[dict[str, Former]] = EVERYWHERE

    #: the options after `--`
    passed_on: list[str] = []
    #: those former options that were given, and why they have no effect
    without_effect: dict[str, str]

    @property
    def folder(self) -> Path:
        """The profile's folder."""
        return profile_dir(self.profile or None, self.profile_directory or None, self.ipython_directory or None)

    def initialize(self, argv: Any = None) -> None:
        self.parse_command_line(argv)
        if self.subapp is not None:
            return
        given = Config(self.config.copy())
        if self.work_dir:
            try:
                os.chdir(self.work_dir)
            except OSError as error:
                raise ConfigError(f"--work-dir={self.work_dir}: {error.strerror}") from None
        if self.use_config:
            for name in self.config_names:
                self._refuse_foreign(name)
                try:
                    self.load_config_file(name, path=[str(self.folder)])
                except ConfigFileNotFound:
                    continue
        if self.config_path:
            path = Path(self.config_path).expanduser().absolute()
            if not path.exists():
                raise ConfigError(f"there is no configuration file {path}")
            self._refuse_foreign_file(path)
            self.load_config_file(path.name, path=[str(path.parent)])
        self.update_config(given)  # the command line wins

    def _refuse_foreign(self, name: str) -> None:
        """Configuration in Python is run: refuse what another user may have written."""
        for path in (self.folder / f"{name}.py", self.folder / f"{name}.json"):
            self._refuse_foreign_file(path)

    def _refuse_foreign_file(self, path: Path) -> None:
        why = why_not_trusted(path) if path.exists() else ""
        if why:
            raise ConfigError(
                f"{path} is not read, because another user may have written it: {why}. Make both yours alone "
                f"(chmod go-w), or do without it: --no-config"
            )

    def initialize_subcommand(self, subc: str, argv: Any = None) -> None:
        _initialize_subcommand(self, subc, argv)

    def parse_command_line(self, argv: Any = None) -> None:
        self.without_effect = {}
        words = list(sys.argv[1:] if argv is None else argv)
        if words[:1] == ["help"] and self.subcommands:
            words = [*words[1:], "--help"]
        if self.subcommands and words and words[0] in self.subcommands:
            _parse(self, words)
            return
        if "--" in words:
            words, self.passed_on = words[: words.index("--")], words[words.index("--") + 1 :]
            if self.passed_on and not self.passes_on:
                raise UsageError(f"this command accepts nothing after `--`; remove {' '.join(self.passed_on)!r}")
        if self.subcommands and words and not words[0].startswith("-"):
            raise UsageError(_unknown("command", words[0], list(self.subcommands)))
        if not self.subcommands or words:
            _parse(self, self._spelled_out(words))
        few, many, what = self.positional
        if len(self.extra_args) > many:
            first, *others = self.extra_args[many:]
            more = f" and {len(others):,} more" if others else ""
            limit = f"; one command takes {many:,} at most" if many > 1 else ""
            raise UsageError(f"unexpected {what}: {first!r}{more}{limit}")
        if len(self.extra_args) < few:
            raise UsageError(f"an argument is missing: {what}. Usage: {self.usage}")

    def _spelled_out(self, words: list[str]) -> list[str]:
        """The words with every option as `--name=value`, after all other words. `-n 4`, `-n4`, `--n 4` mean the same.

        Raises
        ------
        UsageError
            There is no such option, or it lacks its value, or it has one that it does not take.
        """
        result, others = [], []
        left = iter(words)
        for word in left:
            if not word.startswith("-") or word == "-":
                others.append(word)
                continue
            name, equals, value = word.lstrip("-").partition("=")
            if not word.startswith("--") and len(name) > 1 and name[0] in self.aliases and name not in self.aliases:
                name, equals, value = name[0], "=", name[1:] + equals + value  # -n4
            former = self.former.get(name)
            if former is not None:
                if former.takes_value and not equals:
                    value = next(left, "")
                if former.check is not None:
                    try:
                        former.check(value)
                    except ValueError as error:
                        raise UsageError(f"--{name}: {error}") from None
                self.without_effect[name] = former.why
                continue
            if name in self.flags or name in _BUILT_IN:
                if equals and name not in self.aliases:
                    raise UsageError(f"--{name} takes no value, got {value!r}")
                result.append(word)
                continue
            if name not in self.aliases and not self._is_trait(name):
                options = [*self.aliases, *self.flags, *_BUILT_IN]
                raise UsageError(_unknown("option", name, options, "-" if len(name) == 1 else "--"))
            if not equals:
                following = next(left, None)
                if following is None:
                    raise UsageError(f"{word} needs a value: {word}=…")
                value = following
            result.append(f"{'-' if len(name) == 1 else '--'}{name}={value}" if len(name) > 1 else f"--{name}={value}")
        return others + result

    def _is_trait(self, name: str) -> bool:
        """Whether a name is `Class.trait` with a class and a setting of this command."""
        owner, dot, trait = name.partition(".")
        classes = {cls.__name__: cls for known in [type(self), *self.classes] for cls in known.__mro__}
        found = classes.get(owner)
        return bool(dot) and found is not None and trait in found.class_trait_names(config=True)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------ help

    def emit_help(self, classes: bool = False) -> Iterator[str]:  # type: ignore[override]
        """The help text: usage, what the command does, every option, examples."""
        name = self.usage or f"{self.name} [options]"
        yield f"{paint('Usage:', 'bold')} {name}"
        yield ""
        yield from _fitting(inspect.cleandoc(self.description or "").splitlines())
        yield ""
        if self.subcommands:
            yield paint("Commands", "bold")
            width = max(map(len, self.subcommands)) + 2
            for command, (_, about) in self.subcommands.items():
                yield from _option_lines(command, about, width + 2)
            yield ""
        else:
            yield from self._emit_options()
        if self.examples:
            yield paint("Examples", "bold")
            yield from textwrap.indent(inspect.cleandoc(self.examples), "  ").splitlines()
            yield ""
        if self.subcommands:
            yield f"`{self.name} COMMAND --help` describes one command."
        elif classes:
            yield paint("All settings", "bold")
            yield f"  On the command line as --Class.name=value, in {self._config_file()} as c.Class.name = value."
            yield ""
            for cls in self._help_classes():
                yield cls.class_get_help().replace("\x1b", "")
                yield ""
        else:
            yield "`--help-all` shows every setting that a configuration file can hold."

    def _help_classes(self) -> list[Any]:
        ours = [cls for cls in type(self).__mro__ if issubclass(cls, EngineroomApp)]
        return [*(cls for cls in ours if cls.class_own_traits(config=True)), *self.classes]

    def _config_file(self) -> str:
        return f"<profile>/{self.config_names[0]}.py" if self.config_names else "a configuration file"

    def _emit_options(self) -> Iterator[str]:
        traits = {
            f"{cls.__name__}.{name}": trait
            for known in [type(self), *self.classes]
            for cls in known.__mro__
            if hasattr(cls, "class_own_traits")
            for name, trait in cls.class_own_traits(config=True).items()
        }
        own: list[tuple[str, str]] = []
        general: list[tuple[str, str]] = []
        for key, target in self.aliases.items():
            trait = traits.get(target)
            text = "" if trait is None else trait.help.strip()
            metavar = METAVARS.get(key) or ("N" if isinstance(trait, Int) else key.upper())
            if trait is not None and trait.default_value not in ("", None, -1, Undefined) and "efault" not in text:
                default = trait.default_value
                text += f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
            if key == "log-level":
                text, metavar = "Which log lines are shown: DEBUG, INFO, WARN, ERROR.", "LEVEL"
            shown = f"-{key} {metavar}" if len(key) == 1 else f"--{key}={metavar}"
            (general if key in BASE_ALIASES else own).append((shown, text))
        for key, (_, about) in self.flags.items():
            text = about[:1].upper() + about[1:].rstrip(".") + "."
            (general if key in BASE_FLAGS else own).append((f"--{key}", text))
        general += [("--help, --help-all", "Print this text; with every setting."), ("--version", "Print the version.")]
        for title, options in (("Options", own), ("Profile, log and help", general)):
            if options:
                yield paint(title, "bold")
                for shown, text in options:
                    yield from _option_lines(shown, text)
                yield ""

    def say_what_has_no_effect(self) -> None:
        """Log the former options that were given."""
        for name, why in self.without_effect.items():
            logging.getLogger("engineroom").warning("--%s has no effect: %s", name, why)

    def make_folder(self) -> Path:
        """The profile's folder; it is created if it is missing."""
        return make_profile_dir(self.folder)


#: Methods of Application without their decorator: that would log errors and exit. `run` prints one line instead.
_parse = inspect.unwrap(Application.parse_command_line)
_initialize_subcommand = inspect.unwrap(Application.initialize_subcommand)

METAVARS = {
    "profile": "NAME",
    "profile-dir": "FOLDER",
    "ipython-dir": "FOLDER",
    "cluster-id": "ID",
    "work-dir": "FOLDER",
    "config": "FILE",
    "ip": "ADDRESS",
    "allow-host": "NAME,…",
    "token-file": "FILE",
    "location": "HOST",
    "file": "FILE",
    "timeout": "SECONDS",
    "interval": "SECONDS",
    "o": "FORMAT",
    "db-url": "URL",
    "hwm": "N",
    "keys": "A,B",
    "sort": "KEY",
    "engines": "LAUNCHER",
    "resources": "NAME=N,…",
    "adaptive": "N,N",
    "walltime": "TIME",
    "memory": "SIZE",
    "constraint": "TEXT",
    "template-file": "FILE",
    "option": "NAME=VALUE",
    "controller": "LAUNCHER",
    "since": "TIME",
    "session": "ID",
    "label": "PATTERN",
}


def _fitting(lines: list[str]) -> Iterator[str]:
    """Lines of text for a terminal that may be narrow: too long ones are folded between words."""
    width = width_of_terminal()
    for line in lines:
        yield from textwrap.wrap(line, width) if len(line) > width else [line]


def _option_lines(shown: str, text: str, indent: int = 24) -> Iterator[str]:
    lines = textwrap.wrap(text, max(30, min(100, width_of_terminal()) - indent)) or [""]
    if len(shown) > indent - 3:
        yield f"  {shown}"
    else:
        yield f"  {shown:{indent - 2}}{lines.pop(0)}"
    for line in lines:
        yield " " * indent + line


def _unknown(what: str, name: str, known: list[str], dashes: str = "") -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {dashes if len(close[0]) > 1 else '-'}{close[0]}?" if close else ""
    if not hint and not dashes:
        hint = f" There are {', '.join(known)}."
    return f"there is no {what} {dashes}{name}.{hint}" + (" `--help` shows them all." if dashes and not close else "")


class _PrintableFormatter(logging.Formatter):
    """Log lines quote what peers send: nothing in them steers a terminal, or looks like a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record)).replace("\n", "\n    ")


def log_to_stderr(level: Any) -> None:
    """Write log lines with the time to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname).1s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def run(app: type[Application], argv: list[str] | None = None) -> int:
    """Run a tool. An expected error prints one line and gives an exit code; no traceback."""
    name = str(app.name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show "…" gets an escape
    tool: Any = app.instance()
    try:
        tool.initialize(argv)
        tool = _deepest(tool)
        tool.say_what_has_no_effect()
        tool.start()
        sys.stdout.flush()
        return int(getattr(tool, "exit_code", 0))
    except SystemExit as exit:  # --help, --version
        return exit.code if isinstance(exit.code, int) else BAD_USAGE
    except (UsageError, QueryError) as error:
        return _complain(name, error, BAD_USAGE)
    except (TraitError, ArgumentError, LoaderError, ConfigLoaderError) as error:
        return _complain(name, _named_as_option(str(error), tool), BAD_USAGE)
    except StoreBusy as error:
        return _complain(name, error, STORE_BUSY)
    except EngineroomError as error:
        return _complain(name, error, FAILED)
    except (RuntimeError, TimeoutError) as error:
        if type(error) not in (RuntimeError, TimeoutError):
            raise
        return _complain(name, error, FAILED)
    except BrokenPipeError:  # `engineroom tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except OSError as error:  # a file or folder that cannot be used; the text names it
        return _complain(name, error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:  # traitlets has one tool to a process: the next one may be another
        _deepest(tool).clear_instance()


def _deepest(tool: Any) -> Any:
    """The command of a tool that the arguments name, as far as they have been read."""
    while tool.subapp is not None:
        tool = tool.subapp
    return tool


#: What traitlets says of a bad value (the trait, its class, what is expected, what was given), and what we say.
_BAD_VALUES = (
    (
        re.compile(r"The '(\w+)' trait of an? (\w+) instance expected (.*), not the \w+ (.*)\."),
        "{option} expects {expected}, not {got}",
    ),
    (
        re.compile(
            r"The value of the '(\w+)' trait of an? (\w+) instance should not be (.*), "
            r"but a value of (.*) was specified"
        ),
        "{option} must not be {expected}; got {got}",
    ),
)


def _named_as_option(text: str, tool: Any) -> str:
    """The message of traitlets about a bad value, with the name of the option that the user typed."""
    for pattern, ours in _BAD_VALUES:
        if (found := pattern.fullmatch(text)) is not None:
            trait, owner, expected, got = found.groups()
            names = [name for name, target in _deepest(tool).aliases.items() if target.rpartition(".")[2] == trait]
            option = f"{'-' if len(names[0]) == 1 else '--'}{names[0]}" if names else f"{owner}.{trait}"
            return ours.format(option=option, expected=expected.replace(repr("") + ", ", ""), got=got)
    return text


def _complain(name: str, error: object, code: int) -> int:
    print(f"{name}: {one_line(error)}", file=sys.stderr)
    return code
