"""`distillhub evaluate`: any set of images with labels, scored beside random real images.

A set of ours is scored in full by its own build; this is for sets that come alone. Random images
get hard labels only, as the teacher that labelled the set is not at hand: `rnd_soft` is not run.
Beside mosaics stand mosaics of random images, too.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from distillhub import __version__
from distillhub.data.sources import RealData, open_split, pin_source
from distillhub.data.specs import SourceSpec
from distillhub.digests import fingerprint
from distillhub.errors import DataError, UsageError
from distillhub.evaluation import protocols
from distillhub.evaluation.arms import PACKED, planned_runs
from distillhub.evaluation.feed import ImageSet, Space
from distillhub.evaluation.runner import run as run_one
from distillhub.evaluation.runner import score
from distillhub.evaluation.specs import EvalSpec
from distillhub.evaluation.summary import summarize
from distillhub.ops.progress import Progress, State
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, drive, pin_threads
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.project import environment_sources
from distillhub.pipeline.random_images import random_images
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.run import pick_device
from distillhub.pipeline.students import Trained, identity, scored_with, suitable
from distillhub.recipe.loading import load_resolved
from distillhub.records.distilled import DistilledSet, load
from distillhub.records.report import (
    Arm,
    Comparison,
    Metric,
    PlannedRun,
    ProtocolBlock,
    Record,
    Regime,
    Run,
    Warned,
)
from distillhub.units import derive_seed

RECIPE = Path("recipe") / "resolved.yaml"
"""Where a set of ours keeps the recipe that it was made by."""


class Scores(Record):
    """Runs and figures of a set that is scored alone."""

    dataset: str
    revision: str | None
    images: int
    data: str
    """Real images that it was tested on, and that random ones were drawn from."""
    test_sha256: str
    planned: tuple[PlannedRun, ...]
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...]
    protocols: dict[str, ProtocolBlock]
    cross_arch: dict[str, Metric]
    warnings: tuple[Warned, ...]


def score_set(
    word: str,
    *,
    state: Path,
    sources: Mapping[str, Path] | None,
    reporter: Reporter,
    data: str | None = None,
    protocol: str | None = None,
    students: Sequence[str] = (),
    runs: int | None = None,
    full: bool = False,
    seed: int = 0,
    revision: str | None = None,
    split: str = "train",
    test_split: str = "test",
) -> Scores:
    """Train students on a set and on random real images, and test them on real images.

    Args:
        word: Local folder or Hub id of the set.
        state: Scratch folder: the same call goes on after an interruption.
        sources: Local copies of data sets by Hub id; None: those of the environment.
        reporter: Told how it goes.
        data: Real images; None: those that the set's own recipe names.
        protocol: None: the one the set was scored with, else one that suits it.
        students: Networks; empty: the protocol's.
        runs: Paired seeds; None: the protocol's number.
        full: Also train on all real images.
        seed: Of the first run.
        revision: Of a Hub data set.
        split: Of the set, to train on.
        test_split: Of the real images: a name, or a share of their training split.

    Raises:
        UsageError: If it is not known what to test on, or protocol and set do not fit.
        DataError: If set or images cannot be opened, or their classes differ.
    """
    opened = load(word, revision=revision, split=split)
    source = real_source(word, opened, data, test_split, state, sources)
    known = environment_sources() if sources is None else sources
    train, test = open_split(source, "train", known), open_split(source, "test", known)
    spec = _spec(opened, word, protocol, students, runs, full=full)
    height, width, soft = opened.height, opened.width, opened.soft is not None
    planned = planned_runs(
        [spec], seed=seed, soft=soft, height=height, width=width, mosaics=opened.formation > 1
    )
    pin = source.pinned
    key = fingerprint(
        "evaluate",
        identity(opened, word),
        pin.model_dump(mode="json"),
        spec.model_dump(mode="json"),
        seed,
    )
    pin_threads()
    device = pick_device()
    stop = StopRequest()
    finished: list[Run] = []
    with (
        storage_errors(state),
        stop.watched(parents=False),
        WorkFolder(state / "work", "evaluate", key[:32]).held(reporter) as work,
    ):
        for item in planned:
            done = work.finished(item.id)
            if not done.exists():
                training = partial(
                    run_one,
                    item,
                    train=_arm(item, opened, train),
                    test=test,
                    class_names=opened.class_names,
                    mean=pin.mean,
                    std=pin.std,
                    device=device,
                    code_version=__version__,
                )
                made: Run = drive(
                    _resumable(training),
                    label=item.id,
                    checkpoint=work.checkpoint(item.id),
                    reporter=reporter,
                    stop=stop,
                )
                write_text(done, made.model_dump_json())
                work.checkpoint(item.id).clear()
            finished.append(Run.model_validate_json(done.read_text(encoding="utf-8")))
    summary = summarize([spec], planned, finished, soft=soft, height=height, width=width)
    return Scores(
        dataset=Path(word).resolve().name if Path(word).is_dir() else word,
        revision=opened.revision,
        images=len(opened),
        data=source.id,
        test_sha256=pin.test.sha256 if pin.test is not None else "",
        planned=planned,
        runs=tuple(finished),
        comparisons=summary.comparisons,
        protocols=summary.protocols,
        cross_arch=summary.cross_arch,
        warnings=summary.warnings,
    )


def _resumable(
    training: Callable[..., Generator[Progress, None, Run]],
) -> Callable[[State | None], Generator[Progress, None, Run]]:
    return lambda snapshot: training(state=snapshot)


def score_classifier(
    trained: Trained,
    data: str,
    *,
    state: Path,
    sources: Mapping[str, Path] | None,
    test_split: str = "test",
) -> tuple[float, int]:
    """Top-1 of a trained classifier on the test split of real images, and how many these are."""
    source = real_source(str(trained.folder), trained.opened, data, test_split, state, sources)
    test = open_split(source, "test", environment_sources() if sources is None else sources)
    device = pick_device()
    student = trained.classifier.to(device)
    space = Space(student.input_shape[1:], student.mean_values, student.std_values, device)
    found = score(student, test, space, classes=test.num_classes, what=str(trained.folder))
    return found.top1, len(test)


def real_source(
    word: str,
    opened: DistilledSet,
    data: str | None,
    test_split: str,
    state: Path,
    sources: Mapping[str, Path] | None,
) -> SourceSpec:
    """The real images that belong to a set: pinned, of its size, classes in its order.

    Raises:
        UsageError: If none are named and the set does not say.
        DataError: If the classes differ.
    """
    recipe = Path(word) / RECIPE
    if data is None:
        if not recipe.is_file():
            raise UsageError(
                "the set does not say which real images to test on",
                where=word,
                mend="name them: --data sklearn:digits, --data FOLDER, --data org/name",
            )
        return load_resolved(recipe).dataset
    spec = SourceSpec(
        id=data,
        test=_share(test_split),
        size=opened.height if opened.height == opened.width else None,
        channels=1 if opened.channels == 1 else 3,
        classes=None if _numbered(opened.class_names) else opened.class_names,
    )
    known = environment_sources() if sources is None else sources
    pin = pin_source(spec, known, state / "digests.json")
    if len(pin.class_names) != opened.num_classes:
        raise DataError(
            f"the set has {opened.num_classes} classes, {data} has {len(pin.class_names)}",
            where=word,
            mend="name the data set that the set was made from",
        )
    if pin.test is None:
        raise DataError("no images to test on", where=data, mend="name a split, or a share: 0.2")
    return spec.model_copy(update={"pin": pin, "revision": pin.revision})


def _share(test_split: str) -> str | float:
    try:
        return float(test_split)
    except ValueError:
        return test_split


def _numbered(names: Sequence[str]) -> bool:
    """Whether the classes have no names of their own; their order is then taken for the same."""
    return tuple(names) == tuple(map(str, range(len(names))))


def _spec(
    opened: DistilledSet,
    word: str,
    protocol: str | None,
    students: Sequence[str],
    runs: int | None,
    *,
    full: bool,
) -> EvalSpec:
    at_hand: set[Regime] = {"hard"} if opened.soft is None else {"hard", "soft_stored"}
    name = protocol or scored_with(Path(word), at_hand) or suitable(opened)
    try:
        regimes = protocols.get(name).regimes
    except ValueError as error:
        mend = "`distillhub list protocols` shows them"
        raise UsageError(str(error), where="--protocol", mend=mend) from error
    arms: list[Arm] = ["syn_hard", "rnd_hard"] if "hard" in regimes else []
    if arms and opened.formation > 1:
        arms.append("rnd_packed_hard")
    if opened.soft is not None and "soft_stored" in regimes:
        arms.append("syn_soft")
    if not arms:
        lacks = (
            "a teacher that labels every batch online; the set has stored labels only"
            if "soft_online" in regimes
            else "soft labels, the set has hard ones only"
        )
        raise UsageError(
            f"protocol {name} needs {lacks}",
            where="--protocol",
            mend="choose lowres-1 or hard-1",
        )
    if full:
        arms.append("full_hard")
    return EvalSpec(protocol=name, students=tuple(students), arms=tuple(arms), runs=runs)


def _arm(planned: PlannedRun, opened: DistilledSet, train: RealData) -> ImageSet:
    if planned.arm.startswith("syn"):
        return opened.unpacked()
    if planned.arm.startswith("full"):
        return train
    seed = planned.subset_seed or 0
    formation = opened.formation if planned.arm in PACKED else 1
    return random_images(train, opened.counts, formation, partial(_generator, seed))


def _generator(seed: int, label: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("evaluate", "random", seed, label))
