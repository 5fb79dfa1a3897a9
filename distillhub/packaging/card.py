"""The card stage: from a package and a report to the folder that is opened and published."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from distillhub.digests import sha256_of
from distillhub.errors import PipelineError
from distillhub.packaging import croissant, figures, provenance, results, stored
from distillhub.packaging.completion import TOTAL, CardInputs, completed
from distillhub.packaging.notices import ARMS as NAMES_OF_ARMS
from distillhub.packaging.parquet import PackageRecord
from distillhub.packaging.rendering import render, summary
from distillhub.records.card import CardBlock
from distillhub.records.manifest import (
    MANIFEST,
    Content,
    FileEntry,
    Manifest,
    entry_of,
    files_of,
    labels_digest,
)
from distillhub.records.report import (
    Comparison,
    EvalReport,
    dumps,
)

__all__ = ["CardInputs", "build_card", "described", "finish", "panels", "sheet_rows", "subjects"]

CARD = "README.md"
REPORT = "eval.json"
CROISSANT = "croissant.json"
PROVENANCE = "provenance.json"
RESOLVED = "recipe/resolved.yaml"
IMPORTED = "recipe/import.json"
"""Of an imported set, in place of a recipe: what was read, and how."""
CONTACT_SHEET = "assets/contact_sheet.png"
ARMS = "assets/arms.png"
ARMS_SHOWN = tuple(arm for arm in NAMES_OF_ARMS if arm != "full_hard")


def build_card(inputs: CardInputs, out: Path) -> Manifest:
    """Write the whole of `dataset/` into an empty folder.

    Equal inputs give equal bytes. The artifact's digest, `Manifest.digest`, depends on recipe,
    Parquet files, weights and labels alone.

    Raises:
        PipelineError: If the package is not what its package.json says, or labels are impossible.
    """
    record = PackageRecord.model_validate_json((inputs.package / "package.json").read_bytes())
    for name, entry in record.files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inputs.package / name, out / name)
        if entry_of(out / name) != entry:
            raise PipelineError(
                "is not what package.json says", where=name, mend="run the package stage again"
            )
    origin = RESOLVED if inputs.report.imported is None else IMPORTED
    _write(out / origin, inputs.resolved)
    if inputs.report.imported is None:
        _write(out / f"recipe/{inputs.stem}.yaml", inputs.recipe)
    content = Content(
        recipe_sha256=sha256_of(out / origin),
        parquet={name: entry.sha256 for name, entry in record.files.items()},
        weights=dict(inputs.weights),
        labels_sha256=labels_digest(record.column_sha256),
        rows=record.rows,
        classes=record.class_names,
        ipc=inputs.report.dataset.ipc,
    )
    report = completed(inputs, record, content, out)
    return finish(
        out,
        report,
        content,
        columns=record.column_sha256,
        rows=record.row_digests,
        facts=inputs.facts,
        dependencies=inputs.dependencies,
    )


def finish(
    out: Path,
    report: EvalReport,
    content: Content,
    *,
    columns: Mapping[str, str],
    rows: tuple[str, ...],
    facts: provenance.BuildFacts,
    dependencies: tuple[provenance.Dependency, ...] = (),
) -> Manifest:
    """Write all that follows from a complete report beside the Parquet files and the recipe.

    Args:
        out: Holds the Parquet files and `recipe/`.
        report: Identity, storage and card block included.
        content: What the artifact is.
        columns: Digest per Parquet column.
        rows: Digest per row.
        facts: When and on what it was built.
        dependencies: Splits and weights that the build read.
    """
    _write(out / REPORT, dumps(report))
    results.write(report.runs, out / results.RESULTS)
    _draw(report, content.classes, out)
    _write(out / CARD, render(report))
    files = {name: entry_of(out / name) for name in content.parquet}
    _write(out / CROISSANT, croissant.text(described(report, files)))
    compute = report.model_dump(mode="json")["compute"]
    statement = provenance.statement(
        subjects=subjects(content, report),
        recipe=report.card.recipe if report.card else "",
        recipe_sha256=content.recipe_sha256,
        digest=content.digest,
        stages={name: cost for name, cost in compute.items() if name != TOTAL},
        dependencies=dependencies,
        facts=facts,
    )
    _write(out / PROVENANCE, provenance.text(statement))
    manifest = Manifest(
        digest=content.digest,
        content=content,
        runs_sha256=report.runs_sha256,
        files={path.relative_to(out).as_posix(): entry_of(path) for path in files_of(out)},
        columns=dict(columns),
        rows=rows,
    )
    _write(out / MANIFEST, manifest.text())
    return manifest


def described(report: EvalReport, files: Mapping[str, FileEntry]) -> dict[str, object]:
    """The Croissant description of the Parquet files.

    Raises:
        ValueError: If the report has no card block, or its front matter lists no columns.
    """
    if report.card is None:
        raise ValueError("the report has no card block")
    card = report.card
    return croissant.croissant(
        name=card.title,
        description=summary(report),
        rights=card.license_link or card.license,
        version=report.dataset.version,
        url=f"https://huggingface.co/datasets/{card.repo_id}" if card.repo_id else None,
        creators=card.authors,
        cite_as=card.papers[0].title if card.papers else None,
        tables={
            name: croissant.Table(
                {path: entry for path, entry in files.items() if path.startswith(f"{place}/")},
                croissant.columns_of(features),
            )
            for name, place, features in _tables(card)
        },
    )


def _tables(card: CardBlock) -> Iterator[tuple[str, str, object]]:
    """Name, folder and features of every table of the set."""
    infos = card.data.get("dataset_info")
    for info in infos if isinstance(infos, list) else [infos]:
        if not isinstance(info, dict):
            raise ValueError("dataset_info is missing in the front matter")
        config = info.get("config_name", "default")
        name, place = ("train", "data") if config == "default" else (str(config), str(config))
        yield name, place, info.get("features")


def subjects(content: Content, report: EvalReport) -> dict[str, str]:
    """What the provenance vouches for: the data files and the whole."""
    name = report.card.title if report.card else report.dataset.name
    return {**content.parquet, name: content.digest}


def panels(report: EvalReport) -> tuple[figures.Panel, ...]:
    """The arms of every comparison, for the plot."""
    return tuple(_panel(part, report) for part in report.comparisons)


def _panel(part: Comparison, report: EvalReport) -> figures.Panel:
    top1 = {run.id: run.top1 for run in report.runs}
    points = []
    for arm in ARMS_SHOWN:
        metric = part.metrics.get(f"top1.{arm}")
        if metric is not None and metric.value is not None:
            runs = tuple(top1[run] for run in metric.runs if run in top1)
            points.append(figures.Point(arm, metric.value, metric.ci95, runs))
    reference = part.metrics.get("top1.full_hard")
    protocols = ", ".join(dict.fromkeys(part.protocols.values()))
    return figures.Panel(
        f"{protocols}, {part.arch}", tuple(points), reference.value if reference else None
    )


def sheet_rows(folder: Path, class_names: Sequence[str]) -> list[figures.Row]:
    """The images that the contact sheet shows: the first of every shown class with pixels."""
    classes, held = stored.read(folder).labels, stored.held(folder)
    rows = []
    for label in figures.shown_classes(len(class_names)):
        of_class = [row for row in np.flatnonzero(classes == label).tolist() if held[row]]
        if of_class:
            files = stored.images(folder, of_class[: figures.MAX_COLUMNS])
            pixels = figures.decoded([file for file in files if file is not None])
            rows.append(figures.Row(class_names[label], pixels))
    return rows


def _draw(report: EvalReport, class_names: Sequence[str], out: Path) -> None:
    (out / CONTACT_SHEET).parent.mkdir(parents=True, exist_ok=True)
    figures.contact_sheet(sheet_rows(out, class_names), out / CONTACT_SHEET)
    drawn = [panel for panel in panels(report) if panel.points]
    if drawn:
        figures.arms_plot(drawn, out / ARMS)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
