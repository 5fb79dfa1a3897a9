"""What every stage of a build computes: calls, FLOPs of each, and how long one takes here."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distillhub.digests import fingerprint
from distillhub.errors import RecipeError
from distillhub.evaluation import protocols
from distillhub.evaluation.arms import PACKED, planned_runs
from distillhub.methods._base import CostPart
from distillhub.models.specs import DiffusionSpec, GeneratorTrainSpec, TrainSpec
from distillhub.pipeline.finished import FOLDER, run_key
from distillhub.pipeline.generators import GeneratorSizes, generator_sizes
from distillhub.pipeline.making import training_key
from distillhub.pipeline.rates import Rate, Rates, vae_flops
from distillhub.pipeline.standins import Family
from distillhub.pipeline.store import COMPLETE
from distillhub.pipeline.versions import CODE
from distillhub.recipe.schema import ResolvedRecipe
from distillhub.records.report import PlannedRun
from distillhub.spec import Spec

DECODE, ENCODE = 622e9 / 256**2, 273e9 / 256**2
"""FLOPs per pixel of the autoencoder of Stable Diffusion, counted at 256 pixels."""
LOOK = 256
"""Images per call where networks only look."""
TRAIN_KERNELS, LOOK_KERNELS = 200, 60
"""Kernels that a step of training, and another call, starts one after another on a GPU; about those
of ResNet-18 and of an iteration of NOpt."""
NOTHING = Rate(0.0, "")


class Task(NamedTuple):
    """A share of the work of a stage."""

    stage: str
    work: str
    """In words."""
    calls: float = 0.0
    flops: float = 0.0
    """Of one call."""
    rate: Rate = NOTHING
    """Of one call, here."""
    family: Family = "convolution"
    kernels: int = LOOK_KERNELS

    @property
    def seconds(self) -> float:
        """Of all calls, here."""
        return self.calls * self.rate.seconds


class Pricing(NamedTuple):
    """What the work of a recipe depends on."""

    recipe: ResolvedRecipe
    path: Path
    """The file that the user wrote."""
    rates: Rates
    state: Path
    """Scratch of the project, with the networks and runs that are kept."""
    views: int
    """Per image."""
    base_images: Sequence[int]
    """Images of each build that the recipe rests on."""

    def tasks(self) -> Iterator[Task]:
        """The work of all stages, in their order."""
        yield Task("resolve", "validate, pin inputs")
        yield from self._models()
        yield from self._synthesis()
        yield from self._labels("relabel", f"{self._images * self.views:,} views", 1)
        yield Task("package", f"{self._images:,} rows")
        yield from self._evaluation()
        yield Task("card", "figures, manifest", 1, 0.0, Rate(2.0, "fixed"))

    @property
    def _images(self) -> int:
        return self.recipe.target.num_classes * self.recipe.ipc

    @property
    def _shape(self) -> tuple[int, int, int]:
        target = self.recipe.target
        return target.channels, target.height, target.width

    # ---- models

    def _models(self) -> Iterator[Task]:
        recipe = self.recipe
        classes, rows = recipe.target.num_classes, recipe.dataset.pinned.train.rows
        for role, spec in recipe.networks.items():
            if self._kept(spec):
                yield Task("models", f"{role}: kept from another build")
                continue
            if isinstance(spec, TrainSpec):
                rate = self.rates.training(spec.arch, self._shape, classes, spec.batch)
                flops = 3 * spec.batch * self._flops(spec.arch)
                steps = spec.taken_steps(rows - round(recipe.dataset.holdout * rows))
                work = f"train {role}, {steps:,} steps of {spec.arch}"
                yield Task("models", work, steps, flops, rate, kernels=TRAIN_KERNELS)
            held_out = recipe.dataset.holdout * rows
            yield self._look("models", f"score {role} on held-out images", spec.arch, held_out)
        generator = recipe.generator
        if isinstance(generator, DiffusionSpec):
            yield Task("models", f"{generator.transformer}: fetched")
        elif generator is not None and self._kept(generator):
            yield Task("models", "generator: kept from another build")
        elif generator is not None:
            yield from self._generator(generator)

    def _kept(self, spec: Spec) -> bool:
        """Whether the store has a network: trained before, for this or another recipe."""
        key = fingerprint(
            spec.model_dump(mode="json"),
            training_key(self.recipe.dataset),
            CODE["models"],
        )
        return (self.state / "models" / key / COMPLETE).exists()

    def _generator(self, spec: GeneratorTrainSpec) -> Iterator[Task]:
        if spec.vae is not None:
            flops = 3 * spec.vae.batch * sum(vae_flops(spec.vae, self._shape))
            rate = Rate(flops / self.rates.speed("convolution"), "FLOPs at the speed here")
            work = f"train autoencoder, {spec.vae.steps:,} steps"
            yield Task("models", work, spec.vae.steps, flops, rate, kernels=TRAIN_KERNELS)
        sizes = self._sizes
        rate = self.rates.transformer(sizes.arch, sizes.latent, spec.batch, sizes.flops, train=True)
        yield Task(
            "models",
            f"train generator, {spec.steps:,} steps of {spec.arch}",
            spec.steps,
            3 * spec.batch * sizes.flops,
            rate,
            "transformer",
            TRAIN_KERNELS,
        )

    # ---- synthesize

    @property
    def _sizes(self) -> GeneratorSizes:
        spec = self.recipe.generator
        sizes = (
            None if spec is None else generator_sizes(spec, self.recipe.target, self.path.parent)
        )
        if sizes is None:
            raise RecipeError(
                "the sizes of the generator are only in its checkpoint, which is not asked for",
                where=f"{self.path}: generator.transformer",
                mend="download it and name the folder, or plan with a well-known checkpoint",
            )
        return sizes

    def _synthesis(self) -> Iterator[Task]:
        recipe = self.recipe
        method, target = recipe.method, recipe.target
        cost = method.cost(target, recipe.dataset.pinned.counts)
        for spec in method.students:
            # Each student looks at every class once, for which the method counts a step.
            students = cost.steps // (target.num_classes * max(1, len(self.base_images)))
            protocol = protocols.get(spec.protocol)
            arch = spec.arch or protocol.students_for(target.height, target.width)[0]
            for images in self.base_images:
                yield from self._student(spec.protocol, arch, images, students)
        for part in cost.parts:
            if part.network is not None and "observer" in part.network:
                yield from self._guided(part, method.name)
            else:
                yield self._part(part, method.name)
        if not cost.parts and cost.arch is None:
            yield Task("synthesize", f"{method.name}, {cost.steps:,} steps without a network")
        elif cost.arch is not None:
            arch = recipe.networks[cost.arch].arch if cost.arch in recipe.networks else cost.arch
            for rows, passes, way in (
                (cost.forward, 1, "forward"), (cost.backward, 3, "forward and back")
            ):  # fmt: skip
                if rows:
                    work = f"{method.name}, {cost.steps:,} steps {way}"
                    yield self._steps(work, cost.steps, rows, arch, passes)
            if (queue := cost.trained) is not None:
                work = f"{method.name}: {queue.name}, {queue.calls:,} steps, shared"
                yield self._steps(work, queue.calls, queue.rows, arch, 3)

    def _steps(self, work: str, calls: int, rows: int, arch: str, passes: int) -> Task:
        """Images through a network; 2 passes: and back to the pixels, 3: to its weights as well."""
        measure = (self.rates.forward, self.rates.pixels, self.rates.training)[passes - 1]
        rate = measure(arch, self._shape, self.recipe.target.num_classes, rows)
        flops = passes * rows * self._flops(arch)
        kernels = LOOK_KERNELS if passes == 1 else TRAIN_KERNELS
        return Task("synthesize", work, calls, flops, rate, kernels=kernels)

    def _part(self, part: CostPart, method: str) -> Task:
        """A share of the work of a method that samples from a generator."""
        work = f"{method}: {part.name}, {part.calls:,} calls" + (", shared" if part.shared else "")
        sizes = self._sizes
        if part.network == "generator":
            rate = self.rates.transformer(
                sizes.arch, sizes.latent, part.rows, sizes.flops, train=False
            )
            flops = part.rows * sizes.flops
            return Task("synthesize", work, part.calls, flops, rate, "transformer")
        if part.network is not None:
            encode, decode = self._autoencoder()
            flops = part.rows * (encode if part.network == "encoder" else decode)
            rate = Rate(flops / self.rates.speed("convolution"), "FLOPs at the speed here")
            return Task("synthesize", work, part.calls, flops, rate if flops else NOTHING)
        flops = 0.0 if part.flops is None else part.flops(sizes.latent)
        probe, device = part.probe, self.rates.device
        if probe is None:
            rate = Rate(flops / self.rates.speed("convolution"), "FLOPs at the speed here")
        else:
            key = fingerprint(self.recipe.method.model_dump(mode="json"), sizes.latent, part[:4])
            rate = self.rates.timed(
                f"{method} {part.name} {key[:16]}", flops, lambda: probe(sizes.latent, device)
            )
        return Task("synthesize", work, part.calls, flops, rate)

    def _guided(self, part: CostPart, method: str) -> Iterator[Task]:
        """The same of a method that observers guide: the shares of each of them."""
        archs = {r: spec.arch for r, spec in self.recipe.networks.items() if r != "teacher"}
        if part.network in archs:
            archs = {part.network: archs[part.network]}
        for place, arch in enumerate(archs.values()):
            in_turn = len(range(place, part.calls, len(archs)))
            calls = in_turn if part.network == "observers" else part.calls
            shared = ", shared" if part.shared else ""
            work = f"{method}: {part.name}, {calls:,} calls of {arch}{shared}"
            yield self._steps(work, calls, part.rows, arch, 2 if part.backward else 1)

    def _autoencoder(self) -> tuple[float, float]:
        """FLOPs of encoding and of decoding an image; none where latents are pixels."""
        spec = self.recipe.generator
        _, height, width = self._shape
        if isinstance(spec, DiffusionSpec) and spec.vae is not None:
            return ENCODE * height * width, DECODE * height * width
        if isinstance(spec, GeneratorTrainSpec) and spec.vae is not None:
            return vae_flops(spec.vae, self._shape)
        return 0.0, 0.0

    def _student(self, name: str, arch: str, images: int, count: int) -> Iterator[Task]:
        """Students that a method trains on a base."""
        protocol, target = protocols.get(name).for_student(arch), self.recipe.target
        length = protocol.length(images, target.num_classes)
        shape = (target.channels, *protocol.resolution(target.height, target.width))
        flops = length.batch * self.rates.network_flops(arch, shape, target.num_classes)
        rate = self.rates.training(arch, shape, target.num_classes, length.batch, protocol.augment)
        work = f"train {count} student{'s' if count > 1 else ''} on {images:,} images, {arch}"
        calls = count * length.steps
        yield Task("synthesize", work, calls, 3 * flops, rate, kernels=TRAIN_KERNELS)
        if "soft_online" in protocol.regimes:
            yield self._look(
                "synthesize", "their labels online", "teacher", calls * length.batch, protocol.size
            )

    # ---- relabel, evaluate

    def _labels(self, stage: str, work: str, times: float) -> Iterator[Task]:
        """Soft labels of the set, or of as many random twins."""
        spec = self.recipe.relabel
        if spec is None or not times:
            if stage == "relabel":
                yield Task(stage, "hard labels only")
            return
        side = None if spec.views is None else spec.views.size
        for role in self.recipe.labelling:
            yield self._look(stage, work, role, times * self._images * self.views, side)

    def _look(
        self, stage: str, work: str, arch: str, images: float, side: int | None = None
    ) -> Task:
        """Images through a network, or the one of a role, at `side` pixels."""
        networks, target = self.recipe.networks, self.recipe.target
        arch = networks[arch].arch if arch in networks else arch
        shape = self._shape if side is None else (target.channels, side, side)
        each = int(max(1, min(LOOK, images)))
        rate = self.rates.forward(arch, shape, target.num_classes, each)
        flops = each * self.rates.network_flops(arch, shape, target.num_classes)
        return Task(stage, work, images / each, flops, rate)

    def _flops(self, arch: str) -> float:
        return self.rates.network_flops(arch, self._shape, self.recipe.target.num_classes)

    def _evaluation(self) -> Iterator[Task]:
        recipe, pin = self.recipe, self.recipe.dataset.pinned
        target = recipe.target
        runs = planned_runs(
            recipe.evaluate,
            seed=recipe.seed,
            soft=recipe.relabel is not None,
            height=target.height,
            width=target.width,
            teacher=bool(recipe.labelling),
            mosaics=recipe.method.grid > 1,
        )
        if not runs:
            yield Task("evaluate", "nothing to evaluate")
        counted = [(r, self._train_images(r)) for r in runs if not self._known_run(r)]
        alike = Counter((r.protocol, r.arch, r.regime, images) for r, images in counted)
        for (name, arch, regime, images), count in alike.items():
            protocol = protocols.get(name).for_student(arch)
            length = protocol.length(images, target.num_classes)
            shape = (target.channels, *protocol.resolution(target.height, target.width))
            batch = min(length.batch, images)
            each = self.rates.network_flops(arch, shape, target.num_classes)
            rate = self.rates.training(arch, shape, target.num_classes, batch, protocol.augment)
            work = f"{count} {regime} runs of {arch}, {length.steps:,} steps"
            calls = count * length.steps
            yield Task("evaluate", work, calls, 3 * batch * each, rate, kernels=TRAIN_KERNELS)
            if regime == "soft_online":
                for role in recipe.labelling:
                    looks = calls * batch
                    yield self._look("evaluate", "labels online", role, looks, protocol.size)
            tested = count * (1 + len(protocol.looks(length))) * (pin.test.rows if pin.test else 0)
            if tested:
                yield self._look("evaluate", "tests", arch, tested, protocol.size)
        if len(runs) > sum(alike.values()):
            kept = len(runs) - sum(alike.values())
            yield Task("evaluate", f"{kept} runs on the real data: kept from another build")
        twins = Counter(arm for arm, _ in {(run.arm, run.subset_seed) for run in runs})
        plain, packed = twins["rnd_soft"], twins["rnd_packed_soft"]
        work = f"labels of {plain + packed} random twins"
        yield from self._labels("evaluate", work, plain / recipe.method.grid**2 + packed)

    def _train_images(self, planned: PlannedRun) -> int:
        """Of a run: a mosaic gives as many as it has sub-images."""
        if planned.arm == "full_hard":
            return self.recipe.dataset.pinned.train.rows
        whole = planned.arm.startswith("rnd") and planned.arm not in PACKED
        return self._images * (1 if whole else self.recipe.method.grid**2)

    def _known_run(self, planned: PlannedRun) -> bool:
        """Whether a run on the real data was made before; others are only known by their images."""
        if planned.arm != "full_hard":
            return False
        key = run_key(planned, self.recipe.dataset, None, labellers=(), device=self.rates.device)
        return (self.state / "resources" / FOLDER / f"{key[:32]}.json").exists()


def seconds_here(tasks: Iterable[Task]) -> float:
    """Of all tasks, on this machine."""
    return sum(task.seconds for task in tasks)
