"""One run: build a student, train it on an arm, test it once after the last step."""

import time
from collections.abc import Generator, Sequence
from typing import TypeGuard

import torch

from distillhub.errors import DataError, DivergedError
from distillhub.evaluation.arms import protocol_of
from distillhub.evaluation.feed import Feed, ImageSet, SoftSet, Space, chunks, hard_feed, soft_feed
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.scores import PerImage, Scores, per_image, scores
from distillhub.evaluation.training import fit
from distillhub.models.classifier import Classifier
from distillhub.models.zoo import build
from distillhub.ops.progress import Progress, Scalar, State
from distillhub.records.report import PlannedRun, Run
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
        code_version: Written into the run.
        state: A snapshot to go on from.

    Raises:
        DataError: If the arm lacks soft labels, or training and test images differ in channels.
        DivergedError: If a loss or a logit is not finite.
    """
    started = time.perf_counter() - _seconds(state)
    protocol = protocol or protocol_of(planned)
    channels, height, width = _shape(planned, train, test)
    space = Space(protocol.resolution(height, width), tuple(mean), tuple(std), device)
    feed = _feed(planned, protocol, train, space)
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
    for report in fit(student, feed, protocol, seed=planned.seed, what=planned.id, state=state):
        yield _timed(report, started)
    found = score(student, test, space, classes=len(class_names), what=planned.id)
    length = protocol.length(feed.size)
    return Run(
        **planned.model_dump(),
        **found._asdict(),
        steps=length.steps,
        images_seen=images_seen(protocol, feed.size),
        train_images=feed.size,
        test_images=len(test),
        resolution=space.resolution,
        wall_s=round(time.perf_counter() - started, 3),
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


def images_seen(protocol: Protocol, size: int) -> int:
    """Images shown in a whole run on `size` training images, each showing counted."""
    length = protocol.length(size)
    epochs, rest = divmod(length.steps, length.per_epoch)
    return epochs * size + min(rest * protocol.batch, size)


def _feed(planned: PlannedRun, protocol: Protocol, train: ImageSet, space: Space) -> Feed:
    if planned.regime == "hard":
        return hard_feed(train, space)
    if not _has_soft(train):
        raise DataError(
            "the set holds no soft labels",
            where=f"run {planned.id}",
            mend="relabel it, or ask for hard arms only",
        )
    seen = images_seen(protocol, len(train))
    return soft_feed(train, space, temperature=protocol.temperature, steps_images=seen)


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


def _timed(report: Progress, started: float) -> Progress:
    """The report with the seconds spent so far in its snapshot."""
    snapshot = report.snapshot
    if snapshot is None:
        return report

    def with_seconds() -> State:
        state: dict[str, torch.Tensor | Scalar] = dict(snapshot())
        state["seconds"] = time.perf_counter() - started
        return state

    return report._replace(snapshot=with_seconds)


def _seconds(state: State | None) -> float:
    value = 0.0 if state is None else state.get("seconds", 0.0)
    return value if isinstance(value, float) else 0.0


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
