"""What the command-line tools share: profiles, configuration files, logging, errors in one line."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, ClassVar

from traitlets import Bool, Unicode
from traitlets.config import Application, ConfigFileNotFound

from .._version import __version__
from ..config import make_profile_dir, profile_dir
from ..errors import EngineroomError

#: Exit codes.
FAILED, ALREADY_RUNNING = 1, 10

BASE_ALIASES = {
    "profile": "EngineroomApp.profile",
    "profile-dir": "EngineroomApp.profile_directory",
    "ipython-dir": "EngineroomApp.ipython_directory",
    "cluster-id": "EngineroomApp.cluster_id",
    "log-level": "Application.log_level",
}

BASE_FLAGS: dict[str, Any] = {
    "debug": ({"Application": {"log_level": 10}}, "log everything"),
    "quiet": ({"Application": {"log_level": 50}}, "log only what is critical"),
    "no-config": ({"EngineroomApp": {"use_config": False}}, "do not read the profile's configuration files"),
}


class EngineroomApp(Application):
    """Base of the tools."""

    version = __version__
    aliases: ClassVar[dict[str, Any]] = {**BASE_ALIASES}
    flags: ClassVar[dict[str, Any]] = {**BASE_FLAGS}

    profile = Unicode("", help="The profile: a folder of configuration, connection files and the task database.").tag(
        config=True
    )
    profile_directory = Unicode("", help="The profile's folder itself, instead of its name.").tag(config=True)
    ipython_directory = Unicode("", help="Where profiles are; default: $IPYTHONDIR or ~/.ipython.").tag(config=True)
    cluster_id = Unicode("", help="Distinguishes several clusters of one profile.").tag(config=True)
    use_config = Bool(True, help="Read <profile>/<tool>_config.py and .json.").tag(config=True)

    config_names: ClassVar[tuple[str, ...]] = ()

    @property
    def folder(self) -> Path:
        """The profile's folder."""
        return profile_dir(self.profile or None, self.profile_directory or None, self.ipython_directory or None)

    def initialize(self, argv: Any = None) -> None:
        self.parse_command_line(argv)
        given = self.config.copy()
        if self.use_config:
            for name in self.config_names:
                try:
                    self.load_config_file(name, path=[str(self.folder)])
                except ConfigFileNotFound:
                    continue
            self.update_config(given)  # the command line wins

    def make_folder(self) -> Path:
        """The profile's folder, made if it is missing."""
        return make_profile_dir(self.folder)


def log_to_stderr(level: int | str) -> None:
    """Log lines with a time, as daemons do."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(message)s", stream=sys.stderr, force=True)


def run(app: type[Application], argv: list[str] | None = None) -> int:
    """Run a tool; errors we expect are one line and an exit code, not a traceback."""
    try:
        app.launch_instance(argv)
    except EngineroomError as error:
        print(f"{app.name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0
