"""`distillhub materialize`: the pixels of named images, filled in from the user's own copy."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from distillhub.data import codec
from distillhub.data.pictures import Pixels
from distillhub.data.pixels import decode_row
from distillhub.data.rows import EncodedRows
from distillhub.data.sources import geometry_of, stored_rows
from distillhub.data.specs import ImageFormat, SourceSpec
from distillhub.errors import DataError, Fault, UsageError, VerificationError
from distillhub.packaging import parquet, stored
from distillhub.packaging.card import CARD, REPORT, RESOLVED, finish
from distillhub.packaging.completion import storage_block
from distillhub.packaging.provenance import Dependency
from distillhub.packaging.verify import verify
from distillhub.pipeline.files import replaced_folder, storage_errors
from distillhub.pipeline.importing import import_facts
from distillhub.pipeline.mixing import real_pixel_share
from distillhub.records.distilled import DistilledSet
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.references import Reference, pixels_digest
from distillhub.records.report import EvalReport, PrivacyBlock, loads

TOLD = 10
"""Images that are named one by one; of more, their number is told."""
WRITTEN_ANEW = ("schema", "labels", "views")
"""Of the front matter's own block: `packaging.parquet` writes them."""


class Materialized(NamedTuple):
    """A set with all its pixels."""

    folder: Path
    images: int
    """Whose pixels were filled in."""
    digest: str
    """Of the whole: another artifact than the one that names them."""


def materialize(
    folder: Path, *, source: str | None, out: Path | None, sources: Mapping[str, Path]
) -> Materialized:
    """Fill in the pixels of the images that a set only names.

    Args:
        folder: Of the set, as fetched or built.
        source: Folder or id of the user's copy; None: the id in the set's recipe.
        out: A new folder for the result; None: in place.
        sources: Local copies by Hub id.

    Raises:
        VerificationError: If the set is not what its manifest says.
        UsageError: If it lacks no pixels, or `out` is not empty.
        DataError: If an image is missing in the source or another one; nothing is written.
    """
    started = datetime.now(UTC).replace(microsecond=0)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder", where="--out", mend="name a new folder")
    verdict = verify(folder)
    if verdict.faults:
        raise VerificationError.of(verdict.faults)
    report = loads((folder / REPORT).read_bytes())
    if report.reference is None or report.reference.materialized_from is not None:
        raise UsageError(
            "the set holds all its pixels already"
            if report.reference is not None
            else "the set names no images whose pixels could be filled in",
            where=str(folder),
        )
    spec = _source(folder)
    named = stored.named(folder)
    wanted = {row: one for row, one in enumerate(named) if one is not None}
    pixels = _pixels(wanted, spec, _rows(spec, source, sources))
    target = out or folder
    with storage_errors(target), replaced_folder(target) as fresh:
        manifest = _write(folder, fresh, report, named, pixels, started)
    return Materialized(target, len(pixels), manifest.digest)


def _source(folder: Path) -> SourceSpec:
    """The data set that the set was made from, as its recipe pins it."""
    try:
        content = YAML(typ="safe", pure=True).load((folder / RESOLVED).read_bytes())
        return SourceSpec.model_validate(content["dataset"])
    except (OSError, YAMLError, ValidationError, KeyError, TypeError) as error:
        raise DataError(
            "the recipe does not tell what the images are of",
            where=str(folder / RESOLVED),
            mend="fetch or build the data set again",
        ) from error


def _rows(spec: SourceSpec, source: str | None, sources: Mapping[str, Path]) -> EncodedRows:
    """The user's copy of the training split."""
    if source is None:
        return stored_rows(spec, sources)
    if Path(source).expanduser().is_dir():
        return stored_rows(spec, {spec.id: Path(source).expanduser().resolve()})
    pinned = spec if source == spec.id else spec.model_copy(update={"id": source, "pin": None})
    return stored_rows(pinned, sources)


def _pixels(
    wanted: Mapping[int, Reference], spec: SourceSpec, rows: EncodedRows
) -> dict[int, Pixels]:
    """Row of the set -> pixels [C, H, W] of the image that it names.

    An image is looked for at its row first, then by its digest in the whole source: the copy may
    be ordered otherwise.

    Raises:
        DataError: With every image that is missing, or has other pixels.
    """
    found = _found(wanted, rows)
    faults = [
        Fault(f"is not in the source: sha256 {one.sha256}", one.file)
        for row, one in wanted.items()
        if row not in found
    ]
    geometry = geometry_of(spec)
    pixels = {}
    for row, place in found.items():
        stored_bytes = rows.take(np.array([place]))[0]
        pixels[row] = decode_row(rows, place, stored_bytes, geometry)
        digest = pixels_digest(pixels[row])
        if digest != wanted[row].pixels:
            what = f"is decoded to other pixels: sha256 {digest}, {wanted[row].pixels} is recorded"
            faults.append(Fault(what, wanted[row].file))
    if faults:
        told = faults[:TOLD]
        if len(faults) > TOLD:
            told.append(Fault(f"{len(faults)} of {len(wanted)} images in all cannot be filled in"))
        mend = "give the copy that the set was made from; nothing was written"
        raise DataError.of([*told[:-1], told[-1]._replace(mend=mend)])
    return pixels


def _found(wanted: Mapping[int, Reference], rows: EncodedRows) -> dict[int, int]:
    """Row of the set -> row of the source that has the named bytes."""
    found: dict[int, int] = {}
    lost: dict[str, list[int]] = {}
    for row, one in wanted.items():
        same = one.row < len(rows.labels) and one.sha256 == _sha256(
            rows.take(np.array([one.row]))[0]
        )
        if same:
            found[row] = one.row
        else:
            lost.setdefault(one.sha256, []).append(row)
    for start, images in rows.chunks() if lost else ():
        for place, image in enumerate(images, start):
            for row in lost.pop(_sha256(image), ()):
                found[row] = place
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(
    folder: Path,
    fresh: Path,
    report: EvalReport,
    named: Sequence[Reference | None],
    pixels: Mapping[int, Pixels],
    started: datetime,
) -> Manifest:
    """Write the whole set with its pixels into an empty folder."""
    before = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    opened = DistilledSet.open(folder)
    fmt = ImageFormat.model_validate({"codec": opened.meta["codec_images"]})
    images = stored.images(folder, range(len(named)))
    for row, levels in pixels.items():
        image = codec.to_float(torch.from_numpy(levels.copy())[None])
        images[row] = codec.encode(image, fmt)[0]
    record = parquet.write(
        fresh,
        images,
        opened.labels,
        opened.class_names,
        opened.soft,
        opened.views,
        {name: value for name, value in opened.meta.items() if name not in WRITTEN_ANEW},
        named=named,
    )
    for made in ("package.json", CARD):  # the card is written below, with all of its text
        (fresh / made).unlink()
    shutil.copytree(folder / "recipe", fresh / "recipe")
    content = before.content.model_copy(
        update={"parquet": {name: entry.sha256 for name, entry in record.files.items()}}
    )
    update: dict[str, object] = {
        "dataset": report.dataset.model_copy(update={"manifest_sha256": content.digest}),
        "storage": storage_block(report.storage, record),
    }
    if report.card is not None:
        update["card"] = report.card.model_copy(update={"data": record.front_matter})
    if report.reference is not None:
        block = report.reference.model_copy(update={"materialized_from": before.digest})
        update["reference"] = block
    if report.doping is not None:
        share = real_pixel_share(report.doping, pixels=True)
        update["privacy"] = PrivacyBlock(real_pixel_share=share)
    whole = report.model_copy(update=update).model_dump(mode="json")
    return finish(
        fresh,
        EvalReport.model_validate(whole),
        content,
        columns=record.column_sha256,
        rows=record.row_digests,
        facts=import_facts(started),
        dependencies=(Dependency(uri=f"set:{report.dataset.name}", sha256=before.digest),),
    )
