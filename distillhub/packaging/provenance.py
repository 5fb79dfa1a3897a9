"""`provenance.json`: how, when and on what the set was built.

An in-toto Statement v1 (https://in-toto.io/Statement/v1) with an SLSA v1 provenance predicate
(https://slsa.dev/provenance/v1); `packaging.signing` puts a signature beside it. Times and facts of
the machine stand here and in the rendered card only, never in the artifact's digest. A machine is
described by what moves results and times (device, threads, versions), never by its name or paths.
"""

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from distillhub.data.specs import Digest
from distillhub.spec import Spec

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:distillhub:build:1"
BUILDER = "urn:distillhub:local"
SIGNATURE = "provenance.sig.json"
"""Beside `provenance.json` in a signed set."""


class Dependency(Spec):
    """Something that the build read."""

    uri: str = Field(min_length=1)
    """`hub:<id>@<revision>/<split>`, `sklearn:digits/<split>`, `weights:<role>`; no local path."""
    sha256: Digest


class BuildFacts(Spec):
    """When and on what a build ran."""

    started: datetime
    """With time zone; the first stage's start."""
    finished: datetime
    versions: dict[str, str]
    """Packages and Python by name."""
    machine: dict[str, str | int | float | bool]
    """Facts that move results or times: operating system, device, threads."""
    code: str | None = None
    """Commit of distillhub; None for an installed wheel."""


def statement(
    *,
    subjects: Mapping[str, str],
    recipe: str,
    recipe_sha256: str,
    digest: str,
    stages: Mapping[str, Mapping[str, object]],
    dependencies: tuple[Dependency, ...],
    facts: BuildFacts,
) -> dict[str, object]:
    """The statement as plain JSON.

    Args:
        subjects: sha256 of what was built, by file.
        recipe: File stem of the recipe.
        recipe_sha256: Of the resolved recipe's text.
        digest: Identity of the artifact.
        stages: What each stage cost.
        dependencies: Data splits and weights with their digests.
        facts: Times, versions and machine.
    """
    return {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": recipe, "recipe_sha256": recipe_sha256},
                "internalParameters": {"machine": facts.machine, "stages": stages},
                "resolvedDependencies": [
                    {"uri": part.uri, "digest": {"sha256": part.sha256}} for part in dependencies
                ],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": dict(sorted(facts.versions.items())) | _commit(facts.code),
                },
                "metadata": {
                    "invocationId": f"urn:sha256:{digest}",
                    "startedOn": facts.started.isoformat(),
                    "finishedOn": facts.finished.isoformat(),
                },
            },
        },
    }


def text(content: Mapping[str, object]) -> str:
    """The file's text."""
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def subjects_of(content: object) -> dict[str, str]:
    """sha256 by file of a statement read back.

    Raises:
        ValueError: If it is no statement of the expected layout.
    """
    if not isinstance(content, dict) or content.get("_type") != STATEMENT:
        raise ValueError(f"not an in-toto statement: _type is not {STATEMENT}")
    if content.get("predicateType") != PREDICATE:
        raise ValueError(f"predicateType is not {PREDICATE}")
    subjects = content.get("subject")
    if not isinstance(subjects, list):
        raise ValueError("subject is not a list")
    found: dict[str, str] = {}
    for number, subject in enumerate(subjects):
        try:
            name, digest = str(subject["name"]), str(subject["digest"]["sha256"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"subject {number} lacks a name or a sha256") from error
        if name in found:
            raise ValueError(f"subject {name} is there twice")
        found[name] = digest
    return found


def _commit(code: str | None) -> dict[str, str]:
    return {} if code is None else {"distillhub-commit": code}
