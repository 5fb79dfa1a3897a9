"""`distillhub publish`: one commit, one tag, and a look at what came back.

The repository is the old version or the new one at any moment: all files travel in one commit on
top of the head that the plan was made for, and nothing is ever forced. Running it again after any
fault goes on where the repository is: a commit without its tag gets the tag, a finished version is
compared once more.
"""

import time
from dataclasses import replace
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from distillhub.errors import ConflictError, HubError
from distillhub.hub.client import (
    RAISED,
    WAITS,
    hub_errors,
    is_transient,
    retried,
    status_of,
    translated,
)
from distillhub.hub.planning import Plan
from distillhub.hub.readback import read_back
from distillhub.hub.repository import KIND, difference
from distillhub.hub.versions import Change

AGAIN = "run publish again to see the plan against the newer one; --dry-run sends nothing"


class Publication(NamedTuple):
    """A finished publication."""

    plan: Plan
    commit: str
    """40 digits; a tag can be moved, a commit cannot."""


def carry_out(plan: Plan) -> Publication:
    """Do what a plan says, then read the version back.

    Raises:
        ConflictError: If another publication came first; nothing of it is lost.
        VerificationError: If what came back differs.
        HubError: If the Hub cannot be reached, or refuses.
    """
    name = plan.repository.name
    commit = plan.commit
    if commit is None:
        with hub_errors(name):
            commit = _commit(_with_repository(plan))
    if plan.action != "nothing":
        with hub_errors(name):
            _tag(plan, commit)
    read_back(plan.repository, plan.version, plan.bundle.files)
    return Publication(plan, commit)


def _with_repository(plan: Plan) -> Plan:
    """The plan for a repository that is there."""
    if plan.head is not None:
        return plan
    repository = plan.repository
    retried(
        lambda: repository.api.create_repo(
            repository.name, repo_type=KIND, private=plan.private, exist_ok=True
        )
    )
    head = repository.head()
    if head is None:
        raise HubError(
            "was made, but the Hub does not show it yet",
            where=repository.name,
            mend="run it again in a minute",
        )
    files = repository.files(head)
    if files:
        raise _overtaken(plan)
    return replace(plan, head=head)


def _commit(plan: Plan) -> str:
    """All files in one commit on top of the head that the plan was made for."""
    repository, version = plan.repository, plan.version
    for wait in (*WAITS, None):
        try:
            made = repository.api.create_commit(
                repository.name,
                [
                    *(
                        CommitOperationAdd(name, plan.bundle.files[name].source)
                        for name in (*plan.difference.added, *plan.difference.changed)
                    ),
                    *(CommitOperationDelete(name) for name in plan.difference.deleted),
                ],
                repo_type=KIND,
                commit_message=f"{version.tag}: {_message(plan.changes)}",
                parent_commit=plan.head,
            )
        except RAISED as error:
            if status_of(error) != 412 and not is_transient(error):
                raise
            if (head := repository.head()) != plan.head and head is not None:
                if difference(plan.bundle.files, repository.files(head)).empty:
                    return head  # it was made, and only the answer was lost
                raise _overtaken(plan) from None
            if wait is None:
                moved = status_of(error) == 412
                raise _overtaken(plan) if moved else translated(error, repository.name) from None
            time.sleep(wait)
        else:
            return str(made.oid)
    raise AssertionError("the last attempt returns or raises")


def _message(found: tuple[Change, ...]) -> str:
    """Title of the commit; the Hub cuts longer ones."""
    told = "; ".join(change.what for change in found) or "first version"
    return told if len(told) <= 120 else f"{told[:117]}..."


def _tag(plan: Plan, commit: str) -> None:
    """Name the commit; a tag that is there is never moved."""
    repository, tag = plan.repository, plan.version.tag
    try:
        retried(
            lambda: repository.api.create_tag(
                repository.name, tag=tag, revision=commit, repo_type=KIND
            )
        )
    except RAISED as error:
        if status_of(error) != 409:
            raise
        if repository.versions().get(plan.version) != commit:
            raise ConflictError(
                f"{tag} was published by another in the meantime; yours is commit {commit}",
                where=repository.name,
                mend=AGAIN,
            ) from None


def _overtaken(plan: Plan) -> ConflictError:
    return ConflictError(
        "another publication came first; yours was not made, and theirs is untouched",
        where=plan.repository.name,
        mend=AGAIN,
    )
