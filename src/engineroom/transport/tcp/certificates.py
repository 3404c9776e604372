"""The certificates by which two ends of an encrypted connection recognise each other.

A certificate is signed by itself, with Ed25519. Nobody issues it: the other end knows it before, and trusts it alone.
All its fields but the key, and the names that follow from it, are constant. So a certificate follows from its seed,
which is the secret key:

    controller   a random seed. The connection file holds the certificate.
    links        a seed that is derived from a key of the cluster: whoever has the key has this certificate. The
                 cluster's key, and each key with lesser rights (`messages/rights.py`), has one.

Python's `ssl` reads certificates, and makes none: `cryptography` does, once for each process that listens or connects.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ...messages.rights import RIGHTS, key_with_rights

#: From 2020 to the end of time.
_FROM, _UNTIL = datetime.datetime(2020, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)


def certificate(seed: bytes) -> x509.Certificate:
    """The certificate of a secret seed of 32 bytes; always the same.

    Raises
    ------
    ValueError
        The seed has another length.
    """
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key()
    digest = hashlib.sha256(public.public_bytes_raw()).digest()
    serial = b"\x01" + digest[:15]
    # Of several certificates with one name, OpenSSL finds one only.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"engineroom {digest[15:].hex()}")])
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(public)
    builder = builder.serial_number(int.from_bytes(serial, "big"))
    builder = builder.not_valid_before(_FROM).not_valid_after(_UNTIL)
    return builder.sign(key, algorithm=None)  # Ed25519 has its own


def new_identity() -> tuple[str, str]:
    """The certificate of a new controller, for connection files, and its secret."""
    seed = secrets.token_bytes(32)
    return base64.b64encode(_der(seed)).decode(), seed.hex()


def _der(seed: bytes) -> bytes:
    return certificate(seed).public_bytes(Encoding.DER)


def _seed_of_links(key: str) -> bytes:
    return hashlib.sha256(b"engineroom: the seed of links\0" + key.encode()).digest()


def listener_context(secret: str, key: str) -> ssl.SSLContext:
    """For the controller: it lets in who has the cluster's key, or one of the keys with lesser rights.

    Raises
    ------
    ValueError
        The secret is none.
    """
    links = [_der(_seed_of_links(key_with_rights(key, rights))) for rights in RIGHTS]
    context = _context(ssl.PROTOCOL_TLS_SERVER, bytes.fromhex(secret), b"".join(links))
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
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    content = certificate(seed).public_bytes(Encoding.PEM)
    content += secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the certificate is known: it names no host
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=trusted)
    with _unnamed_file(content) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _unnamed_file(content: bytes) -> Iterator[str]:
    """The path of a file in memory: `ssl` reads certificates from files only."""
    descriptor = os.memfd_create("engineroom", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
