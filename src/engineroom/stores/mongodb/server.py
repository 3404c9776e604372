"""The URL of a MongoDB server, pymongo's client, and how their words are shown in errors."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

from ...errors import ConfigError

#: Seconds to look for the server before it counts as gone.
SERVER_SECONDS = 3.0
#: Seconds to wait for an answer before the connection counts as broken.
ANSWER_SECONDS = 60.0


def masked(url: str) -> str:
    """A URL without its password and options, to be shown."""
    found = re.fullmatch(r"(mongodb(?:\+srv)?://)(?:(.*)@)?([^@?]*)(?:\?[^@]*)?", url, re.DOTALL)
    if found is None:
        return url.partition("://")[0] + "://…"
    scheme, user, rest = found.groups()
    return f"{scheme}{user.partition(':')[0] + '@' if user else ''}{rest}"


def connect(url: str) -> Any:
    """A client. It does not ask the server anything yet; ConfigError says what is wrong with the URL."""
    try:
        import pymongo
    except ImportError:
        raise ConfigError(f"{masked(url)} needs pymongo: pip install 'engineroom[mongo]'") from None
    seconds = int(SERVER_SECONDS * 1000)
    own = {
        "serverSelectionTimeoutMS": seconds,
        "connectTimeoutMS": seconds,
        "socketTimeoutMS": int(ANSWER_SECONDS * 1000),
        "appname": "engineroom",
    }
    try:
        lowered = url.lower()
        return pymongo.MongoClient(url, **{k: v for k, v in own.items() if f"{k.lower()}=" not in lowered})
    except (pymongo.errors.PyMongoError, ValueError, TypeError):  # its text may quote the password
        raise ConfigError(
            f"{masked(url)} is not a URL that pymongo understands: mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with "
            "/ : @ and % in the password percent-escaped"
        ) from None


def codec() -> Any:
    """Options for reading documents: datetimes are in UTC."""
    from bson.codec_options import CodecOptions

    return CodecOptions(tz_aware=True, tzinfo=UTC)


def no_document() -> tuple[type[Exception], ...]:
    """The exceptions for a document that cannot be sent at all."""
    from pymongo.errors import DocumentTooLarge, InvalidDocument

    return DocumentTooLarge, InvalidDocument, OverflowError


def hosts_of(client: Any) -> str:
    """The addresses of the servers, to be shown."""
    return ", ".join(
        sorted(
            f"{host}:{port}" if port else str(host) for host, port in client.topology_description.server_descriptions()
        )
    )


def brief(error: Exception) -> str:
    """The message of a server or of the connection, shortened to be shown."""
    return str(error).partition(", full error")[0].partition(", Timeout:")[0][:300]
