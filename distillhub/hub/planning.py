"""What a publication will do, found out by reading alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from distillhub.errors import ConflictError, RefusedError, UsageError, VerificationError
from distillhub.hub.client import needs_token
from distillhub.hub.refusals import refusals
from distillhub.hub.repository import Difference, LocalFile, RemoteFile, Repository, difference
from distillhub.hub.versions import Change, Release, Version, changes, gravest, restamped
from distillhub.packaging.card import REPORT, RESOLVED
from distillhub.packaging.provenance import SIGNATURE
from distillhub.packaging.specs import PublishSpec
from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST, Manifest, files_of
from distillhub.records.report import loads

Action = Literal["nothing", "tag", "commit"]


class Bundle(NamedTuple):
    """A verified set as the files of one version."""

    release: Release
    files: Mapping[str, LocalFile]


@dataclass(frozen=True)
class Plan:
    """What a publication will do; made without changing anything."""

    repository: Repository
    version: Version
    previous: Version | None
    """The newest published version; None before the first."""
    changes: tuple[Change, ...]
    """Against the newest published version."""
    action: Action
    difference: Difference
    """Against the head."""
    bundle: Bundle
    head: str | None
    """Commit that the plan was made for; None: the repository is made."""
    commit: str | None
    """That holds this version already; None: to be made."""
    private: bool
    """Of a repository that is made."""

    @property
    def bytes(self) -> int:
        """Most that is sent; the Hub skips what it has."""
        names = (*self.difference.added, *self.difference.changed)
        return sum(self.bundle.files[name].size for name in names)


def make_plan(
    folder: Path,
    *,
    repo_id: str | None = None,
    version: str | None = None,
    private: bool | None = None,
    allow_incomplete: bool = False,
) -> Plan:
    """Verify a set, look at its repository, and say what a publication would do.

    Args:
        folder: Of the set.
        repo_id: `org/name`; None: the one that the recipe named.
        version: To publish it as; None: the set's own, or the least that the changes call for.
        private: Whether a new repository is private; None: as the recipe says, else private.
        allow_incomplete: Publish although parts of the evaluation were not run.

    Raises:
        VerificationError: If the set is not what its manifest says.
        RefusedError: If it may not be published as it is.
        UsageError: If no repository is named, or the version is too low for the changes.
        ConflictError: If the version is taken, or the repository holds something else.
        HubError: If the Hub cannot be reached.
    """
    verdict = verify(folder)
    if verdict.faults:
        raise VerificationError.of(verdict.faults)
    own = Release(
        Manifest.model_validate_json((folder / MANIFEST).read_bytes()),
        loads((folder / REPORT).read_bytes()),
    )
    found = tuple(refusals(own.report, allow_incomplete=allow_incomplete))
    if found:
        raise RefusedError.of(found)
    name = _named(repo_id, own)
    needs_token(name)
    wanted = Version.of(version, "--version") if version is not None else None
    if private is None:
        private = _private(folder)
    files = {path.relative_to(folder).as_posix(): LocalFile.of(path) for path in files_of(folder)}

    def bundle(version: Version) -> Bundle:
        return _bundle(own, files, version, name)

    plan = _decide(Repository(name), own, bundle, wanted, private)
    if SIGNATURE in files and plan.bundle.release is not own:
        raise RefusedError(
            f"is signed as another version or address than {name}@{plan.version.tag}",
            where=SIGNATURE,
            mend=f"sign it as that: distillhub sign {folder} --key KEY "
            f"--repo {name} --version {plan.version}",
        )
    return plan


def _named(repo_id: str | None, own: Release) -> str:
    name = repo_id or (own.report.card.repo_id if own.report.card else None)
    if name is None:
        raise UsageError(
            "the set does not say where it goes",
            mend="give --repo org/name, or set publish.repo_id in the recipe",
        )
    try:
        return PublishSpec(repo_id=name).repo_id
    except ValueError:
        raise UsageError(
            f"'{name}' is no name of a repository", where="--repo", mend="write it as org/name"
        ) from None


def _private(folder: Path) -> bool:
    """What the recipe inside the set says; imported sets have none."""
    from ruamel.yaml import YAML

    path = folder / RESOLVED
    content = YAML(typ="safe").load(path.read_bytes()) if path.is_file() else {}
    block = content.get("publish") if isinstance(content, Mapping) else None
    return not isinstance(block, Mapping) or bool(block.get("private", True))


def _bundle(own: Release, files: Mapping[str, LocalFile], version: Version, name: str) -> Bundle:
    """The set under a version and an address."""
    release, made = restamped(own, version, name)
    return Bundle(release, {**files, **{n: LocalFile.of(text) for n, text in made.items()}})


def _decide(
    repository: Repository,
    own: Release,
    bundle: Callable[[Version], Bundle],
    wanted: Version | None,
    private: bool,
) -> Plan:
    """Which version this is, and what is left to do for it."""
    said = Version.of(own.report.dataset.version, f"{REPORT}: dataset.version")
    head = repository.head()
    versions = {} if head is None else repository.versions()
    newest = max(versions, default=None)

    def plan(
        version: Version, action: Action, found: tuple[Change, ...], at: Mapping[str, RemoteFile]
    ) -> Plan:
        made = bundle(version)
        there = {"nothing": versions.get(version), "tag": head, "commit": None}[action]
        return Plan(
            repository=repository,
            version=version,
            previous=newest,
            changes=found,
            action=action,
            difference=difference(made.files, at),
            bundle=made,
            head=head,
            commit=there,
            private=private,
        )

    if head is None:
        return plan(wanted or said, "commit", (), {})
    for version in dict.fromkeys((wanted,) if wanted else (newest, said)):
        if version in versions:
            files = repository.files(versions[version])
            if difference(bundle(version).files, files).empty:
                return plan(version, "nothing", (), files)
    files = repository.files(head)
    _refuse_foreign(repository, files)
    before = repository.release(versions[newest]) if newest else None
    found = changes(before, bundle(newest).release) if newest and before else ()
    if files and head not in versions.values():
        left = Version.parse(repository.release(head).report.dataset.version)
        untagged = left is not None and left not in versions and (wanted or left) == left
        if left and untagged and difference(bundle(left).files, files).empty:
            return plan(left, "tag", found, files)
    version = wanted or said
    if newest is not None:
        version = _next(repository, versions, newest, found, said, wanted)
    return plan(version, "commit", found, files)


def _next(
    repository: Repository,
    versions: Mapping[Version, str],
    newest: Version,
    found: tuple[Change, ...],
    said: Version,
    wanted: Version | None,
) -> Version:
    """The version of changed content: the wanted one, the set's own, or the least that will do."""
    kind = gravest(found) or "patch"
    least = newest.bumped(kind)
    if wanted is None:
        return max(said, least)
    if wanted in versions:
        raise ConflictError(
            f"{wanted.tag} is published already, with other content",
            where=repository.name,
            mend=f"leave --version out, or give {least} or more",
        )
    if wanted < least:
        reason = found[0].what if found else "its files"
        raise UsageError(
            f"{wanted} is too low after {newest}: what changed ({reason}) is a {kind} change",
            where="--version",
            mend=f"give {least} or more, or leave it out",
        )
    return wanted


def _refuse_foreign(repository: Repository, files: Mapping[str, RemoteFile]) -> None:
    """A commit replaces all files; what distillhub did not publish is left alone."""
    if files and MANIFEST not in files:
        raise ConflictError(
            f"holds {len(files)} files that distillhub did not publish, such as {min(files)}",
            where=repository.name,
            mend="name another repository, or remove them from this one",
        )
