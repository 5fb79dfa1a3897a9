"""Checks of rows, columns, labels and images; part of `packaging.verify`."""

import io
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distillhub.errors import Fault
from distillhub.packaging import labels as label_checks
from distillhub.packaging import stored
from distillhub.packaging.digests import Digests, digests, parquet_files
from distillhub.records.card import CardBlock
from distillhub.records.manifest import Manifest
from distillhub.records.report import EvalReport

if TYPE_CHECKING:
    import pyarrow as pa

REBUILD = "fetch or build the data set again"
NAMED = 10
"""Rows that are named one by one; of more, their number is told."""
TOLERANCE = 1e-9
"""Relative; sums of many numbers differ in the last bits between machines."""
IMAGE_BATCH = 256
_ARROW = {"halffloat": "float16", "float": "float32", "double": "float64"}


def rows(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    """Digests of all rows and columns against the manifest's."""
    try:
        found = digests(folder)
    except Exception as error:  # noqa: BLE001 - see verify
        named = list(_unreadable(folder))
        yield from named or [Fault(f"rows cannot be read: {_reason(error)}", "data", REBUILD)]
        return
    columns = _different_columns(found, manifest)
    for name in columns:
        seen, recorded = found.columns.get(name), manifest.columns.get(name)
        yield Fault(
            f"sha256 of the column is {seen}, recorded is {recorded}",
            f"data: column {name}",
            REBUILD,
        )
    places = list(_places(folder))
    suspects = f": column {', '.join(columns)}" if columns else ""
    if len(found.rows) == len(manifest.rows):
        changed = [
            r for r, (a, b) in enumerate(zip(found.rows, manifest.rows, strict=True)) if a != b
        ]
        for row in changed[:NAMED]:
            what = f"digest of the row is {found.rows[row]}, recorded is {manifest.rows[row]}"
            yield Fault(what, f"{places[row]}{suspects}", REBUILD)
        yield from _more(len(changed), "rows differ", "data")
        return
    yield Fault(f"{len(found.rows)} rows, recorded are {len(manifest.rows)}", "data", REBUILD)
    lost = Counter(manifest.rows) - Counter(found.rows)
    extra = Counter(found.rows) - Counter(manifest.rows)
    for row in [r for r, digest in enumerate(manifest.rows) if lost[digest]][:NAMED]:
        yield Fault(
            f"recorded row {row} with digest {manifest.rows[row]} is missing", "data", REBUILD
        )
    for row in [r for r, digest in enumerate(found.rows) if extra[digest]][:NAMED]:
        yield Fault(f"digest {found.rows[row]} is not recorded", places[row], REBUILD)


def images(folder: Path, report: EvalReport | None) -> Iterator[Fault]:
    """Every image decodes, at the recorded size; only rows that name one may be without."""
    size = report.dataset.resolution if report else None
    bad, places = 0, iter(stored.named(folder))
    for path, first, batch in _image_batches(folder):
        for row, file in enumerate(batch, first):
            named = next(places) is not None
            what = "" if file is None and named else _wrong_picture(file or b"", size)
            if what:
                bad += 1
                if bad <= NAMED:
                    yield Fault(what, f"{_name(path, folder)}: row {row}: column image", REBUILD)
    yield from _more(bad, "images are faulty", "data")


def _wrong_picture(file: bytes, size: tuple[int, int] | None) -> str:
    """What is wrong with an image, or nothing; one of another size is not decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file)) as picture:
                if size is not None and (picture.height, picture.width) != size:
                    return f"{picture.height} x {picture.width} pixels, recorded are {size}"
                picture.load()
    except Exception as error:  # noqa: BLE001 - decoders fail in many ways
        return f"cannot be decoded: {_reason(error)}"
    return ""


def columns(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """Names, types, class names and row counts of the Parquet files against the front matter's."""
    import pyarrow.parquet as pq

    block = report.card
    if block is None:
        yield Fault("no card block", "eval.json: card", REBUILD)
        return
    for config, place in _tables(block):
        info = _info(block, config)
        listed = info.get("features")
        count = 0
        for path in parquet_files(folder, place):
            schema = pq.read_schema(path)
            count += pq.read_metadata(path).num_rows
            kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            inside = _listed(kept.get("info", {}).get("features"))
            if inside != listed:
                what = f"columns are {_short(inside)}, the card says {_short(listed)}"
                yield Fault(what, _name(path, folder), REBUILD)
            stored_as = [_feature(field.name, field.type) for field in schema]
            for feature, typed in zip(inside, stored_as, strict=False):
                if "class_label" not in str(feature) and feature != typed:
                    what = f"column is stored as {typed}, its description is {feature}"
                    yield Fault(what, f"{_name(path, folder)}: column {typed['name']}", REBUILD)
        splits = info.get("splits")
        said = splits[0].get("num_examples") if isinstance(splits, list) and splits else None
        if count != said:
            yield Fault(f"{count} rows, the card says {said}", place, REBUILD)


def labels(folder: Path, report: EvalReport) -> Iterator[Fault]:
    """Counts per class, possible labels and views, and the recorded label figures."""
    read = stored.read(folder)
    data = report.dataset
    where = "data: column label"
    places = list(_places(folder))
    for row in np.flatnonzero((read.labels < 0) | (read.labels >= data.classes))[:NAMED]:
        what = f"class {read.labels[row]} of {data.classes}"
        yield Fault(what, f"{places[row]}: column label", REBUILD)
    inside = read.labels[(read.labels >= 0) & (read.labels < data.classes)]
    counts = np.bincount(inside, minlength=data.classes)
    meant = np.full(data.classes, data.ipc)
    if report.imported is not None and len(report.imported.counts) == data.classes:
        meant = np.array(report.imported.counts)
    if data.counts is not None and len(data.counts) == data.classes:
        meant = np.array(data.counts)
    for label in np.flatnonzero(counts != meant)[:NAMED]:
        name = report.preprocess.label_names[label : label + 1]
        what = f"class {label} {' '.join(name)} has {counts[label]} images, ipc is {meant[label]}"
        yield Fault(what, where, REBUILD)
    if len(report.preprocess.label_names) != data.classes:
        what = f"{len(report.preprocess.label_names)} names for {data.classes} classes"
        yield Fault(what, "eval.json: preprocess.label_names", REBUILD)
    if len(read.labels) != data.images:
        yield Fault(f"{len(read.labels)} rows, eval.json says {data.images}", "data", REBUILD)
    if ("soft_val" in read.columns) != (report.labels.dtype is not None):
        what = f"soft labels: {'soft_val' in read.columns}; eval.json says {report.labels.dtype}"
        yield Fault(what, "eval.json: labels.dtype", REBUILD)
    if "soft_val" not in read.columns:
        return
    shape = label_checks.shape_of(read.columns)
    recorded = (report.labels.views_per_image, report.labels.classes_kept)
    if tuple(shape) != recorded:
        what = f"{shape.views} views of {shape.kept} classes, eval.json says {recorded}"
        yield Fault(what, "data: column soft_val", REBUILD)
    block = report.card.data if report.card else {}
    for finding in label_checks.findings(
        read.columns,
        num_classes=data.classes,
        image=data.resolution,
        view=label_checks.view_size(block, data.resolution),
    ):
        for row in finding.rows[:NAMED]:
            yield Fault(finding.what, f"{places[row]}: column {finding.column}", REBUILD)
        yield from _more(len(finding.rows), finding.what, f"data: column {finding.column}")
    yield from _label_figures(read, report)


def _label_figures(read: stored.Stored, report: EvalReport) -> Iterator[Fault]:
    agreement = label_checks.agreement(read.columns, read.labels)
    if report.labels.teacher_agreement != agreement:
        yield Fault(
            f"the highest logit is the class in {agreement:.6f} of the views, "
            f"recorded is {report.labels.teacher_agreement}",
            "data: column soft_val, label",
            REBUILD,
        )
    seen = label_checks.statistics(read.columns)
    for name in sorted(seen.keys() | report.labels.statistics.keys()):
        found, said = seen.get(name), report.labels.statistics.get(name)
        if found is None or said is None or abs(found - said) > TOLERANCE * max(1, abs(found)):
            what = f"{name} of the stored labels is {found}, recorded is {said}"
            yield Fault(what, f"data: column {name.removeprefix('mean_')}", REBUILD)


def _unreadable(folder: Path) -> Iterator[Fault]:
    """Columns of row groups that cannot be decoded."""
    import pyarrow.parquet as pq

    paths = list(parquet_files(folder))
    if not paths:
        yield Fault("holds no Parquet file", "data", REBUILD)
    for path in paths:
        name = _name(path, folder)
        try:
            with pq.ParquetFile(path) as file:
                first = 0
                for group in range(file.num_row_groups):
                    last = first + file.metadata.row_group(group).num_rows - 1
                    for column in file.schema_arrow.names:
                        try:
                            file.read_row_group(group, columns=[column]).validate(full=True)
                        except Exception as error:  # noqa: BLE001 - see verify
                            what = f"cannot be read: {_reason(error)}"
                            where = f"{name}: rows {first} to {last}: column {column}"
                            yield Fault(what, where, REBUILD)
                    first = last + 1
        except Exception as error:  # noqa: BLE001 - see verify
            yield Fault(f"is no readable Parquet file: {_reason(error)}", name, REBUILD)


def _different_columns(found: Digests, manifest: Manifest) -> list[str]:
    names = list(dict.fromkeys([*manifest.columns, *found.columns]))
    return [name for name in names if found.columns.get(name) != manifest.columns.get(name)]


def _places(folder: Path) -> Iterator[str]:
    """`data/train-....parquet: row 7` for every image row."""
    import pyarrow.parquet as pq

    for path in parquet_files(folder, "data"):
        name = _name(path, folder)
        for row in range(pq.read_metadata(path).num_rows):
            yield f"{name}: row {row}"


def _image_batches(folder: Path) -> Iterator[tuple[Path, int, Sequence[bytes | None]]]:
    import pyarrow.parquet as pq

    for path in parquet_files(folder, "data"):
        with pq.ParquetFile(path) as file:
            first = 0
            for batch in file.iter_batches(IMAGE_BATCH, columns=["image"]):
                files = [cell["bytes"] if cell else None for cell in batch["image"].to_pylist()]
                yield path, first, files
                first += len(files)


def _tables(block: CardBlock) -> Iterator[tuple[str, str]]:
    """Configuration and folder of every table of rows."""
    infos = block.data.get("dataset_info")
    for info in infos if isinstance(infos, list) else [infos]:
        config = info.get("config_name", "default") if isinstance(info, dict) else "default"
        yield str(config), "data" if config == "default" else str(config)


def _info(block: CardBlock, config: str) -> dict[str, object]:
    infos = block.data.get("dataset_info")
    for info in infos if isinstance(infos, list) else [infos]:
        if isinstance(info, dict) and info.get("config_name", "default") == config:
            return dict(info)
    return {}


def _listed(features: object) -> list[dict[str, object]]:
    """Features as `datasets` keeps them in Parquet files, in the form of front matter."""
    found: list[dict[str, object]] = []
    for name, kind in features.items() if isinstance(features, dict) else ():
        match kind:
            case {"_type": "Image"}:
                found.append({"name": name, "dtype": "image"})
            case {"_type": "ClassLabel", "names": [*names]}:
                numbered = {str(number): each for number, each in enumerate(names)}
                found.append({"name": name, "dtype": {"class_label": {"names": numbered}}})
            case {"_type": "List", "length": length, "feature": {"dtype": dtype}}:
                found.append({"name": name, "list": dtype, "length": length})
            case _:
                dtype = kind.get("dtype") if isinstance(kind, dict) else None
                found.append({"name": name, "dtype": dtype})
    return found


def _feature(name: str, kind: "pa.DataType") -> dict[str, object]:
    """An Arrow type in the form of front matter."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"name": name, "dtype": "image"}
    if pa.types.is_fixed_size_list(kind):
        length = kind.list_size
        return {
            "name": name,
            "list": _ARROW.get(str(kind.value_type), str(kind.value_type)),
            "length": length,
        }
    return {"name": name, "dtype": _ARROW.get(str(kind), str(kind))}


def _more(count: int, what: str, where: str) -> Iterator[Fault]:
    if count > NAMED:
        yield Fault(f"{count} in all: {what}", where, REBUILD)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 300 else text[:300] + "..."


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
