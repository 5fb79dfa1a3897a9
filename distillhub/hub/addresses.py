"""`org/name@revision`: which published version a user means, with and without a network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from distillhub.errors import HubError, UsageError
from distillhub.hub.repository import Repository
from distillhub.hub.versions import Version

ADDRESS = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
_PART_OF_VERSION = re.compile(r"v?\d+(\.\d+){0,2}")


class Address(NamedTuple):
    """A repository and what is wanted of it."""

    repo: str
    revision: str | None
    """`v1`, `v1.2`, `v1.2.3`, a branch or a commit; None: the newest version."""

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


class Found(NamedTuple):
    """A revision that is there."""

    revision: str
    """Tag, branch or commit, as the Hub and its cache know it."""
    commit: str

    def __str__(self) -> str:
        short = self.commit[:12]
        return short if self.revision == self.commit else f"{self.revision} (commit {short})"


def address(word: str) -> Address | None:
    """From `org/name` or `org/name@revision`; None for anything else."""
    found = ADDRESS.fullmatch(word)
    return Address(found["repo"], found["revision"]) if found else None


def needed_address(word: str) -> Address:
    """Like `address`.

    Raises:
        UsageError: If the word is none.
    """
    found = address(word)
    if found is None:
        raise UsageError(
            f"'{word}' is no published set", mend="write org/name, org/name@v1 or org/name@<commit>"
        )
    return found


def resolve(wanted: Address, repository: Repository) -> Found:
    """The commit that an address means now.

    Raises:
        HubError: If the Hub cannot be reached, or there is no such revision.
    """
    revision = wanted.revision
    if revision is not None and not _PART_OF_VERSION.fullmatch(revision):
        return Found(revision, repository.commit_of(revision))
    versions = repository.versions()
    chosen = newest(versions, revision)
    if chosen is None:
        raise _absent(wanted, versions, "the Hub")
    return Found(chosen.tag, versions[chosen])


def cached(wanted: Address) -> Found:
    """The commit that an address meant when it was last fetched.

    Raises:
        HubError: If the cache does not know it.
    """
    refs = _cache_folder(wanted.repo) / "refs"
    known = {
        path.relative_to(refs).as_posix(): path.read_text(encoding="utf-8").strip()
        for path in sorted(refs.rglob("*"))
        if path.is_file()
    }
    revision = wanted.revision
    if revision is not None and COMMIT.fullmatch(revision):
        return Found(revision, revision)
    if revision in known:
        return Found(revision, known[revision])
    versions = {
        version: known[name]
        for name in known
        if (version := Version.parse(name)) is not None and name == version.tag
    }
    if revision is None or _PART_OF_VERSION.fullmatch(revision):
        chosen = newest(versions, revision)
        if chosen is not None:
            return Found(chosen.tag, versions[chosen])
    raise _absent(wanted, versions, "the cache, and the Hub is out of reach")


def newest(versions: Mapping[Version, str], revision: str | None) -> Version | None:
    """The newest version that begins with `revision`: `v1` is any 1.x.y, None any at all."""
    wanted = [] if revision is None else revision.removeprefix("v").split(".")
    return max((v for v in versions if str(v).split(".")[: len(wanted)] == wanted), default=None)


def _cache_folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")


def _absent(wanted: Address, versions: Mapping[Version, str], where: str) -> HubError:
    known = ", ".join(version.tag for version in sorted(versions)) or "none"
    what = "no published version" if wanted.revision is None else f"no {wanted.revision}"
    return HubError(
        f"{what} in {where}; versions there: {known}",
        where=wanted.repo,
        mend="name one of them" if versions else "check the name, or publish a version first",
    )
