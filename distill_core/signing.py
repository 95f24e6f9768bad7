"""Sign a bundle's manifest, which holds the digests of all its files, by ed25519 (RFC 8032)."""

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from distill_core.errors import ConfigError
from distill_core.manifest import MANIFEST, SIGNATURE


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs.

    Args:
        path: a PEM file without a passphrase, as `openssl genpkey -algorithm ed25519` writes it.

    Raises:
        ConfigError: there is none, or it is of another kind. Nothing of its content is told.
    """
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):
        raise ConfigError(_wrong(path, "private", "openssl genpkey -algorithm ed25519")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(_wrong(path, "private", "openssl genpkey -algorithm ed25519"))
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read the key that a signature is checked by.

    Args:
        path: a PEM file, as `openssl pkey -pubout` writes it.

    Raises:
        ConfigError: there is none, or it is of another kind.
    """
    try:
        key = load_pem_public_key(_read(path))
    except ValueError:
        raise ConfigError(_wrong(path, "public", "openssl pkey -in KEY.pem -pubout")) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(_wrong(path, "public", "openssl pkey -in KEY.pem -pubout"))
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key's 32 bytes, in hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    """Write the signature of a bundle's manifest beside it, in base64; the same key gives the same bytes."""
    signature = key.sign((bundle / MANIFEST).read_bytes())
    (bundle / SIGNATURE).write_bytes(base64.b64encode(signature) + b"\n")


def signature_problem(bundle: Path, key: Ed25519PublicKey) -> str | None:
    """Return what is wrong with a bundle's signature, if anything is."""
    path = bundle / SIGNATURE
    if not path.is_file():
        return f"{SIGNATURE}: is missing, so nobody signed this bundle"
    try:
        signature = base64.b64decode(path.read_bytes().strip(), validate=True)
        key.verify(signature, (bundle / MANIFEST).read_bytes())
    except (binascii.Error, InvalidSignature):
        return (
            f"{SIGNATURE}: {MANIFEST} was not signed by this key "
            f"({fingerprint(key)[:16]}…), or was changed since"
        )
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read: {error.strerror}") from None


def _wrong(path: Path, kind: str, command: str) -> str:
    return f"{path}: is no {kind} ed25519 key in PEM without a passphrase; `{command}` writes one"
