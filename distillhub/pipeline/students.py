"""`distillhub train`: a classifier from any set of images, with the labels that the set has."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field

from distillhub import __version__
from distillhub.data.specs import Digest
from distillhub.digests import fingerprint
from distillhub.errors import UsageError
from distillhub.evaluation import protocols
from distillhub.evaluation.feed import Space
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.runner import feed_of, images_seen
from distillhub.evaluation.training import fit
from distillhub.models import weights
from distillhub.models.classifier import Classifier
from distillhub.models.zoo import build
from distillhub.ops.progress import State
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, drive, pin_threads
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.run import device_name, pick_device
from distillhub.records.distilled import DistilledSet, load
from distillhub.records.report import Regime, loads
from distillhub.spec import Spec
from distillhub.units import derive_seed

Labels = Literal["auto", "hard", "soft"]
STEM = "model"
"""Of the files written: model.safetensors, model.json, training.json."""


class Normalization(NamedTuple):
    """Per channel, of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str


class TrainingRecord(Spec):
    """`training.json`: how the weights beside it came about."""

    dataset: str
    revision: str | None
    images: int
    labels: Regime
    views_per_image: int = Field(ge=1)
    protocol: Protocol
    seed: int
    steps: int
    images_seen: int
    normalization: str
    """Where mean and standard deviation are from."""
    weights_sha256: Digest
    wall_s: float
    device: str
    code_version: str


class Trained(NamedTuple):
    """A finished training."""

    classifier: Classifier
    record: TrainingRecord
    folder: Path
    opened: DistilledSet
    """What it was trained on."""


def train_student(
    word: str,
    out: Path,
    *,
    state: Path,
    reporter: Reporter,
    arch: str | None = None,
    protocol: str | None = None,
    labels: Labels = "auto",
    steps: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    split: str = "train",
) -> Trained:
    """Train a classifier and write `out`/model.safetensors, model.json and training.json.

    Args:
        word: Local folder or Hub id.
        out: Where the weights go; made where needed.
        state: Scratch folder for snapshots: the same call goes on after an interruption.
        reporter: Told how it goes.
        arch: None: the protocol's student.
        protocol: None: the one the set was scored with, else a `suitable` one.
        labels: `auto` takes the soft labels where there are any.
        steps: Optimizer steps instead of the protocol's own length.
        seed: Of weights, order and augmentation.
        revision: Of a Hub data set.
        split: To train on.

    Raises:
        DataError: If the set cannot be opened.
        UsageError: If labels or network do not fit the set.
        DivergedError: If the loss is not finite.
    """
    opened = load(word, revision=revision, split=split)
    if opened.num_classes < 2:
        raise UsageError(
            f"the set has {opened.num_classes} class; at least two are needed", where=word
        )
    regime = _regime(opened, labels, word)
    named = _protocol(opened, word, protocol, regime, steps)
    name = arch or named.students_for(opened.height, opened.width)[0]
    chosen = named.for_student(name)
    found = normalization(opened, word)
    pin_threads()
    device = pick_device()
    key = fingerprint(
        "train",
        identity(opened, word),
        name,
        chosen.sha256,
        regime,
        seed,
        found.mean,
        found.std,
        str(device),
    )
    stop, began = StopRequest(), time.monotonic()
    with (
        storage_errors(out),
        stop.watched(parents=False),
        WorkFolder(state / "work", "train", key[:32]).held(reporter) as work,
    ):
        size = chosen.resolution(opened.height, opened.width)
        space = Space(size, found.mean, found.std, device, chosen.test_side)
        student = _student(name, opened, space, seed)
        classes = opened.num_classes
        shown = opened.unpacked()  # of mosaics, what they are made of
        feed = feed_of(regime, chosen, shown, space, f"{name} on {word}", classes)

        def training(snapshot: State | None):  # type: ignore[no-untyped-def]
            yield from fit(
                student, feed, chosen, seed=seed, what=f"{name} on {word}", state=snapshot
            )

        label = f"train {name}"
        drive(
            training, label=label, checkpoint=work.checkpoint("model"), reporter=reporter, stop=stop
        )
        length = chosen.length(len(shown), classes)
        out.mkdir(parents=True, exist_ok=True)
        written = weights.save(student.cpu(), out, STEM, {"steps": length.steps})
        record = TrainingRecord(
            dataset=word if not Path(word).is_dir() else Path(word).resolve().name,
            revision=opened.revision,
            images=len(shown),
            labels=regime,
            views_per_image=feed.views,
            protocol=chosen,
            seed=seed,
            steps=length.steps,
            images_seen=images_seen(chosen, len(shown), classes),
            normalization=found.origin,
            weights_sha256=written.sha256,
            wall_s=round(work.elapsed() + time.monotonic() - began, 3),
            device=device_name(device),
            code_version=__version__,
        )
        write_text(out / "training.json", record.model_dump_json(indent=1) + "\n")
    return Trained(student, record, out, opened)


def suitable(opened: DistilledSet) -> str:
    """The protocol for a set that was never scored: by the size of its images and its labels."""
    if min(opened.height, opened.width) <= 64:
        return "lowres-1"
    return "soft-1" if opened.soft is not None else "hard-1"


def scored_with(folder: Path, regimes: Collection[Regime]) -> str | None:
    """The first protocol with such labels in the set's own report; None where there is none."""
    path = folder / "eval.json"
    if not path.is_file():
        return None
    headline = loads(path.read_bytes(), where=str(path)).headline
    used = {} if headline is None else headline.protocols
    return next((name for regime, name in used.items() if regime in regimes), None)


def normalization(opened: DistilledSet, word: str) -> Normalization:
    """That of the real data where the set's report tells it, else that of its own images."""
    path = Path(word) / "eval.json"
    if path.is_file():
        report = loads(path.read_bytes(), where=str(path))
        block, origin = report.preprocess, "of the real data, from eval.json"
        if report.imported is not None:
            origin = f"of the imported set ({report.imported.normalization}), from eval.json"
        return Normalization(block.mean, block.std, origin)
    total = torch.zeros(opened.channels, dtype=torch.float64)
    squares, pixels = total.clone(), 0
    for rows in torch.split(torch.arange(len(opened)), 256):
        images = opened.images(rows).double()  # [n, C, H, W]
        total += images.sum((0, 2, 3))
        squares += images.square().sum((0, 2, 3))
        pixels += images[:, 0].numel()
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=1e-6).sqrt()
    return Normalization(
        tuple(mean.tolist()), tuple(std.tolist()), "measured on the set's own images"
    )


def _regime(opened: DistilledSet, labels: Labels, word: str) -> Regime:
    if labels == "soft" and opened.soft is None:
        raise UsageError(
            "the set has no soft labels", where=word, mend="train with --labels hard, or auto"
        )
    return "hard" if labels == "hard" or opened.soft is None else "soft_stored"


def _protocol(
    opened: DistilledSet, word: str, name: str | None, regime: Regime, steps: int | None
) -> Protocol:
    try:
        chosen = protocols.get(name or scored_with(Path(word), [regime]) or suitable(opened))
    except ValueError as error:
        raise UsageError(
            str(error), where="--protocol", mend="`distillhub list protocols` shows them"
        ) from error
    if regime not in chosen.regimes:
        raise UsageError(
            f"protocol {chosen.name} trains with {', '.join(chosen.regimes)} labels, not {regime}",
            where="--protocol",
            mend="choose another protocol, or other --labels",
        )
    if steps is None:
        return chosen
    drop = None
    if chosen.drop_after is not None:  # at the same share of the way
        drop = max(1, round(steps * chosen.drop_after / (chosen.steps or chosen.epochs or 1)))
    return chosen.model_copy(
        update={
            "name": f"{chosen.name}, {steps} steps",
            "steps": steps,
            "epochs": None,
            "epochs_by_ipc": (),
            "min_steps": 0,
            "drop_after": drop,
        }
    )


def _student(name: str, opened: DistilledSet, space: Space, seed: int) -> Classifier:
    try:
        student = build(
            name,
            num_classes=opened.num_classes,
            channels=opened.channels,
            height=space.resolution[0],
            width=space.resolution[1],
            mean=space.mean,
            std=space.std,
            seed=derive_seed("evaluation", seed, "network"),
        )
    except ValueError as error:
        raise UsageError(
            str(error), where="--model", mend="`distillhub list models` shows all names"
        ) from error
    student.class_names = opened.class_names
    return student.to(space.device)


def identity(opened: DistilledSet, word: str) -> object:
    """What tells this set from another, without reading all of it."""
    if opened.revision is not None:
        return [word, opened.revision]
    folder = Path(word).resolve()
    stats = [
        (str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file()
    ]
    return [str(folder), [(name, s.st_size, s.st_mtime_ns) for name, s in stats]]
