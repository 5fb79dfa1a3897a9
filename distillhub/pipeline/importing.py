"""`distillhub import`: sets that others made become artifacts whose card says what is unknown."""

import json
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from distillhub import __version__
from distillhub.digests import digest_of
from distillhub.errors import UsageError
from distillhub.packaging import parquet
from distillhub.packaging.card import IMPORTED, CardInputs, build_card
from distillhub.packaging.provenance import BuildFacts, Dependency
from distillhub.packaging.rendering import UNKNOWN
from distillhub.packaging.specs import CardSpec
from distillhub.pipeline.checkpoint import threads
from distillhub.pipeline.files import replaced_folder, storage_errors
from distillhub.pipeline.judging import commit
from distillhub.pipeline.run import versions
from distillhub.records.images import EncodedImages
from distillhub.records.imported import ImportBlock
from distillhub.records.importing import Foreign, Wishes, read_foreign
from distillhub.records.manifest import Manifest
from distillhub.records.report import (
    DatasetBlock,
    EnvironmentBlock,
    EvalReport,
    LabelsBlock,
    MethodBlock,
    PreprocessBlock,
    PrivacyBlock,
    SourceBlock,
    StorageBlock,
)

STEM = "import"
SCHEMA = "distillhub.import/1"
BLOCK = 256
_ODD = re.compile(r"[^\w.@:/+=, -]")


@dataclass(frozen=True)
class Claims:
    """What the person who imports says of the set; nothing of it is checked."""

    card: CardSpec
    """License, authors, notes; the license `unknown` where nobody said."""
    name: str | None = None
    """None: the name of the file or folder."""
    version: str = "1.0.0"
    method: str | None = None
    source: str | None = None
    """Real images that it was made from: a Hub id, say."""
    real_pixels: bool | None = None
    """Whether its images are copies of real ones."""


def import_set(source: str, out: Path, wishes: Wishes, claims: Claims) -> Manifest:
    """Read a set of others and write it to a folder like a build's: data, card, manifest.

    Args:
        source: Image folder, `.pt` or `.npz` file, folder in Hub layout, or Hub id.
        out: The folder; it must not exist, or hold an imported set, which is replaced.
        wishes: How to read it.
        claims: What is known of it.

    Raises:
        UsageError: If the arguments do not fit together, or `out` holds something else.
        DataError: If the set cannot be read.
        StorageError: If the folder cannot be written.
    """
    _check_target(out)
    started = datetime.now(UTC).replace(microsecond=0)
    foreign = read_foreign(source, wishes)
    name = plain_name(claims.name or Path(foreign.origin.partition("@")[0]).stem)
    mean, std, given = _normalization(foreign, wishes)
    imported = ImportBlock(
        kind=foreign.kind,
        origin=plain_name(foreign.origin),
        inputs={plain_name(key): value for key, value in foreign.inputs.items()},
        assumed=foreign.assumed,
        unknown=_unknown(foreign, claims),
        counts=foreign.counts,
        normalization="given" if given else "own images",
    )
    text = _record(name, imported, wishes, claims)
    with storage_errors(out), replaced_folder(out) as fresh:
        package = fresh / ".package"
        meta = {
            "name": name,
            "version": claims.version,
            "method": plain_name(claims.method or UNKNOWN),
            "imported": True,
            "ipc": max(foreign.counts),
            "mean": list(mean),
            "std": list(std),
        }
        package.mkdir()
        parquet.write(
            package,
            foreign.files,
            foreign.labels,
            foreign.class_names,
            foreign.soft,
            foreign.views,
            meta,
        )
        finished = fresh / ".dataset"
        finished.mkdir()
        manifest = build_card(
            CardInputs(
                package=package,
                report=_report(foreign, name, mean, std, imported, claims),
                stem=STEM,
                recipe="",
                resolved=text,
                card=claims.card.model_copy(
                    update={"pretty_name": claims.card.pretty_name or name}
                ),
                publish=None,
                papers=(),
                weights={},
                compute={},
                facts=import_facts(started),
                dependencies=tuple(
                    Dependency(uri=f"import:{key}", sha256=value)
                    for key, value in imported.inputs.items()
                ),
            ),
            finished,
        )
        shutil.rmtree(package)
        for path in finished.iterdir():
            path.rename(fresh / path.name)
        finished.rmdir()
    return manifest


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError("is a file", where=str(out), mend="name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / IMPORTED).is_file():
        raise UsageError(
            "the folder holds something else than an imported set",
            where=str(out),
            mend="name an empty or new folder with --out",
        )


def _report(
    foreign: Foreign,
    name: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    imported: ImportBlock,
    claims: Claims,
) -> EvalReport:
    channels, height, width = foreign.size
    share = None if claims.real_pixels is None else float(claims.real_pixels)
    return EvalReport(
        dataset=DatasetBlock(
            name=name,
            version=claims.version,
            manifest_sha256=None,
            recipe_sha256=digest_of(imported.model_dump(mode="json")),
            ipc=max(foreign.counts),
            classes=len(foreign.class_names),
            images=len(foreign.files),
            resolution=(height, width),
        ),
        source=SourceBlock(
            id=plain_name(claims.source or UNKNOWN),
            revision=None,
            split_hashes={},
            test_hash=None,
            class_order_sha256=digest_of(list(foreign.class_names)),
        ),
        method=MethodBlock(
            name=plain_name(claims.method or UNKNOWN), version=None, real_pixels=claims.real_pixels
        ),
        preprocess=PreprocessBlock(
            mean=mean,
            std=std,
            channel_order="grey" if channels == 1 else "RGB",
            label_names=foreign.class_names,
        ),
        labels=LabelsBlock(regime="hard" if foreign.soft is None else "soft_stored"),
        protocols={},
        planned=(),
        runs=(),
        comparisons=(),
        storage=StorageBlock(
            bytes_images=0, bytes_labels=0, bytes_aux=0, bytes_total=0, label_image_ratio=0
        ),
        privacy=PrivacyBlock(real_pixel_share=share),
        environment=environment_block(),
        imported=imported,
    )


def _normalization(
    foreign: Foreign, wishes: Wishes
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Mean and deviation per channel, and whether they were given rather than measured."""
    if wishes.mean:
        return wishes.mean, wishes.std, True
    images = EncodedImages.of(foreign.files, where=foreign.origin)
    total = torch.zeros(foreign.size[0], dtype=torch.float64)
    squares, pixels = total.clone(), 0
    for start in range(0, len(foreign.files), BLOCK):
        block = images.pixels(range(start, min(start + BLOCK, len(foreign.files)))).double() / 255
        total += block.sum((0, 2, 3))
        squares += block.square().sum((0, 2, 3))
        pixels += block[:, 0].numel()
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist()), False


def _unknown(foreign: Foreign, claims: Claims) -> tuple[str, ...]:
    """What a set that was built here would say."""
    missing = {
        "the method": claims.method is None,
        "the images that it was made from": claims.source is None,
        "its license": claims.card.license == UNKNOWN,
        "the license of those images": claims.card.source_license is None,
        "whether its images are copies of real ones": claims.real_pixels is None,
        "the seeds": True,
        "the settings of the method": True,
        "the networks that made its labels": foreign.soft is not None,
        "what it cost": True,
    }
    return tuple(what for what, is_missing in missing.items() if is_missing)


def _record(name: str, imported: ImportBlock, wishes: Wishes, claims: Claims) -> str:
    """The text of `recipe/import.json`."""
    given: Mapping[str, object] = {
        "kind": wishes.kind,
        "classes": list(wishes.classes),
        "mean": list(wishes.mean),
        "std": list(wishes.std),
        "entry": wishes.entry,
        "values": wishes.values,
        "order": wishes.order,
        "view_size": wishes.view_size,
        "split": wishes.split,
    }
    content = {
        "schema": SCHEMA,
        "name": name,
        "distillhub": __version__,
        "imported": imported.model_dump(mode="json"),
        "options": given,
        "claims": {
            "method": claims.method,
            "source": claims.source,
            "real_pixels": claims.real_pixels,
            "card": claims.card.model_dump(mode="json"),
        },
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def environment_block() -> EnvironmentBlock:
    """The software that runs now."""
    return EnvironmentBlock(
        python=platform.python_version(),
        torch=torch.__version__,
        os=platform.system(),
        deterministic=not torch.cuda.is_available(),
        threads=threads(),
    )


def import_facts(started: datetime) -> BuildFacts:
    """When and on what a set was imported or carded anew."""
    return BuildFacts(
        started=started,
        finished=datetime.now(UTC).replace(microsecond=0),
        versions=dict(versions()),
        machine={
            "os": platform.system(),
            "architecture": platform.machine(),
            "threads": threads(),
        },
        code=commit(),
    )


def plain_name(name: str) -> str:
    """A name that no Markdown or HTML reads as anything else."""
    return _ODD.sub("_", name).strip(". ") or UNKNOWN
