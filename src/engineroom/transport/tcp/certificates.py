"""The certificates by which two ends of an encrypted connection recognise each other.

A certificate is signed by itself, with Ed25519. Nobody issues it: the other end knows it before, and trusts it alone.
All its fields but the key are constant. So a certificate follows from its seed, which is the secret key:

    controller   a random seed. The connection file holds the certificate.
    links        a seed that is derived from the cluster's key: whoever has the key has this certificate.

Python's `ssl` reads certificates, and makes none. So the few lines that Ed25519 (RFC 8032) needs for that are here.
They make a key and sign once, when a process begins to listen or to connect. OpenSSL does everything else.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

# ------------------------------------------------------------------------------------------ Ed25519

#: The field, the order of the base point, the constant of the curve.
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P

#: A point (x, y) as (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
_Point = tuple[int, int, int, int]


def _base() -> _Point:
    y = 4 * pow(5, -1, _P) % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    x = _P - x if x % 2 else x
    return x, y, 1, x * y % _P


def _add(a: _Point, b: _Point) -> _Point:
    low = (a[1] - a[0]) * (b[1] - b[0]) % _P
    high = (a[1] + a[0]) * (b[1] + b[0]) % _P
    c, d = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = high - low, d - c, d + c, high + low
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times_base(factor: int) -> bytes:
    """The multiple of the base point, as 32 bytes."""
    found, double = (0, 1, 1, 0), _base()
    while factor:
        if factor & 1:
            found = _add(found, double)
        double = _add(double, double)
        factor >>= 1
    inverse = pow(found[2], -1, _P)
    x, y = found[0] * inverse % _P, found[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _expanded(seed: bytes) -> tuple[int, bytes]:
    """The secret number, and what makes signatures' own secrets."""
    whole = hashlib.sha512(seed).digest()
    number = int.from_bytes(whole[:32], "little") & (1 << 254) - 8 | 1 << 254
    return number, whole[32:]


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _ORDER


def public_key(seed: bytes) -> bytes:
    """The public key, 32 bytes, of a secret seed of 32 bytes."""
    return _times_base(_expanded(seed)[0])


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature of a message: 64 bytes."""
    number, prefix = _expanded(seed)
    once = _number(prefix, message)
    point = _times_base(once)
    proof = (once + _number(point, public_key(seed), message) * number) % _ORDER
    return point + proof.to_bytes(32, "little")


# ------------------------------------------------------------------------------------------ X.509

#: "Ed25519", and the name "engineroom", in DER.
_ED25519 = bytes.fromhex("300506032b6570")
_NAME = bytes.fromhex("3015311330110603550403") + b"\x0c\x0aengineroom"
#: From 2020 to the end of time.
_VALID = b"\x30\x20" + b"\x17\x0d200101000000Z" + b"\x18\x0f99991231235959Z"


def _der(tag: int, *parts: bytes) -> bytes:
    """A value of less than 64 KiB in DER."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def certificate(seed: bytes) -> bytes:
    """The certificate of a secret seed, in DER."""
    key = _der(0x30, _ED25519, _der(0x03, b"\0", public_key(seed)))
    serial = _der(0x02, b"\x01" + hashlib.sha256(key).digest()[:15])
    body = _der(0x30, _der(0xA0, b"\x02\x01\x02"), serial, _ED25519, _NAME, _VALID, _NAME, key)
    return _der(0x30, body, _ED25519, _der(0x03, b"\0", sign(seed, body)))


def _secret_key(seed: bytes) -> bytes:
    """The secret key in DER."""
    return _der(0x30, b"\x02\x01\x00", _ED25519, _der(0x04, _der(0x04, seed)))


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"


# ------------------------------------------------------------------------------------------ contexts


def new_identity() -> tuple[str, str]:
    """The certificate of a new controller, for connection files, and its secret."""
    seed = secrets.token_bytes(32)
    return base64.b64encode(certificate(seed)).decode(), seed.hex()


def _seed_of_links(key: str) -> bytes:
    return hashlib.sha256(b"engineroom: the seed of links\0" + key.encode()).digest()


def listener_context(secret: str, key: str) -> ssl.SSLContext:
    """For the controller: it lets in who has the cluster's key.

    Raises
    ------
    ValueError
        The secret is none.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, bytes.fromhex(secret), certificate(_seed_of_links(key)))
    context.num_tickets = 0  # nobody resumes a session
    return context


def link_context(certificate_of_controller: str, key: str) -> ssl.SSLContext:
    """For a link: it talks to the controller with this certificate, and to nobody else.

    Raises
    ------
    ValueError, ssl.SSLError
        This is no certificate.
    """
    der = base64.b64decode(certificate_of_controller, validate=True)
    return _context(ssl.PROTOCOL_TLS_CLIENT, _seed_of_links(key), der)


def _context(protocol: int, seed: bytes, trusted: bytes) -> ssl.SSLContext:
    if len(seed) != 32:
        raise ValueError("a secret of a certificate has 32 bytes")
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the certificate is known: it names no host
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=trusted)
    with _unnamed_file(_pem("CERTIFICATE", certificate(seed)) + _pem("PRIVATE KEY", _secret_key(seed))) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _unnamed_file(content: str) -> Iterator[str]:
    """The path of a file in memory: `ssl` reads certificates from files only."""
    descriptor = os.memfd_create("engineroom", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
