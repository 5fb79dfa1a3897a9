"""A published version checked where it is: by the Hub's hashes, or all of it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from distillhub.errors import Fault, VerificationError
from distillhub.hub.addresses import Address, Found, needed_address, resolve
from distillhub.hub.fetch import fetch
from distillhub.hub.repository import LocalFile, RemoteFile, Repository
from distillhub.packaging.keys import read_public
from distillhub.packaging.provenance import SIGNATURE
from distillhub.packaging.signing import check, verify_signature
from distillhub.packaging.verify import verify_texts
from distillhub.records.manifest import MANIFEST, FileEntry, Manifest

MEND = "fetch or publish it again; a version should never change"


class Inspected(NamedTuple):
    """A version that is what its manifest says."""

    address: Address
    found: Found
    digest: str | None
    files: int
    fetched: int
    """Files whose content was looked at; of the others the Hub's hash was."""


def inspect(word: str, *, full: bool = False, key: Path | None = None) -> Inspected:
    """Check a published version.

    Fast: the Hub's hash of every data file, the content of the small files, and whether manifest,
    report, figures and card agree; no rows are downloaded. Full: all that `fetch` checks, without
    keeping it.

    Args:
        word: `org/name` or `org/name@revision`.
        full: Whether to download everything.
        key: Public key that must have signed the version; None: signatures are not looked at.

    Raises:
        UsageError: If the key cannot be read.
        VerificationError: If anything differs; every fault is named.
        HubError: If there is no such version, or the Hub cannot be reached.
    """
    wanted = needed_address(word)
    signer = read_public(key) if key is not None else None
    if full:
        with tempfile.TemporaryDirectory(prefix="distillhub-verify-") as temporary:
            got = fetch(word, Path(temporary) / "set")
            if signer is not None:
                _raise(wanted, verify_signature(got.folder, signer))
            return Inspected(wanted, got.found, got.digest, got.files, got.files)
    repository = Repository(wanted.repo)
    found = resolve(wanted, repository)
    remote = repository.files(found.commit)
    if MANIFEST not in remote:
        raise VerificationError(
            f"has no {MANIFEST}", where=str(wanted), mend="name a set that distillhub published"
        )
    with tempfile.TemporaryDirectory(prefix="distillhub-verify-") as temporary:
        folder = Path(temporary)
        small = [name for name, file in remote.items() if file.sha256 is None]
        for name in small:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(repository.read(found.commit, name))
        faults = _hashes(folder, remote)
        verdict = verify_texts(folder)
        if signer is not None:
            faults += _signature(folder, remote, signer)
    _raise(wanted, [*faults, *verdict.faults])
    return Inspected(wanted, found, verdict.digest, len(remote), len(small))


def _raise(wanted: Address, faults: Sequence[Fault]) -> None:
    if faults:
        raise VerificationError.of(
            fault._replace(where=f"{wanted}: {fault.where}") for fault in dict.fromkeys(faults)
        )


def _signature(
    folder: Path, remote: Mapping[str, RemoteFile], signer: Ed25519PublicKey
) -> tuple[Fault, ...]:
    """The signature against the Hub's hash of every file, or against its content."""
    if SIGNATURE not in remote or not (folder / SIGNATURE).is_file():
        return verify_signature(folder, signer)
    seen = {
        name: _seen(folder / name, file).sha256
        for name, file in remote.items()
        if name != SIGNATURE
    }
    return tuple(check((folder / SIGNATURE).read_bytes(), signer, seen))


def _hashes(folder: Path, remote: dict[str, RemoteFile]) -> list[Fault]:
    """Every file of the manifest against the Hub's hash, or against the content."""
    try:
        files = Manifest.model_validate_json((folder / MANIFEST).read_bytes()).files
    except (ValidationError, OSError):
        return []  # `verify_texts` names what is wrong with it
    faults = [
        Fault("is in the manifest, but not on the Hub", name, MEND)
        for name in sorted(set(files) - set(remote))
    ]
    faults += [
        Fault("is not in the manifest", name, MEND)
        for name in sorted(set(remote) - set(files) - {MANIFEST, SIGNATURE})
    ]
    for name in sorted(set(files) & set(remote)):
        seen = _seen(folder / name, remote[name])
        if seen != files[name]:
            what = f"sha256 {seen.sha256}, {seen.bytes} bytes; the manifest says "
            what += f"{files[name].sha256}, {files[name].bytes} bytes"
            faults.append(Fault(what, name, MEND))
    return faults


def _seen(path: Path, remote: RemoteFile) -> FileEntry:
    if remote.sha256 is not None:
        return FileEntry(sha256=remote.sha256, bytes=remote.size)
    local = LocalFile.of(path)
    return FileEntry(sha256=local.sha256, bytes=local.size)
