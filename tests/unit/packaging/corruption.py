"""Ways to spoil an artifact, one per function; each says how its fault is to be named."""

import io
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distillhub.digests import sha256_of
from distillhub.packaging import croissant, parquet, results, stored
from distillhub.packaging import labels as label_checks
from distillhub.packaging.card import (
    CARD,
    CONTACT_SHEET,
    CROISSANT,
    PROVENANCE,
    REPORT,
    RESOLVED,
    build_card,
    described,
    sheet_rows,
    subjects,
)
from distillhub.packaging.digests import digests
from distillhub.packaging.figures import contact_sheet
from distillhub.packaging.rendering import render
from distillhub.records.columns import write_parquet
from distillhub.records.manifest import (
    MANIFEST,
    Content,
    Manifest,
    entry_of,
    files_of,
    labels_digest,
)
from distillhub.records.report import StorageBlock, dumps, loads
from tests.unit.packaging import sample

Rows = list[dict[str, Any]]
SHARD = "data/train-00000-of-00001.parquet"
Spoil = Callable[[Path, random.Random], str]
"""Spoils a folder and returns a pattern that one fault must match."""


def any_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(list(files_of(folder)))


def relative(path: Path, folder: Path) -> str:
    return re.escape(path.relative_to(folder).as_posix())


def flip_bit_of_rows(folder: Path, chance: random.Random) -> str:
    path = folder / SHARD
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"^{re.escape(SHARD)}"


def flip_bit_of_any_file(folder: Path, chance: random.Random) -> str:
    path = any_file(folder, chance)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"^{relative(path, folder)}"


def truncate(folder: Path, chance: random.Random) -> str:
    path = any_file(folder, chance)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    return f"^{relative(path, folder)}"


def append(folder: Path, chance: random.Random) -> str:
    path = any_file(folder, chance)
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 50)))
    return f"^{relative(path, folder)}"


def zero_block(folder: Path, chance: random.Random) -> str:
    path = any_file(folder, chance)
    data = bytearray(path.read_bytes())
    start = chance.choice([place for place, byte in enumerate(data) if byte])
    data[start : start + 16] = bytes(len(data[start : start + 16]))
    path.write_bytes(data)
    return f"^{relative(path, folder)}"


def delete(folder: Path, chance: random.Random) -> str:
    path = any_file(folder, chance)
    path.unlink()
    return f"^{relative(path, folder)}: missing"


def add(folder: Path, chance: random.Random) -> str:
    name = chance.choice(["data/train-00001-of-00001.parquet", "notes.txt", "recipe/other.yaml"])
    (folder / name).write_bytes(chance.randbytes(40))
    return f"^{re.escape(name)}: not in the manifest"


def rewrite(folder: Path, change: Callable[[Rows], object]) -> None:
    """Change rows and write the file again as the package stage would."""
    table = pq.read_table(folder / SHARD)
    rows = table.to_pylist()
    change(rows)
    write_parquet(pa.Table.from_pylist(rows, schema=table.schema), folder / SHARD, 1000)


def cell(row: int, column: str) -> str:
    return rf"^{re.escape(SHARD)}: row {row}: column .*{column}.*digest of the row is \w+, recorded"


def change_pixel(folder: Path, chance: random.Random) -> str:
    row, value = chance.randrange(12), chance.randrange(256)

    def change(rows: Rows) -> None:
        pixels = np.array(Image.open(io.BytesIO(rows[row]["image"]["bytes"])))
        pixels[2, 3] = value if pixels[2, 3] != value else value ^ 255
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        rows[row]["image"]["bytes"] = stream.getvalue()

    rewrite(folder, change)
    return cell(row, "image")


def change_label(folder: Path, chance: random.Random) -> str:
    row = chance.randrange(12)
    rewrite(folder, lambda rows: rows[row].update(label=(rows[row]["label"] + 1) % 3))
    return cell(row, "label")


def change_label_only(folder: Path, chance: random.Random) -> str:
    change_label(folder, chance)
    return r"class \d \w+ has \d images, ipc is 4"


def change_soft(folder: Path, chance: random.Random) -> str:
    row, place = chance.randrange(12), chance.randrange(9)

    def change(rows: Rows) -> None:
        rows[row]["soft_val"][place] += chance.choice([-0.25, 0.25])

    rewrite(folder, change)
    return cell(row, "soft_val")


def soft_nan(folder: Path, chance: random.Random) -> str:
    row = chance.randrange(12)
    rewrite(folder, lambda rows: rows[row]["soft_val"].__setitem__(4, float("nan")))
    return rf"row {row}: column soft_val: holds NaN or Infinity"


def crop_outside(folder: Path, chance: random.Random) -> str:
    row = chance.randrange(12)
    rewrite(folder, lambda rows: rows[row]["view_crop"].__setitem__(3, 60))
    return rf"row {row}: column view_crop: leaves the image"


def swap_rows(folder: Path, chance: random.Random) -> str:
    a, b = chance.sample(range(12), 2)
    rewrite(folder, lambda rows: rows.insert(a, rows.pop(b)))
    return rf"row {min(a, b)}: column .*digest of the row"


def drop_row(folder: Path, chance: random.Random) -> str:
    row = chance.randrange(12)
    rewrite(folder, lambda rows: rows.pop(row))
    return rf"recorded row {row} with digest \w+ is missing"


def double_row(folder: Path, chance: random.Random) -> str:
    row = chance.randrange(12)
    rewrite(folder, lambda rows: rows.insert(row, dict(rows[row])))
    return rf"row {row}: digest \w+ is not recorded"


def figures_of(text: str) -> list[re.Match[str]]:
    body = text.index("## How good it is")
    return [m for m in re.finditer(r"\d+\.\d", text) if m.start() > body]


def card_figure(folder: Path, chance: random.Random) -> str:
    path = folder / CARD
    text = path.read_text()
    found = chance.choice(figures_of(text))
    other = f"{float(found.group()) + 1.1:.1f}"
    path.write_text(text[: found.start()] + other + text[found.end() :])
    line = text[: found.start()].count("\n") + 1
    return rf"^README\.md: line {line}: says .*{re.escape(other)}"


def edit_report(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / REPORT
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def report_figure(folder: Path, chance: random.Random) -> str:
    arm = chance.choice(["syn_hard", "rnd_hard", "syn_soft", "rnd_soft"])

    def change(content: dict[str, Any]) -> None:
        content["comparisons"][0]["metrics"][f"top1.{arm}"]["value"] += 0.01

    edit_report(folder, change)
    return rf"^eval\.json: comparisons\.0\.metrics\.top1\.{arm}: [\d.]+, its 3 runs give"


def run_accuracy(folder: Path, chance: random.Random) -> str:
    number = chance.randrange(12)

    def change(content: dict[str, Any]) -> None:
        content["runs"][number]["top1"] += 0.01

    edit_report(folder, change)
    return rf"^evaluation/results\.parquet: row {number}: column top1"


def manifest_digest(folder: Path, chance: random.Random) -> str:
    path = folder / MANIFEST
    text = path.read_text()
    found = chance.choice(list(re.finditer(r'"([0-9a-f]{64}|[0-9a-f]{16})"', text)))
    place = chance.randrange(found.start() + 1, found.end() - 1)
    digit = chance.choice([d for d in "0123456789abcdef" if d != text[place]])
    path.write_text(text[:place] + digit + text[place + 1 :])
    return "sha256|digest|the manifest says"


def recompute_manifest(folder: Path) -> None:
    """What one who can run our code, but knows no better, would do after a change."""
    old = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    found = digests(folder)
    content = Content(
        recipe_sha256=sha256_of(folder / RESOLVED),
        parquet={name: sha256_of(folder / name) for name in old.content.parquet},
        weights=old.content.weights,
        labels_sha256=labels_digest(found.columns),
        rows=len(found.rows),
        classes=old.content.classes,
        ipc=old.content.ipc,
    )
    files = {
        path.relative_to(folder).as_posix(): entry_of(path)
        for path in files_of(folder)
        if path.name != MANIFEST
    }
    fresh = Manifest(
        digest=content.digest,
        content=content,
        runs_sha256=loads((folder / REPORT).read_bytes()).runs_sha256,
        files=files,
        columns=found.columns,
        rows=found.rows,
    )
    (folder / MANIFEST).write_text(fresh.text())


def remake_everything(folder: Path) -> None:
    """What a forger would do: make report, card, descriptions and manifest anew."""
    recompute_manifest(folder)
    content = Manifest.model_validate_json((folder / MANIFEST).read_bytes()).content
    report = loads((folder / REPORT).read_bytes())
    rows, bytes_of = stored.read(folder), parquet.storage(folder)
    figures = label_checks.statistics(rows.columns)
    report = report.model_copy(
        update={
            "dataset": report.dataset.model_copy(update={"manifest_sha256": content.digest}),
            "labels": report.labels.model_copy(
                update={
                    "teacher_agreement": label_checks.agreement(rows.columns, rows.labels),
                    "statistics": {k: 0.0 if math.isnan(v) else v for k, v in figures.items()},
                }
            ),
            "storage": StorageBlock(
                bytes_images=bytes_of.images,
                bytes_labels=bytes_of.labels,
                bytes_aux=bytes_of.aux,
                bytes_total=bytes_of.images + bytes_of.labels + bytes_of.aux,
                label_image_ratio=(bytes_of.labels + bytes_of.aux) / bytes_of.images,
            ),
        }
    )
    (folder / REPORT).write_text(dumps(report))
    (folder / CARD).write_text(render(report))
    files = {SHARD: entry_of(folder / SHARD)}
    (folder / CROISSANT).write_text(croissant.text(described(report, files)))
    statement = json.loads((folder / PROVENANCE).read_text())
    statement["subject"] = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in subjects(content, report).items()
    ]
    (folder / PROVENANCE).write_text(json.dumps(statement))
    contact_sheet(sheet_rows(folder, sample.CLASSES), folder / CONTACT_SHEET)
    recompute_manifest(folder)


def rewrite_evaluation(folder: Path, chance: random.Random) -> str:
    """Better runs, with figures and card to match."""
    package = folder.with_name(folder.name + "-package")
    better = sample.MEANS | {"syn_hard": 0.88 + 0.01 * chance.random()}
    shutil.rmtree(folder)
    folder.mkdir()
    build_card(sample.inputs(package, sample.report(arms=better)), folder)
    return "eval"


def plot_pixel(folder: Path, chance: random.Random) -> str:
    path = folder / "assets/arms.png"
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.putpixel((chance.randrange(200, 400), chance.randrange(50, 200)), (255, 0, 0))
    picture.save(path)
    return r"assets/arms\.png"


def sheet_tile(folder: Path, chance: random.Random) -> str:
    path = folder / "assets/contact_sheet.png"
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    left, top = width - 60, chance.randrange(8, height - 40)
    picture.paste((255, 0, 0), (left, top, left + 30, top + 30))
    picture.save(path)
    return r"assets/contact_sheet\.png"


def provenance_time(folder: Path, chance: random.Random) -> str:
    path = folder / PROVENANCE
    path.write_text(path.read_text().replace("2026-01-02", f"2026-01-{chance.randrange(10, 28)}"))
    return "provenance"


def results_cell(folder: Path, chance: random.Random) -> str:
    table = pq.read_table(folder / results.RESULTS)
    rows, number = table.to_pylist(), chance.randrange(12)
    rows[number]["top1"] += 0.02
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / results.RESULTS)
    return rf"^evaluation/results\.parquet: row {number}: column top1: [\d.]+, eval\.json says"


PLAIN: dict[str, tuple[Spoil, int]] = {
    "one bit of the rows' file": (flip_bit_of_rows, 20),
    "one bit of any file": (flip_bit_of_any_file, 20),
    "end of a file cut off": (truncate, 10),
    "bytes added to a file": (append, 10),
    "16 zero bytes in a file": (zero_block, 10),
    "file deleted": (delete, 8),
    "file added": (add, 6),
    "pixel": (change_pixel, 8),
    "label": (change_label, 8),
    "soft label": (change_soft, 8),
    "NaN in a soft label": (soft_nan, 4),
    "crop outside the image": (crop_outside, 4),
    "rows in another order": (swap_rows, 5),
    "row dropped": (drop_row, 5),
    "row doubled": (double_row, 4),
    "figure on the card": (card_figure, 8),
    "figure in eval.json": (report_figure, 4),
    "run in eval.json": (run_accuracy, 3),
    "digest in the manifest": (manifest_digest, 5),
}
"""150 corruptions that leave the manifest as it was, or spoil it."""

RECOMPUTED: dict[str, tuple[Spoil, int]] = {
    "pixel": (change_pixel, 4),
    "label": (change_label, 4),
    "soft label": (change_soft, 4),
    "row dropped": (drop_row, 3),
    "figure on the card": (card_figure, 5),
    "figure in eval.json": (report_figure, 4),
    "run in eval.json": (run_accuracy, 4),
    "cell of results.parquet": (results_cell, 3),
    "tile of the contact sheet": (sheet_tile, 2),
    "pixel of the plot": (plot_pixel, 2),
    "time in provenance.json": (provenance_time, 2),
}
"""Corruptions after which the manifest alone is recomputed to match."""

REMADE: dict[str, tuple[Spoil, int]] = {
    "NaN in a soft label": (soft_nan, 3),
    "crop outside the image": (crop_outside, 2),
    "label": (change_label_only, 2),
    "pixel": (change_pixel, 2),
    "soft label": (change_soft, 2),
    "evaluation": (rewrite_evaluation, 2),
}
"""Corruptions after which report, card, descriptions and manifest are all made anew."""

AFTERWARDS = dict.fromkeys(
    ("pixel", "label", "soft label", "row dropped"),
    r"^eval\.json: dataset\.manifest_sha256: \w{64}, the manifest says \w{64}",
)
"""How changed rows are named once the manifest agrees with them."""
