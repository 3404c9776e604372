"""Headers of messages through every decoder of `wire/frames.py`, and both ends of `wire/session.py`.

A case is a header. A decoder may raise ProtocolError, and nothing else. What it accepts is encoded and decoded again:
it must be the same message. Messages about the session go through a session at both ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from engineroom.errors import AuthenticationError, EngineroomError, ProtocolError
from engineroom.messages import Hello, Ping, Pong, Refused, TaskDone, TaskSpec, Welcome
from engineroom.testing.peers import KEY
from engineroom.wire import frames
from engineroom.wire.session import LinkSession, PeerSession, answer_unknown, check_hello, introduce, refusal_error

from . import samples
from .target import Finding, TreeTarget

_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    frames.decode_from_unknown,
    frames.decode_from_client,
    frames.decode_to_client,
    frames.decode_from_engine,
    frames.decode_to_engine,
    frames.decode_from_nanny,
    frames.decode_to_nanny,
)
_FRAMES = (b"one", b"two")


class DecodingTarget(TreeTarget):
    """All decoders, one after the other."""

    name = "decoding"
    atoms = ("hello", "ping", "submit", "results", "request", "findrecords", "t1", msgspec.msgpack.Ext(5, b"z"))

    def __enter__(self) -> DecodingTarget:
        self._introduction = introduce("client", KEY, "fuzz")
        return self

    def seeds(self) -> list[bytes]:
        messages = [message for direction in samples.DIRECTIONS for message in samples.of(direction)]
        columns = [{"msg_id": ["a", "b"], "state": [None, "pending"]}, {"a": [1], "b": []}]
        return [msgspec.msgpack.encode(each) for each in [*messages, *columns]]

    def run(self, case: bytes) -> None:
        for decode in _DECODERS:
            try:
                message = decode(case)
            except ProtocolError:
                continue
            again = frames.encode(message)
            if frames.encode(decode(again)) != again:
                raise Finding(f"another message after it was encoded again: {message!r:.500}")
            self._session(message)
            self._pick(message)
        with contextlib.suppress(ProtocolError):
            frames.decode_columns(case)

    def _session(self, message: Any) -> None:
        link = LinkSession(self._introduction, 1.0, 0.0)
        peer = PeerSession(link.hello(0.0), KEY.encode(), 0.0)
        link.believes(message)
        match message:
            case Hello():
                try:
                    check_hello(message, {"full": KEY.encode()})
                except (AuthenticationError, ProtocolError):
                    return
                raise Finding("a Hello without the key is let in")
            case Welcome():
                try:
                    link.on_welcome(message)
                except AuthenticationError:
                    return
                if message.hello == link.number:
                    raise Finding("a Welcome without the key is believed")
            case Ping():
                link.on_pong(peer.answer(message))
                answer_unknown(message)
            case Pong():
                link.on_pong(message)
            case Refused():
                if not isinstance(refusal_error(message, "ipc://x"), EngineroomError):
                    raise Finding("a refusal is no typed error")

    def _pick(self, message: Any) -> None:
        parts = getattr(message, "tasks", None)
        if isinstance(parts, list) and parts and isinstance(parts[0], TaskSpec | TaskDone):
            with contextlib.suppress(ProtocolError):
                frames.pick_all(parts, _FRAMES)
