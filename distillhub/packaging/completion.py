"""What the report lacks until the card is made: identity, storage, label figures, costs, rights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillhub.errors import Fault, PipelineError
from distillhub.packaging import labels, stored
from distillhub.packaging.parquet import PackageRecord
from distillhub.packaging.provenance import BuildFacts, Dependency
from distillhub.packaging.rendering import RENDERING
from distillhub.packaging.specs import CardSpec, PublishSpec
from distillhub.records.card import CardBlock, CitedPaper
from distillhub.records.manifest import Content
from distillhub.records.report import (
    ComputeBlock,
    EvalReport,
    LabelsBlock,
    PrivacyBlock,
    RightsBlock,
    StorageBlock,
)

TOTAL = "all"
"""Name of the sum of all stages."""


@dataclass(frozen=True)
class CardInputs:
    """All that a card is made from."""

    package: Path
    """Folder with package.json, `data/` and perhaps `views/`."""
    report: EvalReport
    """Of the evaluate stage; what is known only now is filled in here."""
    stem: str
    """File stem of the recipe."""
    recipe: str
    """Text of the recipe as written."""
    resolved: str
    """Text of the resolved recipe."""
    card: CardSpec
    publish: PublishSpec | None
    papers: tuple[CitedPaper, ...]
    """Of the method first."""
    weights: Mapping[str, str]
    """sha256 of the networks that took part, by role."""
    compute: Mapping[str, ComputeBlock]
    """What each stage cost, in the order of the stages."""
    facts: BuildFacts
    dependencies: tuple[Dependency, ...] = ()
    """Splits and weights that the build read."""


def completed(
    inputs: CardInputs, record: PackageRecord, content: Content, folder: Path
) -> EvalReport:
    """The report with identity, storage, label figures, costs, rights and the card's own block."""
    report, card = inputs.report, inputs.card
    dataset = report.dataset.model_copy(
        update={
            "manifest_sha256": content.digest,
            "recipe_sha256": content.recipe_sha256,
            "images": record.rows,
        }
    )
    title = card.pretty_name or (
        f"{report.source.id}, {report.method.label or report.method.name}, "
        f"{report.dataset.ipc} images per class"
    )
    real = 1.0 if report.method.real_pixels else 0.0
    block = CardBlock(
        title=title,
        license=card.license,
        license_name=card.license_name,
        license_link=card.license_link,
        authors=card.authors,
        tags=card.tags,
        notes=card.notes,
        papers=inputs.papers,
        repo_id=inputs.publish.repo_id if inputs.publish else None,
        recipe=inputs.stem,
        rendering=RENDERING,
        data=record.front_matter,
    )
    rights = RightsBlock(
        source_license=card.source_license,
        output_license=card.license_name or card.license,
        redistributable=card.redistributable,
    )
    update = {
        "dataset": dataset,
        "labels": labels_block(report, record, folder),
        "storage": storage_block(report.storage, record),
        "compute": with_total(inputs.compute),
        "privacy": report.privacy or PrivacyBlock(real_pixel_share=real),
        "rights": rights,
        "card": block,
    }
    return EvalReport.model_validate(report.model_copy(update=update).model_dump(mode="json"))


def labels_block(report: EvalReport, record: PackageRecord, folder: Path) -> LabelsBlock:
    """Label figures measured on the stored columns; what only the relabel stage knows stays.

    Raises:
        PipelineError: If a label or a view is impossible; it must not be published.
    """
    given = report.labels
    if record.codec is None:
        return given
    rows = stored.read(folder)
    _refuse_impossible(rows, report, record)
    widths = sum(values.shape[1] * values.dtype.itemsize for values in rows.columns.values())
    return given.model_copy(
        update={
            "views_per_image": record.views,
            "classes_kept": record.kept,
            "dtype": record.codec,
            "bits_per_image": 8.0 * widths,
            "teacher_agreement": labels.agreement(rows.columns, rows.labels),
            "statistics": labels.statistics(rows.columns),
        }
    )


def storage_block(given: StorageBlock | None, record: PackageRecord) -> StorageBlock:
    """Bytes of the columns, and their relation to the source where its size is known."""
    total = record.bytes_images + record.bytes_labels + record.bytes_aux
    source = given.bytes_source if given else None
    beside = record.bytes_labels + record.bytes_aux
    return StorageBlock(
        bytes_images=record.bytes_images,
        bytes_labels=record.bytes_labels,
        bytes_aux=record.bytes_aux,
        bytes_total=total,
        bytes_source=source,
        label_image_ratio=beside / record.bytes_images,
        compression=total / source if source else None,
    )


def with_total(stages: Mapping[str, ComputeBlock]) -> dict[str, ComputeBlock]:
    """The stages and, where there are several, their sum: times add up, peaks do not."""
    found = {name: cost for name, cost in stages.items() if name != TOTAL}
    if len(found) < 2:
        return found
    costs = list(found.values())

    def most(values: list[int | None]) -> int | None:
        return max((value for value in values if value is not None), default=None)

    def all_of(values: list[float | None]) -> float | None:
        kept = [value for value in values if value is not None]
        return sum(kept) if len(kept) == len(values) else None

    total = ComputeBlock(
        wall_seconds=sum(cost.wall_seconds for cost in costs),
        cpu_seconds=all_of([cost.cpu_seconds for cost in costs]),
        gpu_seconds=all_of([cost.gpu_seconds for cost in costs]),
        peak_host_bytes=most([cost.peak_host_bytes for cost in costs]),
        peak_gpu_bytes=most([cost.peak_gpu_bytes for cost in costs]),
        device_name=", ".join(dict.fromkeys(cost.device_name for cost in costs)),
    )
    return {**found, TOTAL: total}


def _refuse_impossible(rows: stored.Stored, report: EvalReport, record: PackageRecord) -> None:
    size = report.dataset.resolution
    found = labels.findings(
        rows.columns,
        num_classes=len(record.class_names),
        image=size,
        view=labels.view_size(record.front_matter, size),
    )
    faults = [
        Fault(f"row {part.rows[0]} {part.what}", f"column {part.column}", "run relabel again")
        for part in found
    ]
    if faults:
        raise PipelineError.of(faults)
