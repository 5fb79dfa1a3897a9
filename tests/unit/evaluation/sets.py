"""In-memory sets and made-up runs for the tests of this room."""

from collections.abc import Callable, Generator, Iterable

import torch
from torch import Tensor

from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.runner import run
from distillhub.ops.progress import Progress, State
from distillhub.records.report import Arm, PlannedRun, Run

CLASS_NAMES = ("zero", "one", "two")
MEAN, STD = (0.5,), (0.25,)

TINY = Protocol(
    name="tiny",
    summary="",
    steps=24,
    batch=5,
    optimizer="sgd",
    lr=0.05,
    weight_decay=5e-4,
    schedule="drop",
    drop_after=12,
    augment="dsa:color_crop_cutout_flip_scale_rotate",
)


class Pictures:
    """Grey 8 x 8 images whose class is the brighter third."""

    def __init__(self, count: int = 12, seed: int = 0, channels: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 3
        self.pixels = torch.rand(count, channels, 8, 8, generator=generator) * 0.5
        for row, label in enumerate(self.labels.tolist()):
            self.pixels[row, :, 3 * label : 3 * label + 2] += 0.5

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Tensor) -> Tensor:
        return self.pixels[rows]


class SoftPictures(Pictures):
    """The same with `views` stored labels per image; view k is the image shifted by k pixels."""

    def __init__(self, count: int = 12, *, views: int = 1, whole: bool = False) -> None:
        super().__init__(count)
        self.views_per_image = views
        self.views = None if whole else object()
        self.asked: list[tuple[int, int]] = []
        self.logits = 4.0 * torch.nn.functional.one_hot(self.labels, 3).float()

    def view_batch(
        self,
        rows: Tensor,
        views: Tensor,
        temperature: float | None,
        *,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        self.asked += list(zip(rows.tolist(), views.tolist(), strict=True))
        shifted = [self.pixels[r].roll(int(v), 2) for r, v in zip(rows, views, strict=True)]
        return torch.stack(shifted), self.logits[rows]


def plan(arm: Arm = "syn_hard", seed: int = 0, *, protocol: str = "digits-1") -> PlannedRun:
    """A planned run of the smallest ConvNet."""
    return PlannedRun(
        id=f"{protocol}.tiny.{arm}.s{seed}",
        protocol=protocol,
        arm=arm,
        arch="convnet1-w4",
        regime="soft_stored" if arm.endswith("soft") else "hard",
        seed=seed,
        subset_seed=seed if arm.startswith("rnd") else None,
    )


def start(
    train: Pictures,
    *,
    protocol: Protocol = TINY,
    planned: PlannedRun | None = None,
    test: Pictures | None = None,
    state: State | None = None,
) -> Generator[Progress, None, Run]:
    """A run on the CPU."""
    return run(
        planned or plan("syn_soft" if isinstance(train, SoftPictures) else "syn_hard"),
        train=train,
        test=test or Pictures(30, seed=9),
        class_names=CLASS_NAMES,
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
        protocol=protocol,
        state=state,
    )


def finish(work: Generator[Progress, None, Run], seen: Callable[[Progress], object] = id) -> Run:
    """Drive a run to its end, showing every report to `seen`."""
    while True:
        try:
            seen(next(work))
        except StopIteration as stop:
            result: Run = stop.value
            return result


def made_up(planned: PlannedRun, top1: float, **fields: object) -> Run:
    """The record of a run that never was."""
    values: dict[str, object] = {
        "steps": 500,
        "images_seen": 50_000,
        "train_images": 100,
        "test_images": 500,
        "resolution": (16, 16),
        "top1": top1,
        "top5": None,
        "nll": 0.5,
        "ece": 0.05,
        "brier": 0.1,
        "class_acc": (top1, top1, top1),
        "wall_s": 1.0,
        "device": "cpu",
        "code_version": "0",
    }
    return Run.model_validate({**planned.model_dump(), **values, **fields})


def made_up_all(planned: Iterable[PlannedRun], **by_arm: list[float]) -> list[Run]:
    """A made-up run for every planned one; accuracies are given per arm, seed by seed."""
    return [made_up(p, by_arm[p.arm][p.seed]) for p in planned]
