"""The one place that knows the version."""

__version__ = "0.1.0"
version_info = (0, 1, 0)

#: Spoken on the wire; peers with another number are refused at connect.
PROTOCOL_VERSION = 3
