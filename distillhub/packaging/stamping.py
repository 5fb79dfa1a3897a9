"""The same set under another version or address: its rows, recipe and digest stay.

A published version is named on the card, in the report and in `croissant.json`. Those are made
anew here; building again for a new number would run the evaluation again.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from distillhub.errors import UsageError
from distillhub.packaging import croissant
from distillhub.packaging.card import CARD, CROISSANT, REPORT, described
from distillhub.packaging.rendering import RENDERING, render
from distillhub.packaging.specs import PackageSpec, PublishSpec
from distillhub.records.manifest import MANIFEST, FileEntry, Manifest
from distillhub.records.report import EvalReport, dumps, loads


def stamped(
    manifest: Manifest, report: EvalReport, *, version: str, repo_id: str
) -> Mapping[str, bytes]:
    """Content of the files that differ under this version and address; empty if none does.

    Args:
        manifest: Of the set.
        report: Of the set, its card block included.
        version: Semantic, as `1.0.1`.
        repo_id: `org/name` on the Hub.

    Raises:
        ValueError: If the report has no card block.
    """
    card = report.card
    if card is None:
        raise ValueError("the report has no card block")
    if (report.dataset.version, card.repo_id) == (version, repo_id):
        return {}
    block = card.data.get("distillhub")
    data = dict(card.data)
    if isinstance(block, dict):
        data["distillhub"] = {**block, "version": version}
    told = report.model_copy(
        update={
            "dataset": report.dataset.model_copy(update={"version": version}),
            "card": card.model_copy(
                update={"repo_id": repo_id, "rendering": RENDERING, "data": data}
            ),
        }
    )
    tables = {name: manifest.files[name] for name in manifest.content.parquet}
    texts = {
        REPORT: dumps(told),
        CARD: render(told),
        CROISSANT: croissant.text(described(told, tables)),
    }
    files = {name: text.encode() for name, text in texts.items()}
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in files.items()
    }
    renewed = manifest.model_copy(update={"files": {**manifest.files, **entries}})
    return {**files, MANIFEST: renewed.text().encode()}


def stamp(folder: Path, *, version: str | None, repo_id: str | None) -> None:
    """Write another version or address into a set; what is not given stays.

    Args:
        folder: Of the set.
        version: Semantic, as `1.0.1`.
        repo_id: `org/name` on the Hub.

    Raises:
        UsageError: If either is malformed, or the set has no address and none is given.
    """
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    report = loads((folder / REPORT).read_bytes())
    address = repo_id or (report.card.repo_id if report.card else None)
    if address is None:
        raise UsageError(
            "the set does not say where it goes", where="--version", mend="give --repo org/name"
        )
    number = version or report.dataset.version
    try:
        PackageSpec(version=number)
        PublishSpec(repo_id=address)
    except ValidationError as error:
        field = error.errors()[0]["loc"][0]
        what, where, form = {
            "version": (number, "--version", "1.0.0"),
            "repo_id": (address, "--repo", "org/name"),
        }[str(field)]
        raise UsageError(
            f"'{what}' is of another form", where=where, mend=f"write it as {form}"
        ) from None
    for name, content in stamped(manifest, report, version=number, repo_id=address).items():
        (folder / name).write_bytes(content)
