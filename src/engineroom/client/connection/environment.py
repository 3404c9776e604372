"""The environment of a client: recorded once for each, so that a record tells with which software it was made."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import socket
import sys

import msgspec

from ...messages import Environment

_DISTRIBUTION = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_SECRET = re.compile(r"pass|pwd|secret|token|credential|auth|key", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@functools.cache
def environment(session: str = "") -> Environment:
    """This process's Python, platform, host, working directory, command line and installed packages.

    Also the notebook, in one, and the name of the client's session, if it has one.
    """
    try:
        folder = os.getcwd()
    except OSError:  # it has been removed
        folder = ""
    facts = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform_name(),
        "host": socket.gethostname(),
        "cwd": folder,
        "argv": without_secrets(sys.argv),
        "packages": packages(),
    }
    if notebook := notebook_here():
        facts["notebook"] = notebook
    if session:
        facts["session"] = session
    content = msgspec.json.encode(_sendable(facts), order="sorted")
    return Environment(hashlib.blake2b(content, digest_size=16).hexdigest(), content)


def platform_name() -> str:
    """What `platform.platform()` says. That starts a process on Linux, to ask for the kind of processor."""
    if sys.platform != "linux":
        return platform.platform()
    system, libc = os.uname(), "".join(platform.libc_ver())
    return f"{system.sysname}-{system.release}-{system.machine}" + (f"-with-{libc}" if libc else "")


def notebook_here() -> str:
    """The path of the notebook whose kernel this is; "": it is none, or its server does not say."""
    main = sys.modules.get("__main__")
    return os.environ.get("JPY_SESSION_NAME") or str(getattr(main, "__vsc_ipynb_file__", ""))


def packages() -> dict[str, str]:
    """Installed packages and their versions, by the names of their folders. Reading their metadata would take long."""
    found: dict[str, str] = {}
    for path in sys.path:
        try:
            names = os.listdir(path or ".")
        except OSError:
            continue
        for name in names:
            match = _DISTRIBUTION.fullmatch(name)
            if match:
                found.setdefault(match["name"].replace("_", "-").lower(), match["version"])
    return found


def without_secrets(words: list[str]) -> list[str]:
    """A command line in which possible secrets are replaced: values of options with such names, users in URLs."""
    shown = []
    is_secret = False
    for word in words:
        name, equals, _ = word.partition("=")
        if is_secret and not word.startswith("-"):
            word = "***"
        is_secret = bool(_SECRET.search(name)) and name.startswith("-") and not equals
        if equals and _SECRET.search(name):
            word = f"{name}=***"
        shown.append(_USER_IN_URL.sub("***", word))
    return shown


def _sendable(value: object) -> object:
    """The same with text that can be encoded: names of files may contain bytes that are not Unicode."""
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
