"""A data set's repository on the Hub, as far as publishing and fetching look at it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from pydantic import ValidationError

from distillhub.errors import HubError, VerificationError
from distillhub.hub.client import client, hub_errors, retried
from distillhub.hub.versions import Release, Version
from distillhub.packaging.card import REPORT
from distillhub.records.manifest import MANIFEST, NOT_OURS, Manifest
from distillhub.records.report import loads

KIND = "dataset"


class RemoteFile(NamedTuple):
    """A file at one commit."""

    blob: str
    """Git's sha1 of the file, or of its pointer where the file is stored apart."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of a file that is stored apart (LFS, Xet); None for the others."""


class LocalFile(NamedTuple):
    """A file that is there to be published or compared."""

    source: Path | bytes
    size: int
    sha256: str
    blob: str
    """Git's sha1."""

    @classmethod
    def of(cls, source: Path | bytes) -> "LocalFile":
        """Read a file once for both digests."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        sha256 = hashlib.sha256()
        blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        for digest in (sha256, blob):
            if isinstance(source, bytes):
                digest.update(source)
        if isinstance(source, Path):
            with source.open("rb") as file:
                while chunk := file.read(2**20):
                    sha256.update(chunk)
                    blob.update(chunk)
        return cls(source, size, sha256.hexdigest(), blob.hexdigest())

    def equals(self, other: RemoteFile) -> bool:
        """Whether the Hub holds this file."""
        if other.sha256 is not None:
            return (self.sha256, self.size) == (other.sha256, other.size)
        return self.blob == other.blob


class Difference(NamedTuple):
    """Names of files that a commit would change."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether both sides hold the same files."""
        return not (self.added or self.changed or self.deleted)


def difference(local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> Difference:
    """What must happen to `remote` to become `local`."""
    return Difference(
        added=tuple(sorted(set(local) - set(remote))),
        changed=tuple(
            name
            for name in sorted(set(local) & set(remote))
            if not local[name].equals(remote[name])
        ),
        deleted=tuple(sorted(set(remote) - set(local))),
    )


@dataclass(frozen=True)
class Repository:
    """Reads `org/name`; every method raises HubError where the Hub does not answer."""

    name: str
    api: HfApi = field(default_factory=client)

    def head(self) -> str | None:
        """The newest commit of the main branch; None where there is no repository."""
        with hub_errors(self.name):
            try:
                return retried(lambda: self.api.dataset_info(self.name)).sha
            except RepositoryNotFoundError:
                return None

    def versions(self) -> dict[Version, str]:
        """Commit of every version tag, oldest version first."""
        with hub_errors(self.name):
            refs = retried(lambda: self.api.list_repo_refs(self.name, repo_type=KIND))
        found = {Version.parse(ref.name): ref.target_commit for ref in refs.tags}
        return {version: found[version] for version in sorted(v for v in found if v is not None)}

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """All files at a revision but those that git and the Hub put there."""
        with hub_errors(f"{self.name}@{revision}"):
            entries = retried(
                lambda: list(
                    self.api.list_repo_tree(
                        self.name, recursive=True, revision=revision, repo_type=KIND
                    )
                )
            )
        return {
            entry.path: RemoteFile(
                entry.blob_id, entry.size, entry.lfs.sha256 if entry.lfs else None
            )
            for entry in entries
            if isinstance(entry, RepoFile) and entry.path.split("/")[0] not in NOT_OURS
        }

    def commit_of(self, revision: str) -> str:
        """The commit that a branch, tag or commit names."""
        with hub_errors(f"{self.name}@{revision}"):
            sha = retried(lambda: self.api.dataset_info(self.name, revision=revision)).sha
        if sha is None:
            raise HubError("the repository is empty", where=self.name, mend="publish into it first")
        return sha

    def dates(self, revision: str) -> dict[str, datetime]:
        """When each commit up to a revision was made."""
        with hub_errors(f"{self.name}@{revision}"):
            commits = retried(
                lambda: self.api.list_repo_commits(self.name, revision=revision, repo_type=KIND)
            )
        return {commit.commit_id: commit.created_at for commit in commits}

    def read(self, revision: str, name: str) -> bytes:
        """A small file; give a commit as revision, so that the cache can serve it."""
        with hub_errors(f"{self.name}@{revision}"):
            path = retried(
                lambda: self.api.hf_hub_download(self.name, name, revision=revision, repo_type=KIND)
            )
        return Path(path).read_bytes()

    def release(self, commit: str) -> Release:
        """Manifest and report of a published version.

        Raises:
            VerificationError: If they cannot be understood.
        """
        where = f"{self.name}@{commit[:12]}"
        text = self.read(commit, MANIFEST)
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]
            raise VerificationError(
                f"{fault['msg']}: {'.'.join(map(str, fault['loc']))}",
                where=f"{where}: {MANIFEST}",
                mend="publish it anew with this version of distillhub",
            ) from None
        return Release(manifest, loads(self.read(commit, REPORT), where=f"{where}: {REPORT}"))
