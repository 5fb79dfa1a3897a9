"""`distillhub plan`: units, steps, bytes, disk and time of a build before any of it is done."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from distillhub.data import codec
from distillhub.data.known import foretold_bytes, published_pin
from distillhub.data.sources import RealData, open_split
from distillhub.errors import DataError, RecipeError
from distillhub.evaluation import protocols
from distillhub.evaluation.arms import planned_runs
from distillhub.models.specs import TrainSpec
from distillhub.pipeline.checkpoint import pin_threads
from distillhub.pipeline.making import plan_units
from distillhub.pipeline.project import Project
from distillhub.pipeline.rates import Rates
from distillhub.pipeline.resolve import kept_pin, resolve
from distillhub.pipeline.run import pick_device
from distillhub.pipeline.stages import work_digest
from distillhub.pipeline.versions import CODE, STAGES
from distillhub.recipe.loading import load_recipe
from distillhub.recipe.schema import Recipe, ResolvedRecipe
from distillhub.relabel.spec import RelabelSpec
from distillhub.spec import Spec
from distillhub.units import derive_seed

SAMPLE = 256
"""Real images that are encoded to foretell the size of the distilled ones."""


class StagePlan(Spec):
    """What one stage will do."""

    name: str
    work: str
    """In words: what, how many steps."""
    seconds: float
    basis: str
    """Where the seconds come from."""


class Plan(Spec):
    """What a build will do and take."""

    recipe: str
    device: str
    images: int
    units: int
    bytes_images: int
    bytes_labels: int
    bytes_basis: str
    disk: int
    """Bytes of the build's folders and its scratch together."""
    stages: tuple[StagePlan, ...]

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


def make_plan(path: Path, project: Project, *, startup: float | None = None) -> Plan:
    """The plan of a recipe, without writing anything but the cache of digests.

    Args:
        path: The recipe's file.
        project: Knows sources and earlier builds.
        startup: Seconds that a stage's process takes before its work; None: as long as this one
            took so far.

    Raises:
        RecipeError: If the recipe or its data cannot be used.
    """
    begin = time.process_time() if startup is None else startup
    pin_threads()
    recipe = load_recipe(path)
    kept = kept_pin(recipe.dataset, project.resolved(path.stem), update=False)
    try:
        resolved = resolve(recipe, path, project, kept)
        data = open_split(resolved.dataset, "train", project.sources_for(recipe.dataset))
        image_bytes, bytes_basis = foretell_image_bytes(resolved, data)
    except (DataError, RecipeError) as error:
        stand_in = published_pin(recipe.dataset)
        if stand_in is None or recipe.dataset.id in project.sources:
            raise
        dataset = recipe.dataset.model_copy(update={"pin": stand_in})
        fields = {name: getattr(recipe, name) for name in Recipe.model_fields}
        resolved = ResolvedRecipe(**{**fields, "dataset": dataset}, code=CODE)
        each = foretold_bytes(recipe.images, stand_in.channels, stand_in.height, stand_in.width)
        image_bytes = round(each * len(stand_in.class_names) * recipe.ipc)
        bytes_basis = (
            f"published facts of {recipe.dataset.id}, which is not at hand: {error.faults[0].what}"
        )
    device = pick_device()
    rates = Rates(device)
    views, label_bytes = foretell_labels(resolved, image_bytes)
    target = resolved.target
    count = target.num_classes * resolved.ipc
    stages = [
        StagePlan(name=name, work=work, seconds=begin + seconds, basis=basis)
        for name, work, seconds, basis in _stages(resolved, rates, views)
    ]
    stages = [_as_last_time(stage, path.stem, project, resolved, begin) for stage in stages]
    total = image_bytes + label_bytes
    weights = len(resolved.networks) * 4_000_000
    return Plan(
        recipe=path.stem,
        device=str(device),
        images=count,
        units=sum(1 for _ in plan_units(resolved.method, resolved.target, resolved.seed)),
        bytes_images=image_bytes,
        bytes_labels=label_bytes,
        bytes_basis=bytes_basis,
        disk=4 * total + 2 * weights + count * target.channels * target.height * target.width * 4,
        stages=tuple(stages),
    )


def _as_last_time(
    stage: StagePlan, stem: str, project: Project, recipe: ResolvedRecipe, startup: float
) -> StagePlan:
    """What a stage took when it last ran on the same inputs."""
    if stage.name == "resolve" or not project.stats(stem, stage.name).exists():
        return stage
    last = json.loads(project.stats(stem, stage.name).read_text(encoding="utf-8"))
    if last.get("inputs") != work_digest(stage.name, stem, project, recipe):
        return stage
    return stage.model_copy(
        update={"seconds": startup + last["wall_seconds"], "basis": "as in the last build"}
    )


def foretell_image_bytes(recipe: Recipe, data: RealData) -> tuple[int, str]:
    """Bytes of all encoded images, and their basis.

    Counted on real ones of every class, as rough as the method makes them.
    """
    generator = torch.Generator().manual_seed(derive_seed("plan", "bytes"))
    each = max(1, SAMPLE // data.num_classes)
    rows = torch.cat([data.rows_of(c)[:each] for c in range(min(data.num_classes, SAMPLE))])
    images = data.images(rows)
    if recipe.method.texture:
        noise = torch.randn(images.shape, generator=generator)
        images = (images + recipe.method.texture * noise).clamp(0, 1)
    sizes = [len(content) for content in codec.encode(images, recipe.images)]
    rough = f" with noise of {recipe.method.texture:g}" if recipe.method.texture else ""
    return round(
        sum(sizes) / len(sizes) * recipe.ipc * data.num_classes
    ), f"{len(sizes)} real images encoded{rough}"


def foretell_labels(recipe: Recipe, image_bytes: int) -> tuple[int, int]:
    """Views per image and bytes of all labels with their geometry."""
    spec, target = recipe.relabel, recipe.target
    if spec is None:
        return 0, 0
    count = target.num_classes * target.ipc
    per_view = bytes_per_view(spec, target.num_classes)
    if spec.views is None:
        return 1, round(count * per_view)
    if isinstance(spec.count, int):
        return spec.count, round(spec.count * count * per_view)
    affordable = spec.budget * image_bytes / (count * per_view)
    if affordable >= spec.max_count:
        return spec.max_count, round(spec.max_count * count * per_view)
    # The budget is filled up to a view that does not fit; half a view is left on average.
    return max(1, int(affordable)), round(spec.budget * image_bytes - count * per_view / 2)


def bytes_per_view(spec: RelabelSpec, num_classes: int) -> float:
    """Compressed bytes of one view's label and geometry.

    The factors are those of benchmarks/results/labels.md: float16 logits shrink to 0.92, uint8
    logits with their range to 0.88, class numbers to a half, crops to 3 bytes.
    """
    kept = {"auto": num_classes if num_classes <= 200 else 50, "all": num_classes}.get(
        str(spec.top_k)
    )
    kept = kept if kept is not None else int(spec.top_k)
    narrow = spec.codec == "uint8" or (spec.codec == "auto" and spec.views is not None)
    size = 0.88 * (kept + 4) if narrow else 0.92 * 2 * kept
    size += kept + 4 if kept < num_classes else 0
    if spec.views is None:
        return size
    return size + 3 + (4 if spec.views.randaugment else 0) + (12 if spec.views.cutmix else 0)


def _stages(
    recipe: ResolvedRecipe, rates: Rates, views: int
) -> Iterator[tuple[str, str, float, str]]:
    target, counts = recipe.target, recipe.dataset.pinned.counts
    shape = (target.channels, target.height, target.width)
    count = target.num_classes * recipe.ipc
    yield STAGES[0], "validate, pin inputs", 0.0, "start-up of a process"
    seconds, steps, basis = 0.0, 0, "nothing to train"
    for spec in recipe.networks.values():
        if isinstance(spec, TrainSpec):
            rate = rates.step("train", spec.arch, shape, target.num_classes, spec.batch)
            seconds, steps, basis = (
                seconds + rate.seconds * spec.steps,
                steps + spec.steps,
                rate.basis,
            )
    yield "models", f"{len(recipe.networks)} networks, {steps} steps", seconds, basis

    cost = recipe.method.cost(recipe.target, counts)
    seconds, basis = 0.0, "no network involved"
    if cost.arch is not None:
        arch = recipe.networks[cost.arch].arch if cost.arch in recipe.networks else cost.arch
        if cost.forward:
            rate = rates.step("predict", arch, shape, target.num_classes, cost.forward)
            seconds, basis = seconds + cost.steps * rate.seconds, rate.basis
        if cost.backward:
            rate = rates.step("train", arch, shape, target.num_classes, cost.backward)
            seconds, basis = seconds + cost.steps * rate.seconds, rate.basis
    yield "synthesize", f"{recipe.method.name}, {cost.steps} steps", seconds, basis

    labelling, basis = 0.0, "no soft labels"
    if recipe.relabel is not None:
        roles = (
            ["teacher"]
            if recipe.relabel.by == "teacher"
            else [r for r in recipe.networks if r != "teacher"]
        )
        for role in roles:
            rate = rates.step(
                "predict",
                recipe.networks[role].arch,
                shape,
                target.num_classes,
                min(256, count * views),
            )
            labelling, basis = labelling + rate.seconds * max(1.0, count * views / 256), rate.basis
    yield "relabel", f"{count * views} views", labelling, basis
    yield "package", f"{count} rows", 0.0, "start-up of a process"

    work, seconds, basis = _evaluation(recipe, rates, labelling)
    yield "evaluate", work, seconds, basis
    yield "card", "figures, manifest", 2.0, "fixed"


def _evaluation(recipe: ResolvedRecipe, rates: Rates, labelling: float) -> tuple[str, float, str]:
    target, pin = recipe.target, recipe.dataset.pinned
    count = target.num_classes * recipe.ipc
    test = pin.test
    runs = planned_runs(
        recipe.evaluate,
        seed=recipe.seed,
        soft=recipe.relabel is not None,
        height=target.height,
        width=target.width,
        teacher=recipe.teacher is not None,
    )
    seconds, basis = 0.0, "nothing to evaluate"
    for run in runs:
        protocol = protocols.get(run.protocol)
        height, width = protocol.resolution(target.height, target.width)
        images = pin.train.rows if run.arm == "full_hard" else count
        shape = (target.channels, height, width)
        length = protocol.length(images, target.num_classes)
        rate = rates.step("train", run.arch, shape, target.num_classes, min(length.batch, images))
        tested = rates.step("predict", run.arch, shape, target.num_classes, 1000)
        seconds += length.steps * rate.seconds
        if run.regime == "soft_online" and recipe.teacher is not None:
            arch, look = recipe.teacher.arch, (target.channels, target.height, target.width)
            online = rates.step("predict", arch, look, target.num_classes, length.batch)
            seconds += length.steps * online.seconds
        tests = 1 + len(protocol.looks(length))
        seconds += tests * (test.rows if test is not None else 0) / 1000 * tested.seconds
        basis = rate.basis
    twins = len({run.subset_seed for run in runs if run.subset_seed is not None})
    return f"{len(runs)} runs", seconds + twins * labelling, basis
