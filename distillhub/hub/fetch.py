"""`distillhub fetch`: a published version as a folder, every hash of it checked.

Files come through the client's cache, so that a version that was fetched once is there without a
network too. Then its manifest alone is the judge; with one, the hashes of the Hub are as well.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download

from distillhub.errors import OfflineError, UsageError, VerificationError
from distillhub.hub.addresses import Address, Found, cached, needed_address, resolve
from distillhub.hub.client import hub_errors, retried
from distillhub.hub.readback import unequal
from distillhub.hub.repository import KIND, LocalFile, RemoteFile, Repository
from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST, NOT_OURS, Manifest, files_of

MEND = "fetch it again; if it stays so, the published set is damaged"


class Fetched(NamedTuple):
    """A version on this machine."""

    address: Address
    found: Found
    folder: Path
    digest: str | None
    """Of the artifact."""
    files: int
    online: bool
    """Whether the Hub's own hashes were compared; else the cache answered."""


def fetch(word: str, out: Path | None = None) -> Fetched:
    """Put a published version into a folder.

    Args:
        word: `org/name`, `org/name@v1.0.0` or `org/name@<commit>`.
        out: A folder that does not exist or is empty; None: `name` here. A folder that holds the
            version already is checked and left alone.

    Raises:
        UsageError: If the word is no address, or the folder holds something else.
        HubError: If there is no such version, or neither Hub nor cache can be reached.
        VerificationError: If a file is not what Hub and manifest say; nothing is put into `out`.
    """
    wanted = needed_address(word)
    folder = out or Path(wanted.repo.split("/")[1])
    with downloaded(wanted) as (found, files, remote):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            _same(folder, files)
            digest = _checked(folder, remote, wanted)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{folder.name}.", dir=folder.parent
            ) as temporary:
                copy = Path(temporary) / folder.name
                shutil.copytree(files, copy, ignore=shutil.ignore_patterns(*NOT_OURS))
                digest = _checked(copy, remote, wanted)
                copy.replace(folder)
        count = sum(1 for _ in files_of(folder))
        return Fetched(wanted, found, folder, digest, count, remote is not None)


@contextmanager
def downloaded(wanted: Address) -> Iterator[tuple[Found, Path, dict[str, RemoteFile] | None]]:
    """Revision, folder in the client's cache, and the Hub's list of files; None without a network.

    Raises:
        HubError: If there is no such version, or neither Hub nor cache has it.
    """
    repository = Repository(wanted.repo)
    try:
        found = resolve(wanted, repository)
        remote = repository.files(found.commit)
        folder = _snapshot(wanted.repo, found.revision, local=False)
    except OfflineError:
        found = cached(wanted)
        remote = None
        folder = _snapshot(wanted.repo, found.commit, local=True)
        _whole(folder, wanted)
    yield found, folder, remote


def _snapshot(repo: str, revision: str, *, local: bool) -> Path:
    with hub_errors(f"{repo}@{revision}"):
        return Path(
            retried(
                lambda: snapshot_download(
                    repo, repo_type=KIND, revision=revision, local_files_only=local
                )
            )
        )


def _whole(folder: Path, wanted: Address) -> None:
    """A cache may hold a part of a version: what `verify` or `history` looked at."""
    path = folder / MANIFEST
    names = Manifest.model_validate_json(path.read_bytes()).files if path.is_file() else [MANIFEST]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OfflineError(
            f"the cache lacks {len(missing)} of its files, such as {missing[0]}, "
            "and the Hub is out of reach",
            where=str(wanted),
            mend="fetch it once with a network",
        )


def _checked(folder: Path, remote: dict[str, RemoteFile] | None, wanted: Address) -> str | None:
    """Digest of a folder that is what Hub and manifest say."""
    faults = []
    if remote is not None:
        local = {p.relative_to(folder).as_posix(): LocalFile.of(p) for p in files_of(folder)}
        faults = list(unequal(local, remote, MEND))
    verdict = verify(folder)
    faults += verdict.faults
    if faults:
        raise VerificationError.of(
            fault._replace(where=f"{wanted}: {fault.where}") for fault in faults
        )
    return verdict.digest


def _same(folder: Path, files: Path) -> None:
    here = folder / MANIFEST
    if not here.is_file() or here.read_bytes() != (files / MANIFEST).read_bytes():
        raise UsageError(
            f"{folder} is there and holds something else",
            where="--out",
            mend="name a new folder with --out",
        )
