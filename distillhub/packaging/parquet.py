"""A distilled set as Parquet files that `load_dataset` opens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import Field, JsonValue
from torch import Tensor

from distillhub.packaging.digests import digests, parquet_files
from distillhub.records.columns import (
    GEOMETRY,
    INLINE_ENTRIES,
    KEYS,
    SOFT,
    VIEWS_CONFIG,
    column_bytes,
    entries_of,
    entry_table,
    inline_table,
    rows_per_group,
    write_parquet,
)
from distillhub.records.manifest import FileEntry, RowDigest, entry_of
from distillhub.records.references import REFERENCE, Reference, reference_columns
from distillhub.records.soft_labels import SoftLabels, Views
from distillhub.spec import Spec

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

SHARD_BYTES = 500_000_000
"""A data file holds at most so many uncompressed bytes."""
META_SCHEMA = 1
"""Version of the `distillhub:` block of the front matter."""


class Storage(NamedTuple):
    """Compressed bytes of a set's columns in its Parquet files."""

    images: int
    labels: int
    """Hard and soft labels."""
    aux: int
    """Views: all that is needed beside the labels to train on them; names of missing images."""
    columns: dict[str, int]


class PackageRecord(Spec):
    """`package.json`: what was written."""

    layout: Literal["distillhub.package/1"] = "distillhub.package/1"
    rows: int
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    """Images per class."""
    codec: Literal["float16", "uint8"] | None
    """Of the soft labels."""
    views: int = Field(ge=0)
    """Labelled entries per image; 0 without soft labels."""
    kept: int = Field(ge=0)
    """Classes stored per soft label."""
    bytes_images: int
    bytes_labels: int
    bytes_aux: int
    column_bytes: dict[str, int]
    column_sha256: dict[str, str]
    row_digests: tuple[RowDigest, ...]
    files: dict[str, FileEntry]
    """The Parquet files, by path relative to the folder."""
    features: dict[str, str]
    """Column name -> Arrow type, all tables together."""
    front_matter: dict[str, object]
    """`configs`, `dataset_info` and `distillhub` of the README."""
    record: dict[str, JsonValue] = Field(default_factory=dict)
    """What the method tells of the set."""


def write(
    folder: Path,
    images: Sequence[bytes | None],
    labels: Tensor,
    class_names: Sequence[str],
    soft: SoftLabels | None,
    views: Views | None,
    meta: Mapping[str, object],
    *,
    named: Sequence[Reference | None] | None = None,
    told: Mapping[str, JsonValue] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> PackageRecord:
    """Write a data set: `data/train-*.parquet`, a short README.md and package.json.

    Equal arguments give equal bytes. More than 64 entries per image go to `views/train-*.parquet`,
    the configuration `views`.

    Args:
        folder: Holds no Parquet files yet; made if it is missing.
        images: N image files; None where an image is only named.
        labels: [N] int64.
        class_names: In label order.
        soft: Soft labels of the N images.
        views: Their views; None: the labels are of whole images.
        meta: What else the `distillhub:` block of the front matter says; JSON values.
        named: Of the N images those that are named, with pixels or without; None: there are none.
        told: What the method tells of the set.
        shard_bytes: Most uncompressed bytes per data file.

    Raises:
        ValueError: If the lengths differ, an image is missing that is not named, or the folder
            holds a set already.
    """
    import datasets

    lengths = {len(images), len(labels), *(len(part) for part in (soft, views) if part is not None)}
    counts = {part.entries for part in (soft, views) if part is not None}
    if len(lengths) != 1 or len(counts) > 1:
        raise ValueError(
            f"images, labels, soft labels and views have {sorted(lengths)} rows "
            f"and {sorted(counts)} entries"
        )
    if any(parquet_files(folder)):
        raise ValueError(
            f"{folder} holds Parquet files already; a set is written to an empty folder"
        )
    lost = [row for row, file in enumerate(images) if file is None and not (named and named[row])]
    if lost:
        raise ValueError(f"row {lost[0]} has neither an image nor the name of one")
    parts = _parts(images, labels, soft, views, named)
    files: dict[str, FileEntry] = {}
    found: dict[str, int] = {}
    types: dict[str, str] = {}
    infos: dict[str, datasets.DatasetInfo] = {}
    for config, part in parts.items():
        place = "data" if config == "default" else config
        (folder / place).mkdir(parents=True, exist_ok=True)
        features = _features(part, class_names)
        shards = list(part.shards(shard_bytes))
        written = 0
        for number, (start, stop) in enumerate(shards):
            name = f"{place}/train-{number:05d}-of-{len(shards):05d}.parquet"
            table = part.table(start, stop, features.arrow_schema)
            metadata = write_parquet(table, folder / name, part.group_rows)
            for column, count in column_bytes(metadata).items():
                found[column] = found.get(column, 0) + count
            files[name] = entry_of(folder / name)
            written += files[name].bytes
        types |= {field.name: str(field.type) for field in features.arrow_schema}
        infos[config] = _info(features, part, written)

    front_matter = _front_matter(infos, _meta(meta, soft, views))
    content = digests(folder)
    record = PackageRecord(
        rows=len(images),
        class_names=tuple(class_names),
        counts=tuple(np.bincount(labels.numpy(), minlength=len(class_names)).tolist()),
        codec=None if soft is None else soft.codec,
        views=0 if soft is None else soft.entries,
        kept=0 if soft is None else soft.kept,
        bytes_images=_share(found).images,
        bytes_labels=_share(found).labels,
        bytes_aux=_share(found).aux,
        column_bytes=found,
        column_sha256=content.columns,
        row_digests=content.rows,
        files=files,
        features=types,
        front_matter=front_matter,
        record=dict(told or {}),
    )
    _write_readme(folder, front_matter)
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / "package.json").write_text(text + "\n", encoding="utf-8")
    return record


def storage(folder: Path) -> Storage:
    """Compressed bytes per kind of column, from the footers of the Parquet files."""
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    for path in parquet_files(folder):
        for name, count in column_bytes(pq.read_metadata(path)).items():
            found[name] = found.get(name, 0) + count
    return _share(found)


def _share(columns: Mapping[str, int]) -> Storage:
    labels = sum(count for name, count in columns.items() if name == "label" or name in SOFT)
    beside = (*GEOMETRY, *KEYS, *REFERENCE)
    aux = sum(count for name, count in columns.items() if name in beside)
    return Storage(columns.get("image", 0), labels, aux, dict(columns))


class _Part(NamedTuple):
    """The content of one configuration; images are turned into a column shard by shard."""

    images: Sequence[bytes | None] | None
    numbers: "pa.Table"
    """All columns but `image`."""

    @property
    def list_bytes(self) -> int:
        """Uncompressed bytes of the columns of labels and views."""
        names = (name for name in self.numbers.column_names if name != "label")
        return sum(self.numbers[name].nbytes for name in names)

    @property
    def image_bytes(self) -> int:
        """Bytes of the image files."""
        return sum(len(file or b"") for file in self.images or ())

    @property
    def group_rows(self) -> int:
        """Rows of a row group."""
        nbytes = self.list_bytes + self.image_bytes
        return rows_per_group(self.numbers.num_rows, nbytes, apart=self.images is None)

    def shards(self, most: int) -> Iterator[tuple[int, int]]:
        """First and end row of every file, of at most `most` bytes unless one row takes more."""
        rows = self.numbers.num_rows
        per_row = self.list_bytes / max(rows, 1)
        start, held = 0, 0.0
        for row in range(rows):
            size = per_row + (len(self.images[row] or b"") if self.images is not None else 0)
            if held and held + size > most:
                yield start, row
                start, held = row, 0.0
            held += size
        yield start, rows

    def table(self, start: int, stop: int, schema: "pa.Schema") -> "pa.Table":
        """Some rows, typed as `datasets` wants them."""
        import pyarrow as pa

        table = self.numbers.slice(start, stop - start)
        if self.images is not None:
            files = pa.array(list(self.images[start:stop]), pa.binary())
            paths = pa.nulls(stop - start, pa.string())
            image = pa.StructArray.from_arrays(
                [files, paths], ["bytes", "path"], mask=files.is_null()
            )
            table = table.add_column(0, "image", image)
        return table.cast(schema).replace_schema_metadata(schema.metadata)


def _parts(
    images: Sequence[bytes | None],
    labels: Tensor,
    soft: SoftLabels | None,
    views: Views | None,
    named: Sequence[Reference | None] | None,
) -> dict[str, _Part]:
    """What goes to `data/`, and to `views/` where there are too many of them for one row."""
    import pyarrow as pa

    names = {} if named is None else reference_columns(named)
    numbers = pa.table({"label": pa.array(labels.numpy()), **names})
    if entries_of(soft, views) > INLINE_ENTRIES:
        return {
            "default": _Part(images, numbers),
            VIEWS_CONFIG: _Part(None, entry_table(soft, views)),
        }
    beside = inline_table(soft, views)
    for name in beside.column_names:
        numbers = numbers.append_column(name, beside[name])
    return {"default": _Part(images, numbers)}


def _features(part: _Part, class_names: Sequence[str]) -> "datasets.Features":
    import datasets
    import pyarrow as pa

    found: dict[str, object] = {} if part.images is None else {"image": datasets.Image()}
    for field in part.numbers.schema:
        if field.name == "label":
            found["label"] = datasets.ClassLabel(names=list(class_names))
        elif pa.types.is_fixed_size_list(field.type):
            kind = (
                "float16" if field.type.value_type == pa.float16() else str(field.type.value_type)
            )
            found[field.name] = datasets.List(datasets.Value(kind), length=field.type.list_size)
        else:
            found[field.name] = datasets.Value(str(field.type))
    return datasets.Features(found)


def _info(features: "datasets.Features", part: _Part, nbytes: int) -> "datasets.DatasetInfo":
    import datasets

    size = part.numbers.nbytes + part.image_bytes
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo("train", num_bytes=size, num_examples=part.numbers.num_rows))
    return datasets.DatasetInfo(
        features=features, splits=splits, download_size=nbytes, dataset_size=size
    )


def _meta(
    meta: Mapping[str, object], soft: SoftLabels | None, views: Views | None
) -> dict[str, object]:
    """The `distillhub:` block: what the pipeline says, and what readers need to read the labels."""
    block: dict[str, object] = {"schema": META_SCHEMA, **meta}
    if soft is not None:
        block["labels"] = {
            "values": "logits",
            "codec": soft.codec,
            "kept": soft.kept,
            "classes": soft.num_classes,
        }
    if entries_of(soft, views):
        described: dict[str, object] = {"count": entries_of(soft, views)}
        if views is not None:
            described["count"] = views.entries // views.formation**2
            described |= {"size": list(views.size), "formation": views.formation}
        if entries_of(soft, views) > INLINE_ENTRIES:
            described["config"] = VIEWS_CONFIG
        block["views"] = described
    return block


def _front_matter(
    infos: "Mapping[str, datasets.DatasetInfo]", meta: dict[str, object]
) -> dict[str, object]:
    import datasets.info
    import datasets.utils.metadata
    from huggingface_hub import DatasetCardData

    card = DatasetCardData()
    datasets.info.DatasetInfosDict(infos).to_dataset_card_data(card)
    configs: dict[str, dict[str, object]] = {}
    for config in infos:
        place = "data" if config == "default" else config
        files = [{"split": "train", "path": f"{place}/train-*.parquet"}]
        first = {"default": True} if config == "default" else {}
        configs[config] = {"data_files": files, **first}
    datasets.utils.metadata.MetadataConfigs(configs).to_dataset_card_data(card)
    plain: dict[str, object] = {name: card[name] for name in ("configs", "dataset_info")}
    copied: dict[str, object] = json.loads(json.dumps({**plain, "distillhub": meta}))
    return copied


def _write_readme(folder: Path, front_matter: Mapping[str, object]) -> None:
    from huggingface_hub.repocard import metadata_save

    readme = folder / "README.md"
    readme.unlink(missing_ok=True)
    metadata_save(readme, dict(front_matter))
