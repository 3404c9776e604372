"""The one place that knows the version."""

__version__ = "0.2.0"
version_info = tuple(int(part) for part in __version__.split("."))

#: Releases with the same number talk to each other. A peer with another one is refused at its Hello.
PROTOCOL_VERSION = 3
