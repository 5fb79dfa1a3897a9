"""Finished runs, kept in the project: equal trainings of several recipes are made once.

A run is determined by what it was trained and tested on and how; the key says all of that, so that
a kept run is the record that a new training would give, its seconds included. The random twins of
a sweep are trained once for all methods in this way.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from distillhub.data.specs import SourceSpec
from distillhub.digests import fingerprint
from distillhub.evaluation.arms import protocol_of
from distillhub.packaging.parquet import PackageRecord
from distillhub.pipeline.checkpoint import threads
from distillhub.pipeline.files import write_json
from distillhub.pipeline.making import training_key
from distillhub.pipeline.run import StageRun, device_name
from distillhub.pipeline.store import locked
from distillhub.pipeline.versions import CODE
from distillhub.records.columns import GEOMETRY, KEYS, SOFT
from distillhub.records.report import PlannedRun, Run

FOLDER = "runs"
"""Below the resources of a project."""


def images_key(planned: PlannedRun, dataset: SourceSpec, package: Path | None) -> object:
    """What the training images and stored labels of a run are, by content.

    Args:
        planned: Its regime says which columns count.
        dataset: Pinned.
        package: Folder of the packaged set; None: the real training images.
    """
    if package is None:
        return training_key(dataset)
    record = PackageRecord.model_validate_json((package / "package.json").read_bytes())
    columns, classes = record.column_sha256, record.class_names
    if planned.regime == "soft_stored":
        return {"columns": columns, "classes": classes, "labels": _label_format(record)}
    beside = (*SOFT, *GEOMETRY, *KEYS)
    shown = {name: digest for name, digest in columns.items() if name not in beside}
    return {"columns": shown, "classes": classes}


def _label_format(record: PackageRecord) -> object:
    """What readers of the stored labels go by."""
    block = record.front_matter.get("distillhub")
    return [block.get(name) for name in ("labels", "views")] if isinstance(block, dict) else None


def run_key(
    planned: PlannedRun,
    dataset: SourceSpec,
    package: Path | None,
    *,
    labellers: Sequence[str],
    device: torch.device,
) -> str:
    """All that the result of a run depends on, as a digest.

    Args:
        planned: Student, seed, arm.
        dataset: Pinned; says what it is tested on.
        package: Folder of the packaged set; None: the real training images.
        labellers: sha256 of the weights of each network that labels batches online; they count
            where batches are.
        device: Where it trains.
    """
    pin = dataset.pinned
    tested = {
        "test": None if pin.test is None else pin.test.sha256,
        "split": dataset.test,
        "shape": (pin.channels, pin.height, pin.width),
        "resize": dataset.resize,
        "normalize": (pin.mean, pin.std),
        "classes": pin.class_names,
    }
    return fingerprint(
        images_key(planned, dataset, package),
        tested,
        planned.model_dump(mode="json"),
        protocol_of(planned).sha256,
        _identity(labellers) if planned.regime == "soft_online" else None,
        device_name(device),
        threads(),
        torch.__version__,
        CODE["evaluate"],
    )


def _identity(labellers: Sequence[str]) -> object:
    """Of one network, its digest alone, as before there were several."""
    return labellers[0] if len(labellers) == 1 else list(labellers)


def remembered(run: StageRun, planned: PlannedRun, key: str, make: Callable[[], Run]) -> Run:
    """The kept run of a key, or the one that `make` gives, which is then kept.

    One process at a time makes it; the others wait and read it.
    """
    path = run.project.state / "resources" / FOLDER / f"{key[:32]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    waits = partial(run.reporter.note, f"{planned.id}: another build trains it")
    with locked(path.with_suffix(".lock"), waits):
        if not path.exists():
            write_json(path, make().model_dump(mode="json"))
            run.work.checkpoint(planned.id).clear()
    os.utime(path)  # `distillhub clean` goes by the last use
    return Run.model_validate_json(path.read_bytes())
