"""Checks of the report, the card and the descriptions beside them; part of `packaging.verify`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distillhub.errors import Fault
from distillhub.packaging import provenance as statements
from distillhub.packaging import results, texts
from distillhub.packaging.card import (
    CARD,
    CONTACT_SHEET,
    CROISSANT,
    PROVENANCE,
    REPORT,
    described,
    sheet_rows,
    subjects,
)
from distillhub.packaging.completion import TOTAL
from distillhub.packaging.digests import parquet_files
from distillhub.packaging.figures import wrong_tiles
from distillhub.packaging.rendering import RENDERING, render
from distillhub.records.columns import GEOMETRY, KEYS, SOFT, column_bytes
from distillhub.records.manifest import FileEntry, Manifest, entry_of
from distillhub.records.references import REFERENCE
from distillhub.records.report import EvalReport, Metric, Run

REBUILD = "fetch or build the data set again"
TOLERANCE = 1e-9
"""Between a figure and the same one computed anew."""
MAX_CARD_BYTES = 10_000_000
PAIRED = {
    "gain_images_hard": ("syn_hard", "rnd_hard"),
    "gain_images_soft": ("syn_soft", "rnd_soft"),
    "gain_images_soft_online": ("syn_soft_online", "rnd_soft_online"),
    "gain_packed_hard": ("syn_hard", "rnd_packed_hard"),
    "gain_packed_soft": ("syn_soft", "rnd_packed_soft"),
    "gain_labels_random": ("rnd_soft", "rnd_hard"),
    "hlr": ("full_hard", "syn_hard"),
}
"""Figures that are the difference of two arms."""
_OF_RUN = ("top1", "best_top1", "top5", "nll", "ece", "brier")


def identity(report: EvalReport, manifest: Manifest) -> Iterator[Fault]:
    """The report speaks of this content."""
    content = manifest.content
    pairs = {
        "dataset.manifest_sha256": (report.dataset.manifest_sha256, content.digest),
        "dataset.recipe_sha256": (report.dataset.recipe_sha256, content.recipe_sha256),
        "dataset.images": (report.dataset.images, content.rows),
        "dataset.ipc": (report.dataset.ipc, content.ipc),
        "preprocess.label_names": (report.preprocess.label_names, content.classes),
        "runs": (report.runs_sha256, manifest.runs_sha256),
    }
    for name, (said, recorded) in pairs.items():
        if said != recorded:
            yield Fault(f"{said}, the manifest says {recorded}", f"{REPORT}: {name}", REBUILD)
    made_by = report.method.generator
    if made_by is not None and content.weights.get("generator") != made_by.sha256:
        what = f"weights {made_by.sha256}, the manifest says {content.weights.get('generator')}"
        yield Fault(what, f"{REPORT}: method.generator", REBUILD)
    for network in report.method.teacher:
        weights = content.weights.get(network.role)
        if weights != network.weights_sha256:
            where = f"{REPORT}: method.teacher: {network.role}"
            what = f"weights {network.weights_sha256}, the manifest says {weights}"
            yield Fault(what, where, REBUILD)


def storage(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """Bytes of the columns, from the footers of the Parquet files."""
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    for path in parquet_files(folder):
        for name, count in column_bytes(pq.read_metadata(path)).items():
            found[name] = found.get(name, 0) + count
    block = report.storage
    if block is None:
        yield Fault("missing", f"{REPORT}: storage", REBUILD)
        return
    parts = {
        "bytes_images": (found.get("image", 0), block.bytes_images),
        "bytes_labels": (sum(found.get(n, 0) for n in ("label", *SOFT)), block.bytes_labels),
        "bytes_aux": (
            sum(found.get(n, 0) for n in (*GEOMETRY, *KEYS, *REFERENCE)),
            block.bytes_aux,
        ),
    }
    for name, (seen, said) in parts.items():
        if seen != said:
            yield Fault(f"{said}, the files have {seen}", f"{REPORT}: storage.{name}", REBUILD)
    ratio = (block.bytes_labels + block.bytes_aux) / max(block.bytes_images, 1)
    if not math.isclose(ratio, block.label_image_ratio, rel_tol=TOLERANCE):
        what = f"{block.label_image_ratio}, the bytes give {ratio}"
        yield Fault(what, f"{REPORT}: storage.label_image_ratio", REBUILD)


def figures(report: EvalReport) -> Iterator[Fault]:
    """Means, deviations, intervals and differences, computed anew from the runs."""
    by_id = {run.id: run for run in report.runs}
    for number, part in enumerate(report.comparisons):
        for key, metric in part.metrics.items():
            where = f"{REPORT}: comparisons.{number}.metrics.{key}"
            lost = [run for run in metric.runs if run not in by_id]
            if lost:
                yield Fault(f"run {lost[0]} is not among the runs", where, REBUILD)
                continue
            kind, _, arm = key.partition(".")
            of_arm = [by_id[run] for run in metric.runs]
            if kind in _OF_RUN and of_arm and metric.status == "measured":
                yield from _mean(where, metric, [_figure(run, kind) for run in of_arm], arm, of_arm)
        yield from _differences(f"{REPORT}: comparisons.{number}.metrics", part.metrics)


def runs(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """The table of runs is that of the report, cell by cell."""
    import pyarrow.parquet as pq

    seen = pq.read_table(folder / results.RESULTS).to_pylist()
    said = results.table(report.runs).to_pylist()
    if len(seen) != len(said):
        what = f"{len(seen)} runs, {REPORT} has {len(said)}"
        yield Fault(what, results.RESULTS, REBUILD)
    for row, (a, b) in enumerate(zip(seen, said, strict=False)):
        for column in dict.fromkeys([*b, *a]):
            if a.get(column) != b.get(column) or (column in a) != (column in b):
                what = f"{a.get(column)!r}, {REPORT} says {b.get(column)!r}"
                yield Fault(what, f"{results.RESULTS}: row {row}: column {column}", REBUILD)


def card(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """The card is the text that the report renders to; lines and figures that differ are named.

    A card of another version of the renderer is not compared word for word; each of its figures
    must then be one of the report.
    """
    path = folder / CARD
    if path.stat().st_size > MAX_CARD_BYTES:
        yield Fault(f"larger than {MAX_CARD_BYTES:,} bytes", CARD, REBUILD)
        return
    try:
        seen = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        yield Fault(f"not UTF-8 at byte {error.start}", CARD, REBUILD)
        return
    if report.card is not None and report.card.rendering != RENDERING:
        yield from texts.unknown_figures(CARD, seen, report.model_dump(mode="json"))
    else:
        yield from texts.lines(CARD, seen, render(report), REPORT)


def contact_sheet(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """The picture shows the stored images."""
    rows = sheet_rows(folder, report.preprocess.label_names)
    for name, column in wrong_tiles(rows, folder / CONTACT_SHEET):
        what = f"image {column} of class {name} is not the stored one"
        yield Fault(what, CONTACT_SHEET, "build the card again")


def croissant(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """The description that the report and the files give."""
    files = {path.relative_to(folder).as_posix(): entry_of(path) for path in parquet_files(folder)}
    said, meant = _json(folder / CROISSANT), described(report, files)
    if report.card is not None and report.card.rendering != RENDERING and isinstance(said, dict):
        meant["description"] = said.get("description")  # words of another version of the renderer
    yield from _unequal(CROISSANT, said, meant, "$")


def provenance(folder: Path, report: EvalReport, manifest: Manifest) -> Iterator[Fault]:
    """Subjects are the files as they are and the whole; recipe and costs are the report's."""
    content = _json(folder / PROVENANCE)
    said = statements.subjects_of(content)
    files: Mapping[str, FileEntry] = {
        path.relative_to(folder).as_posix(): entry_of(path) for path in parquet_files(folder)
    }
    seen = {name: entry.sha256 for name, entry in files.items()}
    meant = {**subjects(manifest.content, report), **seen}
    for name in dict.fromkeys([*meant, *said]):
        if said.get(name) != meant.get(name):
            what = f"sha256 is {meant.get(name)}, the statement says {said.get(name)}"
            yield Fault(what, f"{PROVENANCE}: subject {name}", REBUILD)
    match content:
        case {
            "predicate": {
                "buildDefinition": {
                    "externalParameters": {"recipe_sha256": str(recipe)},
                    "internalParameters": {"stages": stages},
                }
            }
        }:
            if recipe != manifest.content.recipe_sha256:
                what = f"recipe {recipe}, the manifest says {manifest.content.recipe_sha256}"
                yield Fault(what, f"{PROVENANCE}: externalParameters", REBUILD)
            costs = report.model_dump(mode="json")["compute"]
            wanted = {stage: cost for stage, cost in costs.items() if stage != TOTAL}
            yield from _unequal(PROVENANCE, stages, wanted, "stages")
        case _:
            yield Fault("names no recipe and no stages", PROVENANCE, REBUILD)


def _figure(run: Run, kind: str) -> float | None:
    value: float | None = getattr(run, kind)
    return value


def _mean(
    where: str, metric: Metric, values: Sequence[float | None], arm: str, of_arm: Sequence[Run]
) -> Iterator[Fault]:
    """A figure of one arm against its runs."""
    wrong = next((run for run in of_arm if run.arm != arm), None)
    if wrong is not None:
        yield Fault(f"run {wrong.id} is of arm {wrong.arm}", where, REBUILD)
    kept = [value for value in values if value is not None]
    if not kept:
        return
    mean = math.fsum(kept) / len(kept)
    if metric.value is None or abs(metric.value - mean) > TOLERANCE:
        yield Fault(f"{metric.value}, its {len(kept)} runs give {mean}", where, REBUILD)
    if metric.n != len(kept):
        yield Fault(f"{metric.n}, it lists {len(kept)} runs", f"{where}.n", REBUILD)
    if len(kept) > 1:
        yield from _spread(
            where,
            metric,
            math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / (len(kept) - 1)),
        )


def _spread(where: str, metric: Metric, std: float) -> Iterator[Fault]:
    """Deviation, and the t interval that follows from it."""
    from scipy.special import stdtrit

    if metric.std is None or abs(metric.std - std) > TOLERANCE:
        yield Fault(f"{metric.std}, its runs give {std}", f"{where}.std", REBUILD)
    if metric.ci95 is not None and metric.value is not None:
        half = float(stdtrit(metric.n - 1, 0.975)) * std / math.sqrt(metric.n)
        wanted = (metric.value - half, metric.value + half)
        if any(abs(a - b) > 1e-6 for a, b in zip(metric.ci95, wanted, strict=True)):
            yield Fault(f"{metric.ci95}, its runs give {wanted}", f"{where}.ci95", REBUILD)


def _differences(where: str, metrics: Mapping[str, Metric]) -> Iterator[Fault]:
    for key, (first, second) in PAIRED.items():
        parts = [metrics.get(name) for name in (key, f"top1.{first}", f"top1.{second}")]
        if any(part is None or part.value is None for part in parts):
            continue
        told, a, b = (part.value for part in parts if part is not None and part.value is not None)
        if abs(told - (a - b)) > TOLERANCE:
            yield Fault(
                f"{told}, top1.{first} - top1.{second} is {a - b}", f"{where}.{key}", REBUILD
            )


def _unequal(name: str, said: object, wanted: object, place: str) -> Iterator[Fault]:
    """Where two JSON values differ."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *said]):
            yield from _unequal(name, said.get(key), wanted.get(key), f"{place}.{key}")
    elif isinstance(said, list) and isinstance(wanted, list) and len(said) == len(wanted):
        for index, (a, b) in enumerate(zip(said, wanted, strict=True)):
            yield from _unequal(name, a, b, f"{place}[{index}]")
    elif said != wanted:
        what = f"{texts.short(said)}, the set gives {texts.short(wanted)}"
        yield Fault(what, f"{name}: {place}", "build the card again")


def _json(path: Path) -> object:
    content: object = json.loads(path.read_bytes())
    return content
