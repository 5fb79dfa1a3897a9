"""One run: build a student, train it on an arm, test it once after the last step."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import torch

from distillhub.errors import DataError, DivergedError
from distillhub.evaluation.arms import protocol_of
from distillhub.evaluation.feed import Feed, ImageSet, SoftSet, Space, chunks, hard_feed, soft_feed
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.scores import PerImage, Scores, per_image, scores
from distillhub.evaluation.training import fit, online
from distillhub.models.classifier import Classifier
from distillhub.models.zoo import build
from distillhub.ops.progress import Progress, Scalar, State
from distillhub.records.report import PlannedRun, Regime, Run
from distillhub.units import derive_seed


def run(
    planned: PlannedRun,
    *,
    train: ImageSet,
    test: ImageSet,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    protocol: Protocol | None = None,
    labellers: Sequence[Classifier] = (),
    code_version: str = "",
    state: State | None = None,
) -> Generator[Progress, None, Run]:
    """Train and test one student; nothing outside is changed.

    Args:
        planned: Which student, seed and labels.
        train: The images of the arm; needs stored labels where the regime is `soft_stored`.
        test: The test split, in the class order of `train`.
        class_names: In label order.
        mean: Per channel, of images in [0, 1]; of the real training split.
        std: Per channel.
        device: Where the student trains.
        protocol: None: the one that `planned` names.
        labellers: Frozen, on the device; the mean of their logits labels the batches of a
            `soft_online` run.
        code_version: Written into the run.
        state: A snapshot to go on from.

    Raises:
        DataError: If the arm lacks soft labels or a network that makes them, or training and test
            images differ in channels.
        DivergedError: If a loss or a logit is not finite.
    """
    tally = _Tally.of(state)
    protocol = protocol or protocol_of(planned)
    channels, height, width = _shape(planned, train, test)
    space = Space(
        protocol.resolution(height, width), tuple(mean), tuple(std), device, protocol.test_side
    )
    feed = feed_of(planned.regime, protocol, train, space, planned.id, len(class_names))
    student = build(
        planned.arch,
        num_classes=len(class_names),
        channels=channels,
        height=space.resolution[0],
        width=space.resolution[1],
        mean=mean,
        std=std,
        seed=derive_seed("evaluation", planned.seed, "network"),
    ).to(device)
    labeller = None
    if planned.regime == "soft_online":
        labeller = online(_taught(planned, labellers), student)
    length = protocol.length(feed.size, len(class_names))
    looks = protocol.looks(length)
    training = fit(
        student,
        feed,
        protocol,
        seed=planned.seed,
        what=planned.id,
        labeller=labeller,
        state=state,
    )
    for report in training:
        if report.done in looks:
            seen = score(student, test, space, classes=len(class_names), what=planned.id)
            tally.saw(seen.top1, report.done // length.per_epoch)
            student.train()
        yield tally.noted(report)
    found = score(student, test, space, classes=len(class_names), what=planned.id)
    if looks:
        tally.saw(found.top1, length.epochs)
    return Run(
        **planned.model_dump(),
        **found._asdict(),
        best_top1=tally.best_top1 if looks else None,
        best_epoch=tally.best_epoch if looks else None,
        steps=length.steps,
        images_seen=images_seen(protocol, feed.size, len(class_names)),
        train_images=feed.size,
        test_images=len(test),
        resolution=space.resolution,
        wall_s=round(tally.seconds, 3),
        device=_name(device),
        code_version=code_version,
    )


def score(student: Classifier, test: ImageSet, space: Space, *, classes: int, what: str) -> Scores:
    """Test once, without augmentation, in float32.

    Args:
        student: Left in eval mode.
        test: Images and classes.
        space: Of the student.
        classes: Number of classes.
        what: Names the run in an error.

    Raises:
        DivergedError: If a logit is not finite.
    """
    student.eval()
    judged: list[PerImage] = []
    with torch.inference_mode():
        for rows in chunks(len(test), space.resolution):
            logits = student.normalized(space.prepare(test.images(rows)))
            if not bool(torch.isfinite(logits).all()):
                raise DivergedError("a logit on the test set is not finite", where=f"run {what}")
            judged.append(per_image(logits, test.labels[rows]))
    together = PerImage(*(torch.cat(part) for part in zip(*judged, strict=True)))
    return scores(together, test.labels, classes)


def images_seen(protocol: Protocol, size: int, classes: int | None = None) -> int:
    """Images shown in a whole run on `size` training images, each showing counted."""
    length = protocol.length(size, classes)
    epochs, rest = divmod(length.steps, length.per_epoch)
    return epochs * size + min(rest * length.batch, size)


def feed_of(
    regime: Regime, protocol: Protocol, train: ImageSet, space: Space, what: str, classes: int
) -> Feed:
    """The training images as a protocol wants them.

    Crops are cut out of the image as stored, and enlarged to the student's size; stored views are
    brought to it at once, as nothing is cut out of them.

    Args:
        regime: Labels to train with; those of `soft_online` are made later, from the images.
        protocol: Of the training.
        train: The images.
        space: Of the student.
        what: Names the run in an error.
        classes: Of the data set.

    Raises:
        DataError: If the images lack the stored labels, or these are of whole images and the
            protocol mixes them.
    """
    if protocol.crop is not None:
        space = space._replace(covered=None)
        if not (regime == "soft_stored" and _has_soft(train) and train.views is not None):
            stored = train.images(torch.tensor([0])).shape
            space = space._replace(resolution=(int(stored[2]), int(stored[3])))
    if regime != "soft_stored":
        return hard_feed(train, space)
    if not _has_soft(train):
        raise DataError(
            "the set holds no soft labels",
            where=f"run {what}",
            mend="relabel it, or ask for hard arms only",
        )
    if protocol.mixes and train.views is None:
        raise DataError(
            f"protocol {protocol.name} mixes images, and the stored labels are of whole ones",
            where=f"run {what}",
            mend="relabel with a views: block, or choose a protocol that does not mix",
        )
    seen = images_seen(protocol, len(train), classes)
    temperature = None if protocol.loss == "mse_gt" else protocol.temperature
    return soft_feed(train, space, temperature=temperature, steps_images=seen)


def _taught(planned: PlannedRun, labellers: Sequence[Classifier]) -> Sequence[Classifier]:
    if not labellers:
        raise DataError(
            "there is no teacher to label the batches",
            where=f"run {planned.id}",
            mend="add a teacher: block to the recipe, or ask for arms with stored labels",
        )
    return labellers


def _has_soft(images: ImageSet) -> TypeGuard[SoftSet]:
    return getattr(images, "views_per_image", 0) > 0


def _shape(planned: PlannedRun, train: ImageSet, test: ImageSet) -> tuple[int, int, int]:
    first = torch.tensor([0])
    channels, height, width = (int(side) for side in train.images(first).shape[1:])
    others = int(test.images(first).shape[1])
    if channels != others:
        raise DataError(
            f"training images have {channels} channels, test images {others}",
            where=f"run {planned.id}",
            mend="set dataset.channels so that both agree",
        )
    return channels, height, width


@dataclass
class _Tally:
    """What a run keeps beside weights and optimizer, through interruptions too."""

    before: float = 0.0
    """Seconds of the processes before this one."""
    best_top1: float = -1.0
    best_epoch: int = 0
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, state: State | None) -> "_Tally":
        """As a snapshot has it."""
        kept = {} if state is None else state
        return cls(
            float(_number(kept.get("seconds", 0.0))),
            float(_number(kept.get("best_top1", -1.0))),
            int(_number(kept.get("best_epoch", 0))),
        )

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self.before + time.perf_counter() - self.began

    def saw(self, top1: float, epoch: int) -> None:
        """Keep the first of the highest accuracies."""
        if top1 > self.best_top1:
            self.best_top1, self.best_epoch = top1, epoch

    def noted(self, report: Progress) -> Progress:
        """The report, with all this in its snapshot."""
        snapshot = report.snapshot
        if snapshot is None:
            return report
        best = {"best_top1": self.best_top1, "best_epoch": self.best_epoch}

        def with_tally() -> State:
            state: dict[str, torch.Tensor | Scalar] = dict(snapshot())
            return {**state, **best, "seconds": self.seconds}

        return report._replace(snapshot=with_tally)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0.0


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
