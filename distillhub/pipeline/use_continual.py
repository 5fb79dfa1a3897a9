"""`distillhub use continual`: class-incremental learning from a set, beside random real images."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from distillhub import __version__
from distillhub.errors import DataError, UsageError
from distillhub.evaluation.continual import (
    Seen,
    SeenSoft,
    class_order,
    judged_stage,
    mean_gain,
    mean_over_stages,
    planned_stage,
    seen_classes,
    split_stages,
)
from distillhub.evaluation.feed import ImageSet
from distillhub.evaluation.runner import run as run_one
from distillhub.packaging.use_figures import continual_plot
from distillhub.pipeline.files import write_json
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.uses import Opened, Wish, held, open_use, resumable
from distillhub.records.report import PlannedRun, Run
from distillhub.records.uses import ContinualReport

STEM = "continual"
"""Of the files written: continual.json, continual.png."""


def use_continual(
    wish: Wish,
    out: Path,
    *,
    state: Path,
    sources: Mapping[str, Path] | None,
    reporter: Reporter,
    steps: int = 5,
    order: int = 0,
    student: str | None = None,
) -> ContinualReport:
    """Let classes come in stages, train on all seen so far, and write `out`/continual.json, .png.

    Args:
        wish: The set, and how students are trained.
        out: Folder; made where needed.
        state: Scratch folder: the same call goes on after an interruption.
        sources: Local copies of data sets by Hub id; None: those of the environment.
        reporter: Told how it goes.
        steps: Stages.
        order: Seed of the order of the classes.
        student: Network; None: the protocol's first.

    Raises:
        UsageError: If there are fewer classes than steps, or protocol, labels, network and set do
            not fit.
        DataError: If set or images cannot be opened, or the first classes have no test images.
        DivergedError: If a loss or a logit is not finite.
    """
    opened = open_use(wish, state=state, sources=sources)
    classes, names = opened.set.num_classes, opened.set.class_names
    if not 1 <= steps <= classes:
        raise UsageError(
            f"{classes} classes cannot come in {steps} steps",
            where="--steps",
            mend=f"take {min(5, classes)}, or another number up to {classes}",
        )
    stages = split_stages(class_order(classes, order), steps)
    arch = _fitting(opened, student)
    _check(opened, stages[0])
    key = opened.key(STEM, arch, stages)
    done = []
    with held(state, key, reporter) as bench:
        for number, new in enumerate(stages):
            seen = seen_classes(stages, number)
            test = Seen(opened.test, seen)
            runs = []
            planned = planned_stage(opened.protocol.name, arch, wish.arms, opened.seeds, number + 1)
            for item in planned:
                training = partial(
                    run_one,
                    item,
                    train=_memory(opened, item, seen),
                    test=test,
                    class_names=[names[label] for label in seen],
                    mean=opened.pin.mean,
                    std=opened.pin.std,
                    device=opened.device,
                    code_version=__version__,
                )
                runs.append(bench.piece(item.id, Run, resumable(training)))
            done.append(judged_stage(new, len(seen), wish.arms, runs))
        report = ContinualReport.model_validate(
            {
                **opened.facts(arch),
                "notes": _notes(opened, stages),
                "order_seed": order,
                "class_order": [label for new in stages for label in new],
                "stages": done,
                "mean_top1": mean_over_stages(done, wish.arms),
                "mean_gain": mean_gain(done, wish.arms),
            }
        )
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{STEM}.json", report.model_dump(mode="json"))
        continual_plot(report, out / f"{STEM}.png")
    return report


def _memory(opened: Opened, item: PlannedRun, seen: tuple[int, ...]) -> ImageSet:
    if item.regime == "soft_stored":
        return SeenSoft(opened.soft, seen)
    return Seen(opened.images(item.arm, item.seed), seen)


def _fitting(opened: Opened, student: str | None) -> str:
    """The student, once it is known that it can be built."""
    height, width = opened.set.height, opened.set.width
    arch = student or opened.protocol.students_for(height, width)[0]
    try:
        opened.network(arch, opened.protocol.resolution(height, width), 2, 0)
    except ValueError as error:
        raise UsageError(
            str(error), where="--student", mend="`distillhub list models` shows all names"
        ) from error
    return arch


def _check(opened: Opened, first: tuple[int, ...]) -> None:
    """Whether every stage can be trained and tested.

    Raises:
        UsageError: If stored views hold pieces of images of other classes.
        DataError: If the first stage has no test images.
    """
    boxes = None if opened.set.views is None else opened.set.views.box
    if opened.wish.labels == "soft" and boxes is not None and bool(boxes.any()):
        raise UsageError(
            "the stored views are mixed with images of classes that have not come yet",
            where=opened.wish.word,
            mend="use the set with --labels hard",
        )
    if not bool(torch.isin(opened.test.labels, torch.tensor(first)).any()):
        raise DataError(
            "the first classes have no test images: "
            + ", ".join(opened.set.class_names[label] for label in first),
            where=opened.source.id,
            mend="take another --order, or other --data",
        )


def _notes(opened: Opened, stages: tuple[tuple[int, ...], ...]) -> list[str]:
    notes = opened.notes()
    notes.append("intervals are over the runs, with one order of the classes")
    if len(stages[0]) == 1:
        notes.append("the first stage has a single class: its accuracy is 1 by definition")
    if len({len(new) for new in stages}) > 1:
        notes.append("the stages have different numbers of classes")
    return notes
