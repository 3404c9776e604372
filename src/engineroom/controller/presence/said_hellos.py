"""The Hellos that were said, so that nobody can send one of them again."""

from __future__ import annotations

import hashlib

#: Hellos are remembered in so many groups, by their digests; of each group so many, the latest: 102,400 in all.
GROUPS, EACH = 256, 400
_SIZE = 16


class SaidHellos:
    """Remembers nonces, with 16 bytes for each: a controller may live for months, and clients come and go."""

    def __init__(self) -> None:
        #: the digests of each group, oldest first
        self._groups = [bytearray() for _ in range(GROUPS)]

    def add(self, nonce: str) -> None:
        """A Hello with this nonce was accepted."""
        digest = _digest(nonce)
        group = self._group(digest)
        group += digest
        if len(group) > EACH * _SIZE:
            del group[:_SIZE]

    def __contains__(self, nonce: str) -> bool:
        # A digest across the border of two others would be found, too: as likely as two that are the same.
        digest = _digest(nonce)
        return digest in self._group(digest)

    def __len__(self) -> int:
        return sum(map(len, self._groups)) // _SIZE

    def _group(self, digest: bytes) -> bytearray:
        return self._groups[digest[0] % GROUPS]


def _digest(nonce: str) -> bytes:
    return hashlib.blake2b(nonce.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()
