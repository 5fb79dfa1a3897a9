"""`distillhub plan`: units, bytes, FLOPs and time of a build before any of it is done."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from distillhub.data import codec
from distillhub.data.known import foretold_bytes, published_pin
from distillhub.data.sources import RealData, open_split
from distillhub.errors import DataError, RecipeError
from distillhub.pipeline.bases import Link, chain, find_built
from distillhub.pipeline.checkpoint import pin_threads
from distillhub.pipeline.devices import DEVICES
from distillhub.pipeline.making import plan_units
from distillhub.pipeline.pricing import Pricing, Task, seconds_here
from distillhub.pipeline.project import Project
from distillhub.pipeline.rates import Rates
from distillhub.pipeline.resolve import kept_pin, resolve
from distillhub.pipeline.run import pick_device
from distillhub.pipeline.stages import work_digest
from distillhub.pipeline.versions import CODE, STAGES
from distillhub.recipe.schema import Recipe, ResolvedRecipe
from distillhub.relabel.spec import RelabelSpec
from distillhub.spec import Spec
from distillhub.units import derive_seed

SAMPLE = 256
"""Real images that are encoded to foretell the size of the distilled ones."""


HERE = "parts above: timed here, or their FLOPs at the speed of a few layers timed here"


class PartPlan(Spec):
    """A share of the work of a stage."""

    work: str
    """In words: what, how many steps."""
    flops: float
    seconds: float
    """On this machine."""
    basis: str
    """Where the seconds come from."""


class StagePlan(Spec):
    """What one stage will do."""

    name: str
    parts: tuple[PartPlan, ...]
    seconds: float
    """On this machine, the start of its process included."""
    basis: str
    """Where the seconds of its longest part come from."""

    @property
    def flops(self) -> float:
        """Of all parts."""
        return sum(part.flops for part in self.parts)


class DevicePlan(Spec):
    """How long the computing of a build takes on a kind of device."""

    name: str
    seconds_make: float
    """Of this build up to its evaluation."""
    seconds_evaluate: float
    seconds_bases: float
    """Of the builds that it rests on and that are not built yet."""
    source: str
    """Where the speed comes from."""


class BasePlan(Spec):
    """A build that another one rests on."""

    recipe: str
    images: int
    flops: float
    seconds: float
    """On this machine."""
    built: bool


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
    """Bytes of the build's folders, its scratch and the resources that it keeps together."""
    stages: tuple[StagePlan, ...]
    bases: tuple[BasePlan, ...] = ()
    """In the order of building; each rests on earlier ones at most."""
    devices: tuple[DevicePlan, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all stages on this machine, without the bases."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def flops(self) -> float:
        """Of all stages."""
        return sum(stage.flops for stage in self.stages)


def make_plan(path: Path, project: Project, *, startup: float | None = None) -> Plan:
    """The plan of a recipe, without writing anything but caches of digests and of rates.

    Args:
        path: The recipe's file.
        project: Knows sources and earlier builds.
        startup: Seconds that a stage's process takes before its work; None: as long as this one
            took so far.

    Raises:
        RecipeError: If the recipe, its bases or its data cannot be used.
    """
    begin = time.process_time() if startup is None else startup
    pin_threads()
    rates = Rates(pick_device(), project.state / "rates.json")
    links = chain(project.written(path.stem))
    images: dict[Path, int] = {}
    plans: list[tuple[Link, Plan, list[Task]]] = []
    for link in links:
        on = [images[base] for base in link.bases.values()]
        made, tasks = _plan(link, project, rates, begin, on)
        images[link.path] = made.images
        plans.append((link, made, tasks))
    rates.save()
    _, mine, my_tasks = plans.pop()
    built = [find_built(link.path, project) is not None for link, _, _ in plans]
    missing = [task for (_, _, tasks), done in zip(plans, built, strict=True) if not done
               for task in tasks]  # fmt: skip
    bases = tuple(
        BasePlan(
            recipe=base.recipe,
            images=base.images,
            flops=base.flops,
            seconds=base.seconds,
            built=done,
        )
        for (_, base, _), done in zip(plans, built, strict=True)
    )
    devices = [
        DevicePlan(
            name=name,
            seconds_make=seconds([t for t in my_tasks if t.stage != "evaluate"]),
            seconds_evaluate=seconds([t for t in my_tasks if t.stage == "evaluate"]),
            seconds_bases=seconds(missing),
            source=source,
        )
        for name, seconds, source in (
            (f"this machine, {mine.device}", seconds_here, HERE),
            *((kind.name, kind.seconds, kind.source) for kind in DEVICES),
        )
    ]
    return mine.model_copy(update={"bases": bases, "devices": tuple(devices)})


def _plan(
    link: Link, project: Project, rates: Rates, startup: float, base_images: Sequence[int]
) -> tuple[Plan, list[Task]]:
    """The plan of one build, and its tasks, for the speed of other devices."""
    stem = link.path.stem
    resolved, image_bytes, bytes_basis = _at_hand(link, project)
    method, target = resolved.method, resolved.target
    count = target.num_classes * resolved.ipc
    if method.by_reference and base_images:
        image_bytes = round(image_bytes * max(base_images) / count)
        bytes_basis += "; real images are published without pixels"
    views, label_bytes = foretell_labels(resolved, image_bytes)
    pricing = Pricing(resolved, link.path, rates, project.state, views, base_images)
    tasks = list(pricing.tasks())
    stages = [_stage(name, tasks, startup) for name in STAGES]
    stages = [_as_last_time(stage, stem, project, resolved, startup) for stage in stages]
    total = image_bytes + label_bytes
    cost = method.cost(target, resolved.dataset.pinned.counts)
    kept = sum(part.stored for part in (*cost.parts, cost.trained) if part is not None)
    weights = len(resolved.networks) * 4_000_000
    # What is put together of stored images is never held as tensors.
    pixels = 0 if method.keeps_files else target.channels * target.height * target.width * 4
    made = Plan(
        recipe=stem,
        device=str(rates.device),
        images=count,
        # A set that is put together of others is one unit; its million slots need not be counted.
        units=1
        if method.keeps_files
        else sum(1 for _ in plan_units(method, target, resolved.seed)),
        bytes_images=image_bytes,
        bytes_labels=label_bytes,
        bytes_basis=bytes_basis,
        disk=4 * total + 2 * weights + count * pixels + kept,
        stages=tuple(stages),
    )
    return made, tasks


def _at_hand(link: Link, project: Project) -> tuple[ResolvedRecipe, int, str]:
    """The resolved recipe, the bytes of its images and how they were foretold.

    What is known of a published set stands in where its images are not on this machine; the Hub is
    not asked.
    """
    recipe = link.recipe
    sources = project.sources
    if recipe.dataset.id.startswith("."):
        sources[recipe.dataset.id] = (link.path.parent / recipe.dataset.id).resolve()
    kept = kept_pin(recipe.dataset, project.resolved(link.path.stem), update=False)
    stand_in = published_pin(recipe.dataset)
    if stand_in is not None and recipe.dataset.id not in sources:
        dataset = recipe.dataset.model_copy(update={"pin": kept or stand_in})
        fields = {name: getattr(recipe, name) for name in Recipe.model_fields}
        resolved = ResolvedRecipe(**{**fields, "dataset": dataset}, code=CODE)
        target = resolved.target
        each = foretold_bytes(recipe.images, target.channels, target.height, target.width)
        basis = f"published facts of {recipe.dataset.id}, which is not at hand"
        return resolved, round(each * target.num_classes * recipe.ipc), basis
    resolved = resolve(recipe, link.path, project, kept)
    try:
        data = open_split(resolved.dataset, "train", sources)
    except DataError as error:
        raise RecipeError.of(error.faults) from error
    return resolved, *foretell_image_bytes(resolved, data)


def _stage(name: str, tasks: Sequence[Task], startup: float) -> StagePlan:
    mine: dict[str, list[Task]] = {}
    for task in tasks:
        if task.stage == name:
            mine.setdefault(task.work, []).append(task)
    parts = [
        PartPlan(
            work=work,
            flops=sum(task.calls * task.flops for task in alike),
            seconds=seconds_here(alike),
            basis=alike[0].rate.basis,
        )
        for work, alike in mine.items()
    ]
    return StagePlan(
        name=name,
        parts=tuple(parts),
        seconds=startup + sum(part.seconds for part in parts),
        basis=(max(parts, key=lambda part: part.seconds).basis if parts else "")
        or "start-up of a process",
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
    """Views per image and bytes of all labels with their geometry.

    Every sub-image of a mosaic has views of its own.
    """
    spec, target, subs = recipe.relabel, recipe.target, recipe.method.grid**2
    if spec is None:
        return 0, 0
    count = target.num_classes * target.ipc * subs
    per_view = bytes_per_view(spec, target.num_classes)
    if spec.views is None:
        return subs, round(count * per_view)
    if isinstance(spec.count, int):
        return spec.count * subs, round(spec.count * count * per_view)
    affordable = spec.budget * image_bytes / (count * per_view)
    if affordable >= spec.max_count:
        return spec.max_count * subs, round(spec.max_count * count * per_view)
    # The budget is filled up to a view that does not fit; half a view is left on average.
    fitting = max(1, int(affordable))
    return fitting * subs, round(spec.budget * image_bytes - count * per_view / 2)


def bytes_per_view(spec: RelabelSpec, num_classes: int) -> float:
    """Compressed bytes of one view's label and geometry.

    The factors are those of benchmarks/results/labels.md: float16 logits shrink to 0.92, uint8
    logits with their range to 0.88, class numbers to a half, crops to 3 bytes.
    """
    kept = spec.kept(num_classes)
    narrow = spec.codec == "uint8" or (spec.codec == "auto" and spec.views is not None)
    size = 0.88 * (kept + 4) if narrow else 0.92 * 2 * kept
    size += kept + 4 if kept < num_classes else 0
    if spec.views is None:
        return size
    return size + 3 + (4 if spec.views.randaugment else 0) + (12 if spec.views.cutmix else 0)
