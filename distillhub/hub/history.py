"""`distillhub history`: the published versions of a set and what changed between them."""

from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from distillhub.errors import UsageError, VerificationError
from distillhub.hub.addresses import needed_address
from distillhub.hub.repository import Repository
from distillhub.hub.versions import Change, Release, Version, changes, restamped


class Entry(NamedTuple):
    """One published version."""

    version: Version
    commit: str
    date: datetime | None
    """None where the commit is no longer part of the main branch."""
    digest: str | None
    """Of the artifact; None where its manifest cannot be read."""
    changes: tuple[Change, ...] | None
    """Against the version before; None for the first, and where either cannot be read."""


def history(word: str) -> tuple[Entry, ...]:
    """All versions, the newest first; empty before the first publication.

    Args:
        word: `org/name`.

    Raises:
        UsageError: If the word is no name, or asks for one revision.
        HubError: If there is no such set, or the Hub cannot be reached.
    """
    wanted = needed_address(word)
    if wanted.revision is not None:
        raise UsageError(
            "a history is of all versions", where=word, mend=f"distillhub history {wanted.repo}"
        )
    repository = Repository(wanted.repo)
    versions = repository.versions()
    dates = repository.dates("main")
    releases = {version: _release(repository, commit) for version, commit in versions.items()}
    before: dict[Version, Version] = {new: old for old, new in pairwise(versions)}

    def entry(version: Version) -> Entry:
        mine = releases[version]
        theirs = releases[before[version]] if version in before else None
        return Entry(
            version,
            versions[version],
            dates.get(versions[version]),
            mine.manifest.digest if mine else None,
            _changes(theirs, mine) if mine and theirs else None,
        )

    return tuple(entry(version) for version in reversed(versions))


def _changes(old: Release, new: Release) -> tuple[Change, ...]:
    """What differs beside the version itself."""
    said = Version.parse(old.report.dataset.version)
    address = old.report.card.repo_id if old.report.card else None
    return changes(old, restamped(new, said, address)[0] if said and address else new)


def _release(repository: Repository, commit: str) -> Release | None:
    try:
        return repository.release(commit)
    except VerificationError:
        return None
