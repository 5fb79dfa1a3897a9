"""`distillhub reproduce`: a finished set made, or scored, once more from the recipe inside it.

Everything is done anew in a workspace with a state of its own: networks, random images and runs
that this machine kept from earlier builds are not used. What comes out is compared with the
digests, the runs and the expected range that the set was published with.
"""

import functools
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from distillhub.data.sources import open_split, pin_source
from distillhub.data.specs import SourceSpec
from distillhub.digests import fingerprint
from distillhub.errors import RecipeError, UsageError, VerificationError
from distillhub.evaluation.runner import run as run_one
from distillhub.ops.progress import Progress, State
from distillhub.packaging.card import RESOLVED
from distillhub.packaging.comparison import FieldDifference, Side, compare, differing, recipe_fields
from distillhub.packaging.verify import verify
from distillhub.pipeline.bases import Link
from distillhub.pipeline.building import build_placed, refuse_cpu
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, drive, pin_threads
from distillhub.pipeline.dvcfile import make_workspace, write_index
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.importing import environment_block
from distillhub.pipeline.naming import with_pixels
from distillhub.pipeline.project import ENVIRONMENT, LOCAL, Project, environment_sources
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.run import pick_device
from distillhub.pipeline.versions import CODE
from distillhub.recipe.loading import load_recipe, load_resolved
from distillhub.recipe.schema import ResolvedRecipe
from distillhub.records.distilled import DistilledSet
from distillhub.records.report import Arm, EvalReport, Expected, PlannedRun, Run

WORKSPACES = Path(".distillhub") / "reproduce"
RESCORED: tuple[Arm, ...] = ("syn_hard", "syn_hard_plain", "syn_soft")
"""Arms that a set can be scored in by itself; the others need its teacher or real images."""
ROUNDING = 1e-9


class Same(NamedTuple):
    """One digest of both sets."""

    what: str
    published: str
    now: str

    @property
    def equal(self) -> bool:
        """Whether it came out the same."""
        return self.published == self.now


class RunPair(NamedTuple):
    """One training, then and now."""

    id: str
    published: float | None
    """Top-1; None where it was planned and not run."""
    now: float

    @property
    def difference(self) -> float | None:
        """Now - published."""
        return None if self.published is None else self.now - self.published


@dataclass(frozen=True)
class Reproduction:
    """What came out the same, and what did not."""

    digest: str
    """Of the set that was reproduced."""
    folder: Path
    """Of the new set; of the reproduced one where it was only scored."""
    digests: tuple[Same, ...]
    """Empty where the set was only scored: its rows are the published ones."""
    images: tuple[int, int] | None
    """Images that came out the same, and all; None where the set was only scored."""
    recipe: tuple[FieldDifference, ...]
    """Of the resolved recipes: what this release fills in otherwise."""
    environment: tuple[FieldDifference, ...]
    """Software of the evaluation, then and now."""
    runs: tuple[RunPair, ...]
    expected: Expected | None
    headline: float | None
    """Mean top-1 of the runs that the expected range is of; None without such a range."""
    left_out: tuple[str, ...]
    """Runs that were not repeated."""

    @property
    def identical(self) -> bool:
        """Whether every digest and every accuracy is the published one."""
        return all(one.equal for one in self.digests) and all(
            pair.difference == 0 for pair in self.runs
        )

    @property
    def within(self) -> bool:
        """Whether the headline is in the expected range; without a range, whether all is equal."""
        if self.expected is None or self.headline is None:
            return self.identical
        low, high = self.expected.low - ROUNDING, self.expected.high + ROUNDING
        return low <= self.headline <= high


def reproduce(
    folder: Path,
    *,
    reporter: Reporter,
    evaluate_only: bool = False,
    sources: Mapping[str, Path] | None = None,
    workspace: Path | None = None,
    allow_cpu: bool = False,
) -> Reproduction:
    """Make a set again from its own recipe, or only score it again, and compare.

    May be stopped; the same call goes on where it was.

    Args:
        folder: Of the set.
        reporter: Told how it goes.
        evaluate_only: Train the students of the published runs on the published rows, instead of
            making the rows anew. Arms that need a teacher or random images are left out.
        sources: Local copies of data sets by Hub id, beside those of the project and environment.
        workspace: Where to work; None: a folder for this set in `.distillhub/reproduce`.
        allow_cpu: Work on a CPU where a protocol is meant for a GPU.

    Raises:
        VerificationError: If the set is not what its manifest says.
        UsageError: If it holds no recipe that can be built alone.
        RecipeError: If its data are not at hand, or are others than it was made from.
        PipelineError: If a stage failed.
    """
    verdict = verify(folder)
    if verdict.faults:
        raise VerificationError.of(verdict.faults)
    published = Side.read(folder)
    if published.report.imported is not None or published.report.card is None:
        raise UsageError(
            "was imported and holds no recipe",
            where=str(folder),
            mend="score it: distillhub evaluate SET --data SOURCE",
        )
    stem = published.report.card.recipe
    recipe = load_resolved(folder / RESOLVED)
    if not allow_cpu and pick_device().type == "cpu":
        refuse_cpu([Link(folder / RESOLVED, recipe, {})])
    if recipe.bases and not evaluate_only:
        raise UsageError(
            f"rests on other builds: {', '.join(recipe.bases)}",
            where=str(folder),
            mend="score it alone with --evaluate-only, or build it beside their recipes",
        )
    place = (workspace or WORKSPACES / f"{stem}-{published.manifest.digest[:12]}").resolve()
    with storage_errors(place):
        project = _place(folder, stem, place, recipe, sources or {})
        _check_data(recipe, project, folder)
    if evaluate_only:
        planned = [one for one in published.report.planned if one.arm in RESCORED]
        runs = _rescored(folder, planned, recipe.dataset, project, reporter)
        return _outcome(published, runs, folder)
    made = build_placed(stem, project, reporter, direct=True, update=False)
    return _rebuilt(published, Side.read(made))


def _place(
    folder: Path,
    stem: str,
    place: Path,
    recipe: ResolvedRecipe,
    sources: Mapping[str, Path],
) -> Project:
    """A workspace with the recipe, its pins, and the places of its data."""
    project = make_workspace(place, place / ".distillhub")
    for path, name in (
        (project.recipe(stem), f"recipe/{stem}.yaml"),
        (project.resolved(stem), RESOLVED),
    ):
        text = (folder / name).read_text(encoding="utf-8")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    load_recipe(project.recipe(stem))  # refused here if this release cannot read it
    write_index(project, [stem])
    home = Project.find(Path.cwd())
    known = dict(environment_sources() if home is None else home.sources)
    given = {name: path.resolve() for name, path in sources.items()}
    for name, path in environment_sources().items():
        if given.get(name, path) != path:
            raise UsageError(
                f"{ENVIRONMENT} names {path} for {name}", where="--source", mend="unset one of them"
            )
    known |= given
    if recipe.dataset.id.startswith(".") and recipe.dataset.id not in known:
        raise UsageError(
            f"was made from a folder of its maker, {recipe.dataset.id}",
            where=str(folder),
            mend=f"name your copy: --source {recipe.dataset.id}=FOLDER",
        )
    lines = ["# Written by `distillhub reproduce`.", "[sources]"]
    lines += [f"{json.dumps(name)} = {json.dumps(str(p))}" for name, p in sorted(known.items())]
    write_text(project.root / LOCAL, "\n".join(lines) + "\n")
    return project


def _check_data(recipe: ResolvedRecipe, project: Project, folder: Path) -> None:
    """The images must be those that the set was made from: a pin is never made anew here."""
    dataset = recipe.dataset
    pin = pin_source(dataset, project.sources_for(dataset), project.state / "digests.json")
    then = dataset.pinned
    for split, old, new in (("training", then.train, pin.train), ("test", then.test, pin.test)):
        if old != new:
            told = [one.sha256[:12] if one is not None else "none" for one in (old, new)]
            raise RecipeError(
                f"the {split} images or labels of {dataset.id} are not those that the set was "
                f"made from ({told[0]} then, {told[1]} here)",
                where=f"{folder / RESOLVED}: dataset.pin",
                mend=f"name a copy of the right ones: --source {dataset.id}=FOLDER",
            )


def _rescored(
    folder: Path,
    planned: Sequence[PlannedRun],
    dataset: SourceSpec,
    project: Project,
    reporter: Reporter,
) -> tuple[Run, ...]:
    """The published runs of a set's own arms, trained again on its rows."""
    known, pin = project.sources_for(dataset), dataset.pinned
    opened = DistilledSet.open(folder)
    if opened.named is not None:
        opened = with_pixels(opened, open_split(dataset, "train", known))
    train, test = opened.unpacked(), open_split(dataset, "test", known)
    pin_threads()
    device, stop = pick_device(), StopRequest()
    key = fingerprint("reproduce", Side.read(folder).manifest.digest, CODE["evaluate"])
    finished = []
    with (
        storage_errors(project.state),
        stop.watched(parents=False),
        WorkFolder(project.state / "work", "reproduce", key[:32]).held(reporter) as work,
    ):
        for item in planned:
            done = work.finished(item.id)
            if not done.exists():
                training = functools.partial(
                    run_one,
                    item,
                    train=train,
                    test=test,
                    class_names=pin.class_names,
                    mean=pin.mean,
                    std=pin.std,
                    device=device,
                    code_version=f"evaluate {CODE['evaluate']}",
                )
                made = drive(
                    _from_snapshot(training),
                    label=item.id,
                    checkpoint=work.checkpoint(item.id),
                    reporter=reporter,
                    stop=stop,
                )
                write_text(done, made.model_dump_json())
                work.checkpoint(item.id).clear()
            finished.append(Run.model_validate_json(done.read_text(encoding="utf-8")))
    return tuple(finished)


def _from_snapshot(
    training: Callable[..., Generator[Progress, None, Run]],
) -> Callable[[State | None], Generator[Progress, None, Run]]:
    return lambda snapshot: training(state=snapshot)


def _outcome(
    published: Side,
    runs: Sequence[Run],
    folder: Path,
    *,
    digests: tuple[Same, ...] = (),
    images: tuple[int, int] | None = None,
) -> Reproduction:
    """Runs beside the published ones, and the headline beside its range."""
    report = published.report
    before = {run.id: run.top1 for run in report.runs}
    again = {run.id for run in runs}
    expected = report.headline.expected if report.headline is not None else None
    return Reproduction(
        digest=published.manifest.digest,
        folder=folder,
        digests=digests,
        images=images,
        recipe=tuple(differing(recipe_fields(published.folder), recipe_fields(folder))),
        environment=tuple(_environment(report)),
        runs=tuple(RunPair(run.id, before.get(run.id), run.top1) for run in runs),
        expected=expected,
        headline=None if expected is None else _mean(runs, expected),
        left_out=tuple(run.id for run in report.runs if run.id not in again),
    )


def _rebuilt(published: Side, made: Side) -> Reproduction:
    a, b = published.manifest, made.manifest
    pairs = [
        ("artifact", a.digest, b.digest),
        ("resolved recipe", a.content.recipe_sha256, b.content.recipe_sha256),
        *(
            (f"weights of {role}", a.content.weights.get(role, ""), b.content.weights.get(role, ""))
            for role in dict.fromkeys([*a.content.weights, *b.content.weights])
        ),
        ("images", a.columns["image"], b.columns["image"]),
        ("labels", a.columns["label"], b.columns["label"]),
        ("soft labels", a.content.labels_sha256 or "", b.content.labels_sha256 or ""),
        ("runs", a.runs_sha256, b.runs_sha256),
    ]
    same = len(compare(published.folder, made.folder).images.same)
    return _outcome(
        published,
        made.report.runs,
        made.folder,
        digests=tuple(Same(*pair) for pair in pairs if pair[1] or pair[2]),
        images=(same, a.content.rows),
    )


def _environment(report: EvalReport) -> Iterator[FieldDifference]:
    yield from differing(report.environment.model_dump(), environment_block().model_dump())


def _mean(runs: Sequence[Run], expected: Expected) -> float | None:
    """Top-1 over the runs that an expected range is of; None where there are none."""
    wanted = (expected.protocol, expected.arm, expected.arch)
    found = [run.top1 for run in runs if (run.protocol, run.arm, run.arch) == wanted]
    return sum(found) / len(found) if found else None
