"""Tiny data sets on disk for the tests of `data/`."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(
    shade: int, *, mode: str = "L", size: tuple[int, int] = (8, 8), kind: str = "PNG"
) -> bytes:
    """An encoded picture of one shade; `size` is width, height."""
    file = io.BytesIO()
    Image.new("L", size, shade).convert(mode).save(file, kind)
    return file.getvalue()


def noise(seed: int, *, size: tuple[int, int] = (8, 8)) -> bytes:
    """An encoded grey picture of noise."""
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | str | None],
    names: Sequence[str] | None,
    *,
    columns: tuple[str, str] = ("image", "label"),
    group: int = 4,
    extra: Mapping[str, pa.Array] | None = None,
) -> Path:
    """One Parquet file as `datasets` writes it."""
    image, label = columns
    features: dict[str, object] = {image: {"_type": "Image"}}
    if names is not None:
        features[label] = {"_type": "ClassLabel", "names": list(names)}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in images]
    table = pa.table({image: pa.array(rows, kind), label: pa.array(list(labels)), **(extra or {})})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(meta), path, row_group_size=group)
    return path


def hub_folder(root: Path, *, train: int = 12, test: int = 4) -> Path:
    """Two classes, `dark` and `light`, in Hub layout; images of noise, labels alternate."""
    for split, count in (("train", train), ("test", test)):
        images = [noise(seed + 1000 * (split == "test")) for seed in range(count)]
        labels = [seed % 2 for seed in range(count)]
        parquet(root / f"data/{split}-00000-of-00001.parquet", images, labels, ["dark", "light"])
    return root


def image_folder(root: Path, classes: Mapping[str, int], *, size: tuple[int, int] = (8, 8)) -> Path:
    """`root/<class>/<number>.png`."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number:03d}.png").write_bytes(noise(number, size=size))
    return root
