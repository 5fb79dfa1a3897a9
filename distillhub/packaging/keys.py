"""Ed25519 keys in PEM files: a private one to sign with, a public one to check with.

Files that `openssl genpkey -algorithm ed25519` writes work as well.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from distillhub.errors import UsageError

PUBLIC = ".pub"
"""What the name of a public key's file ends in."""
MAKE = "make a pair of keys: distillhub keygen FILE"
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
"""What the library raises for a file that it cannot take for a key."""


def make_keys(path: Path) -> str:
    """Write a new private key to `path`, for its owner alone, and the public one beside it.

    Returns:
        The key's id.

    Raises:
        UsageError: If either file is there already; a key is never overwritten.
    """
    public = path.with_name(path.name + PUBLIC)
    for name in (path, public):
        if name.exists() or name.is_symlink():
            raise UsageError(
                "is there already; keys are never overwritten", where=str(name), mend="name another"
            )
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # Not readable for others from its first moment on.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return key_id(key.public_key())


def read_private(path: Path) -> Ed25519PrivateKey:
    """The key to sign with.

    Raises:
        UsageError: If the file is no private Ed25519 key, or has a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except UNREADABLE as error:
        what = "has a passphrase" if isinstance(error, TypeError) else "is no private key in PEM"
        raise UsageError(what, where=str(path), mend=MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(key, path)
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """The key to check with.

    Raises:
        UsageError: If the file is no public Ed25519 key.
    """
    content = _content(path)
    if b"PRIVATE KEY" in content:
        raise UsageError(
            "is a private key; a signature is checked with the public one",
            where=str(path),
            mend=f"give {path}{PUBLIC}",
        )
    try:
        key = serialization.load_pem_public_key(content)
    except UNREADABLE:
        raise UsageError(
            "is no public key in PEM", where=str(path), mend="ask the signer for the .pub file"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _other_kind(key, path)
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Name of a key: the sha256 of its 32 bytes."""
    return f"sha256:{hashlib.sha256(key.public_bytes_raw()).hexdigest()}"


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError("no such key", where=str(path), mend=MAKE)
    return path.read_bytes()


def _other_kind(key: object, path: Path) -> UsageError:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")
    return UsageError(f"is a key of kind {kind}, not Ed25519", where=str(path), mend=MAKE)
