"""`provenance.sig.json`: a signature over every file of a set.

A DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol v1) around an in-toto
statement whose subjects are all files but the envelope itself, `manifest.json` included, and whose
predicate is that of `provenance.json`. Hashes that were computed anew after a change do not help:
those that count are inside what was signed. The envelope is not in the manifest, as each would have
to hold the other's digest.
"""

import base64
import binascii
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from distillhub.digests import canonical, sha256_of
from distillhub.errors import Fault, VerificationError
from distillhub.packaging import provenance
from distillhub.packaging.card import PROVENANCE
from distillhub.packaging.keys import key_id
from distillhub.packaging.provenance import SIGNATURE
from distillhub.records.manifest import files_of

PAYLOAD = "application/vnd.in-toto+json"
MAX_BYTES = 64_000_000
"""Larger envelopes are not read."""
AGAIN = "fetch the set again, or ask its signer"
SIGN = "distillhub sign SET --key KEY signs one"


def sign(folder: Path, key: Ed25519PrivateKey) -> str:
    """Sign a set as it is; an older signature is replaced.

    Returns:
        Id of the key.

    Raises:
        VerificationError: If `provenance.json` is no statement, or a file is not a regular one.
    """
    files = file_digests(folder)
    odd = [name for name, digest in files.items() if digest is None]
    if odd:
        raise VerificationError("not a regular file", where=odd[0], mend=AGAIN)
    try:
        content = json.loads((folder / PROVENANCE).read_bytes())
        provenance.subjects_of(content)
    except (OSError, ValueError) as error:
        raise VerificationError(str(error), where=PROVENANCE, mend="build the set again") from None
    statement = {
        **content,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in sorted(files.items())],
    }
    (folder / SIGNATURE).write_bytes(envelope(canonical(statement), key))
    return key_id(key.public_key())


def verify_signature(folder: Path, key: Ed25519PublicKey) -> tuple[Fault, ...]:
    """Every file that is not as it was signed, and everything that is wrong with the envelope.

    Args:
        folder: Of the set.
        key: Of the signer; who that is, the user knows from elsewhere.
    """
    path = folder / SIGNATURE
    mode = path.lstat().st_mode if path.exists() else 0
    if not stat.S_ISREG(mode):
        what = "not a regular file" if mode else "the set is not signed"
        return (Fault(what, SIGNATURE, SIGN),)
    if path.stat().st_size > MAX_BYTES:
        return (Fault(f"larger than {MAX_BYTES:,} bytes", SIGNATURE, AGAIN),)
    return tuple(check(path.read_bytes(), key, file_digests(folder)))


def file_digests(folder: Path) -> dict[str, str | None]:
    """sha256 of every file but the envelope; None for what is no regular file."""
    return {
        name: sha256_of(path) if stat.S_ISREG(path.lstat().st_mode) else None
        for path in files_of(folder)
        if (name := path.relative_to(folder).as_posix()) != SIGNATURE
    }


def check(text: bytes, key: Ed25519PublicKey, files: Mapping[str, str | None]) -> Iterator[Fault]:
    """Faults of an envelope, and of files against it.

    The files are compared with an envelope of a broken signature too, as a hint at what changed;
    it is not trusted.

    Args:
        text: Of the envelope.
        key: Of the signer.
        files: sha256 by name; None for what is no regular file.
    """
    try:
        kind, payload, signatures = opened(text)
        if kind != PAYLOAD:
            raise ValueError(f"payloadType is {kind[:80]!r}, not {PAYLOAD}")
        yield from _signatures(signatures, pae(kind, payload), key)
        signed = provenance.subjects_of(_json(payload))
    except (ValueError, RecursionError) as error:
        yield Fault(str(error)[:300], SIGNATURE, AGAIN)
        return
    yield from _compared(signed, files)


def envelope(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """A DSSE envelope with one signature; equal payloads and keys give equal bytes."""
    content = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [
            {
                "keyid": key_id(key.public_key()),
                "sig": base64.b64encode(key.sign(pae(PAYLOAD, payload))).decode(),
            }
        ],
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def pae(kind: str, payload: bytes) -> bytes:
    """What is signed: type and payload with their lengths.

    Source: DSSE, protocol v1, "Pre-Authentication Encoding".
    """
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def opened(text: bytes) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    """Payload type, payload, and key id and bytes of every signature; nothing is checked.

    Raises:
        ValueError: If it is no envelope.
        RecursionError: If it is nested beyond reason.
    """
    match _json(text):
        case {"payload": str(payload), "payloadType": str(kind), "signatures": list(given)}:
            pass
        case _:
            raise ValueError("no DSSE envelope: payload, payloadType or signatures is missing")
    if not given:
        raise ValueError("holds no signature")
    signatures = []
    for number, one in enumerate(given):
        match one:
            case {"sig": str(value)}:
                name = str(one.get("keyid", ""))
                signatures.append((name, _bytes(value, f"signatures.{number}.sig")))
            case _:
                raise ValueError(f"signatures.{number} has no sig")
    return kind, _bytes(payload, "payload"), signatures


def _signatures(
    given: Iterable[tuple[str, bytes]], message: bytes, key: Ed25519PublicKey
) -> Iterator[Fault]:
    """Nothing if one of the signatures is of the key: others may have signed as well."""
    wanted, names = key_id(key), []
    for name, value in given:
        try:
            key.verify(value, message)
        except InvalidSignature:
            names.append(name)
        else:
            return
    if wanted in names:
        what = "the signature does not fit to the payload"
    else:
        told = ", ".join(name[:80] or "a key without id" for name in names)
        what = f"signed by {told}, not by the key {wanted}"
    yield Fault(what, SIGNATURE, AGAIN)


def _compared(signed: Mapping[str, str], files: Mapping[str, str | None]) -> Iterator[Fault]:
    for name in sorted({*signed, *files}):
        if name not in files:
            yield Fault(f"missing; its signed sha256 is {signed[name]}", name, AGAIN)
        elif files[name] is None:
            yield Fault("not a regular file", name, AGAIN)
        elif name not in signed:
            yield Fault(f"added after signing; its sha256 is {files[name]}", name, "remove it")
        elif files[name] != signed[name]:
            what = f"changed after signing: sha256 {files[name]}, signed is {signed[name]}"
            yield Fault(what, name, AGAIN)


def _json(text: bytes) -> object:
    """Plain content; a key that is there twice would be read differently by others.

    Raises:
        ValueError: If it is no JSON text, or has a key twice.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"key {max(names, key=names.count)!r} is there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("not JSON: no UTF-8 text") from error


def _bytes(text: str, where: str) -> bytes:
    """From base64, the plain or the URL's alphabet, as DSSE asks of readers."""
    try:
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where} is not base64: {error}") from None
