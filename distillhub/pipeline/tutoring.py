"""Students that a method trains on the set of another build; each is kept for all recipes."""

import os
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.digests import fingerprint
from distillhub.errors import DataError
from distillhub.evaluation import protocols
from distillhub.evaluation.feed import Space
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.runner import feed_of
from distillhub.evaluation.training import fit, online
from distillhub.methods._base import Student, StudentSpec
from distillhub.models import weights
from distillhub.models.classifier import Classifier
from distillhub.models.zoo import build
from distillhub.ops.progress import Progress, Scalar, State
from distillhub.pipeline.checkpoint import threads
from distillhub.pipeline.run import device_name
from distillhub.pipeline.store import COMPLETE, locked, stored
from distillhub.pipeline.versions import CODE
from distillhub.records.distilled import DistilledSet
from distillhub.records.report import Regime
from distillhub.units import derive_seed

STEM = "student"
KEY = "student"
"""Of a snapshot: which student it is of."""


def train_student(
    spec: StudentSpec,
    base: DistilledSet,
    digest: str,
    *,
    number: int,
    data: RealData,
    teacher: Classifier | None,
    teacher_sha256: str | None,
    resources: Path,
    device: torch.device,
    state: State | None,
) -> Generator[Progress, None, Student]:
    """Train a network on a set as an evaluation does, without testing it; see `Workbench.student`.

    Args:
        spec: Architecture, protocol, seed.
        base: The set.
        digest: Of the set.
        number: Of several students that differ in their seeds alone.
        data: The real training split; its normalisation is the student's.
        teacher: Frozen, on the device; labels online where the set has no soft labels.
        teacher_sha256: Of its weights.
        resources: Where finished students are kept.
        device: Where it trains.
        state: A snapshot to go on from; one of another student is left alone.

    Raises:
        DataError: If set and protocol have no labels in common.
        DivergedError: If the loss is not finite.
    """
    named = protocols.get(spec.protocol)
    arch = spec.arch or named.students_for(base.height, base.width)[0]
    protocol = named.for_student(arch)
    regime = _regime(protocol, base, teacher)
    seed = spec.seed + number
    key = fingerprint(
        digest,
        protocol.sha256,
        arch,
        seed,
        regime,
        teacher_sha256 if regime == "soft_online" else None,
        (data.mean, data.std),
        device_name(device),
        threads(),
        CODE["evaluate"],
    )[:32]
    size = protocol.resolution(base.height, base.width)
    space = Space(size, data.mean, data.std, device, protocol.test_side)
    folder = resources / f"student-{key}"
    resources.mkdir(parents=True, exist_ok=True)
    with locked(resources / f"{folder.name}.training.lock"):
        if not (folder / COMPLETE).exists():
            student = build(
                arch,
                num_classes=base.num_classes,
                channels=base.channels,
                height=size[0],
                width=size[1],
                mean=data.mean,
                std=data.std,
                seed=derive_seed("evaluation", seed, "network"),
            ).to(device)
            what = f"{arch} on a base"
            feed = feed_of(regime, protocol, base.unpacked(), space, what, base.num_classes)
            labeller = online((teacher,), student) if regime == "soft_online" and teacher else None
            mine = state if state is not None and state.get(KEY) == key else None
            training = fit(
                student, feed, protocol, seed=seed, what=what, labeller=labeller, state=mine
            )
            for report in training:
                yield _of_student(report, key)
            stored(resources, folder.name, partial(_keep, student))
    os.utime(folder)  # `distillhub clean` goes by the last use
    trained = weights.load(folder, STEM).to(device).freeze()

    def logits(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return trained.normalized(space.prepare(images)).float()

    return Student(weights.read_record(folder, STEM).sha256, arch, logits)


def _keep(student: Classifier, folder: Path) -> None:
    weights.save(student.cpu(), folder, STEM, {})


def _regime(protocol: Protocol, base: DistilledSet, teacher: Classifier | None) -> Regime:
    """Stored soft labels where both have them, else those made online, else classes."""
    known: Mapping[Regime, bool] = {
        "soft_stored": base.soft is not None,
        "soft_online": teacher is not None,
        "hard": True,
    }
    found = next((r for r, here in known.items() if here and r in protocol.regimes), None)
    if found is None:
        raise DataError(
            f"protocol {protocol.name} trains with {', '.join(protocol.regimes)} labels, which the "
            "base and the recipe do not have",
            where="method.student",
            mend="add a teacher: block, relabel the base, or choose another protocol",
        )
    return found


def _of_student(report: Progress, key: str) -> Progress:
    """The report, its snapshot marked with the student that it is of."""
    snapshot = report.snapshot
    if snapshot is None:
        return report

    def marked() -> State:
        content: dict[str, Tensor | Scalar] = {**snapshot(), KEY: key}
        return content

    return report._replace(snapshot=marked)
