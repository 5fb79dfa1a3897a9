"""Checks of sets with real images in them, held or only named; part of `packaging.verify`."""

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distillhub.errors import Fault
from distillhub.ops.doping import pick
from distillhub.packaging import stored
from distillhub.records.references import Reference, pixels_digest
from distillhub.records.report import EvalReport

REBUILD = "fetch or build the data set again"
NAMED = 10
"""Rows that are named one by one; of more, their number is told."""
BATCH = 256
TOLERANCE = 1e-9
_SHA256 = re.compile(r"[0-9a-f]{64}")


def named(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """Rows that name a real image: as many as recorded, each once, with its pixels or without."""
    references = stored.named(folder)
    rows = [row for row, one in enumerate(references) if one is not None]
    block = report.reference
    recorded = 0 if block is None else block.rows
    if len(rows) != recorded:
        what = f"{len(rows)} rows name a real image, eval.json says {recorded}"
        yield Fault(what, "eval.json: reference.rows", REBUILD)
    if not rows:
        return
    held = stored.held(folder)
    filled = block is not None and block.materialized_from is not None
    wrong = [(row, what) for row in rows if (what := _wrong(references[row], held[row], filled))]
    seen: dict[int, int] = {}
    for row in rows:
        one = references[row]
        if one is not None and seen.setdefault(one.row, row) != row:
            wrong.append((row, f"names row {one.row} of the source, as row {seen[one.row]} does"))
    if filled:
        wrong += _other_pixels(folder, references, [row for row in rows if held[row]])
    for row, what in wrong[:NAMED]:
        yield Fault(what, f"data: row {row}", REBUILD)
    if len(wrong) > NAMED:
        yield Fault(f"{len(wrong)} rows in all name a real image wrongly", "data", REBUILD)


def _wrong(one: Reference | None, held: bool, filled: bool) -> str:
    """What is wrong with a row that names an image, or nothing."""
    if one is None:
        return ""
    for name, digest in (("source_sha256", one.sha256), ("pixels_sha256", one.pixels)):
        if not _SHA256.fullmatch(digest):
            return f"{name} is no sha256: {digest[:80]!r}"
    if one.row < 0 or not one.file:
        return f"names row {one.row} and file {one.file[:80]!r} of the source"
    if held != filled:
        return "holds pixels that eval.json says are missing" if held else "its pixels are missing"
    return ""


def _other_pixels(
    folder: Path, references: list[Reference | None], rows: list[int]
) -> Iterator[tuple[int, str]]:
    """Rows whose pixels are not those that they name."""
    from PIL import Image

    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        for row, file in zip(part, stored.images(folder, part), strict=True):
            one = references[row]
            with Image.open(io.BytesIO(file or b"")) as picture:
                pixels = np.asarray(picture)
            shaped = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            found = pixels_digest(shaped)
            if one is not None and found != one.pixels:
                yield row, f"sha256 of the pixels is {found}, pixels_sha256 is {one.pixels}"


def doping(report: EvalReport) -> Iterator[Fault]:
    """Numbers of images add up, and gains and choice follow from sizes and recognised images."""
    block, where = report.doping, "eval.json: doping"
    counts = report.dataset.counts
    if counts is not None and sum(counts) != report.dataset.images:
        what = f"{sum(counts)} images in all, {report.dataset.images} are recorded"
        yield Fault(what, "eval.json: dataset.counts", REBUILD)
    if block is None:
        return
    if block.kept + block.doped != report.dataset.images:
        what = f"{block.kept} + {block.doped} images, {report.dataset.images} are recorded"
        yield Fault(what, where, REBUILD)
    numbers = [size.recognised for size in block.sizes if size.recognised is not None]
    if len(numbers) != len(block.sizes):
        return
    try:
        choice = pick([size.images for size in block.sizes], numbers)
    except ValueError as error:
        yield Fault(str(error), f"{where}.sizes", REBUILD)
        return
    kept = block.sizes[choice.size].base
    if kept != block.base:
        yield Fault(f"base is {block.base}, the sizes give {kept}", f"{where}.base", REBUILD)
    for size, gain in zip(block.sizes, [*choice.gains, None], strict=True):
        same = size.gain is not None and gain is not None
        if (size.gain is None) != (gain is None) or (
            same and not math.isclose(size.gain or 0, gain or 0, rel_tol=TOLERANCE)
        ):
            what = f"gain of {size.base} is {size.gain}, the sizes give {gain}"
            yield Fault(what, f"{where}.sizes", REBUILD)
