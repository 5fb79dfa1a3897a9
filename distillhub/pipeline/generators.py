"""The generator of a recipe: checked and pinned by `resolve`, made by the models stage."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distillhub.data.sources import RealData
from distillhub.data.subsets import imagenet_labels
from distillhub.digests import fingerprint
from distillhub.errors import DataError, Fault, RecipeError
from distillhub.models import diffusion_files
from distillhub.models.checkpoints import (
    KNOWN,
    KNOWN_VAES,
    Checkpoint,
    Known,
    describe,
    facts_of,
    fetch,
    is_local,
    license_of,
    local_folder,
    vae_facts_of,
)
from distillhub.models.diffusion_files import GeneratorRecord, latent_shape, write_record
from distillhub.models.diffusion_training import train_generator
from distillhub.models.dit_arch import DitArch, check_latents, check_side, parse_dit
from distillhub.models.specs import DiffusionSpec, GeneratorSpec, GeneratorTrainSpec
from distillhub.pipeline.checkpoint import drive
from distillhub.pipeline.files import replaced_folder, storage_errors
from distillhub.pipeline.project import WEIGHTS, Project
from distillhub.pipeline.run import StageRun
from distillhub.pipeline.store import stored
from distillhub.pipeline.versions import CODE
from distillhub.recipe.schema import Recipe
from distillhub.units import Target


class GeneratorSizes(NamedTuple):
    """What of a generator its cost depends on."""

    arch: DitArch
    latent: tuple[int, int, int]
    """(c, h, w)."""
    learned_variance: bool

    @property
    def flops(self) -> float:
        """Of one forward pass of one row, 2 per multiply-add; a guided sample has two rows."""
        channels, side, _ = self.latent
        return self.arch.flops(channels, channels * (1 + self.learned_variance), side)


def generator_sizes(spec: GeneratorSpec, target: Target, base: Path) -> GeneratorSizes | None:
    """The sizes of a recipe's generator, without its weights; None where they are not known here.

    Args:
        spec: Of the recipe, resolved or not.
        target: What the method is asked for.
        base: Folder of the recipe.
    """
    if isinstance(spec, GeneratorTrainSpec):
        latent = latent_shape(spec, (target.channels, target.height, target.width))
        return GeneratorSizes(parse_dit(spec.arch), latent, spec.variance == "learned")
    known = _facts(spec, base)
    return None if known is None else GeneratorSizes(known.arch, known.latent, True)


# ---- resolve


def generator_faults(recipe: Recipe, path: Path) -> Iterator[Fault]:
    """What the data make impossible for the recipe's generator; nothing is downloaded."""
    spec, target = recipe.generator, recipe.target
    if spec is None:
        return
    image = (target.channels, target.height, target.width)
    if isinstance(spec, GeneratorTrainSpec):
        try:
            _, height, width = latent_shape(spec, image)
            check_side(parse_dit(spec.arch), height, width)
        except ValueError as error:
            yield Fault(
                str(error), f"{path}: generator", "change dataset.size, the patch or the vae"
            )
        return
    try:
        known, vae = _facts(spec, path.parent), _vae_facts(spec, path.parent)
    except DataError as error:
        yield from (f._replace(where=f"{path}: generator: {f.where}") for f in error.faults)
        return
    yield from _label_faults(spec, recipe, path, known)
    if known is not None and (spec.vae is None or vae is not None):
        try:
            check_latents(known.latent, image, vae)
        except ValueError as error:
            yield Fault(
                str(error),
                f"{path}: generator",
                "set dataset.size and generator.vae to what the transformer was made for",
            )


def _label_faults(
    spec: DiffusionSpec, recipe: Recipe, path: Path, known: Known | None
) -> Iterator[Fault]:
    names = recipe.dataset.pinned.class_names
    where = f"{path}: generator.classes"
    if isinstance(spec.classes, str):
        unknown = [n for n, k in zip(names, imagenet_labels(names), strict=True) if k is None]
        if unknown:
            yield Fault(
                f"{len(unknown)} of the {len(names)} classes have no known label of the generator, "
                f"e.g. '{unknown[0]}'",
                where,
                "list the generator's label of every class, or train a generator: "
                "{arch: dit-w128-d4-h4-p2}",
            )
        return
    if len(spec.classes) != len(names):
        yield Fault(
            f"{len(spec.classes)} labels for {len(names)} classes",
            where,
            "list one label for each class of the data set, in its order",
        )
    limit = known.classes if known is not None else None
    wrong = [k for k in spec.classes if k < 0 or (limit is not None and k >= limit)]
    if wrong:
        yield Fault(
            f"the generator has no label {wrong[0]}",
            where,
            f"its labels are 0 .. {limit - 1}" if limit is not None else "labels begin at 0",
        )


def pinned_generator(
    spec: GeneratorSpec, recipe: Recipe, path: Path, project: Project
) -> GeneratorSpec:
    """Labels and license written out; local checkpoints pinned by content.

    A local checkpoint is copied into the project's state under its digest.

    Raises:
        RecipeError: If a local checkpoint is not that of the recipe, or none at all.
    """
    if isinstance(spec, GeneratorTrainSpec):
        return spec
    update: dict[str, object] = {"license": license_of(spec.transformer, spec.license)}
    if isinstance(spec.classes, str):
        update["classes"] = tuple(imagenet_labels(recipe.dataset.pinned.class_names))
    for part, source, stated in (
        ("transformer", spec.transformer, spec.transformer_sha256),
        ("vae", spec.vae, spec.vae_sha256),
    ):
        if source is not None and is_local(source):
            digest = _keep(source, part, stated, path, project)
            update[f"{part}_sha256"] = digest
    return spec.model_copy(update=update)


def _keep(source: str, part: str, stated: str | None, path: Path, project: Project) -> str:
    """Digest of a local checkpoint, which is copied into the project's state."""
    kept = project.state / WEIGHTS
    if stated is not None and (kept / stated).is_dir():
        return stated
    try:
        folder = local_folder(source, part, path.parent)
        found = describe(folder, source, part, None)
    except DataError as error:
        raise RecipeError.of(
            f._replace(where=f"{path}: generator.{part}: {f.where}") for f in error.faults
        ) from error
    if stated not in (None, found.sha256):
        raise RecipeError(
            f"sha256 of {source} is {found.sha256}, the recipe says {stated}",
            where=f"{path}: generator.{part}_sha256",
            mend="use the checkpoint that the recipe was made with, or correct the digest",
        )
    if not (kept / found.sha256).is_dir():
        with storage_errors(kept):
            kept.mkdir(parents=True, exist_ok=True)
            with replaced_folder(kept / found.sha256) as fresh:
                for name in found.files:
                    shutil.copyfile(folder / name, fresh / name)
    return found.sha256


def _facts(spec: DiffusionSpec, base: Path) -> Known | None:
    if is_local(spec.transformer):
        folder = local_folder(spec.transformer, "transformer", base)
        return facts_of(folder, spec.license or "")
    return KNOWN.get(spec.transformer)


def _vae_facts(spec: DiffusionSpec, base: Path) -> tuple[int, int] | None:
    if spec.vae is None:
        return None
    if is_local(spec.vae):
        return vae_facts_of(local_folder(spec.vae, "vae", base))
    return KNOWN_VAES.get(spec.vae)


# ---- models


def make_generator(
    run: StageRun, spec: GeneratorSpec, data: RealData, data_key: object, out: Path
) -> dict[str, object]:
    """Write the recipe's generator into `out`; its entry in the index of networks.

    One trained here is taken from the store where another recipe trained it already.

    Raises:
        DataError: If a checkpoint is missing, gated, or not what the recipe needs.
    """
    if isinstance(spec, DiffusionSpec):
        record = _fetched(run, spec, data)
        write_record(out, record)
        known = record.transformer
        return {
            "sha256": record.identity["weights"],
            "arch": Path(spec.transformer).name if is_local(spec.transformer) else spec.transformer,
            "top1": None,
            "revision": None if known is None else known.revision,
            "license": record.license,
        }
    key = fingerprint(spec.model_dump(mode="json"), data_key, CODE["models"])
    folder = stored(
        run.project.state / "models",
        key,
        functools.partial(_train, run, spec, data),
        functools.partial(run.reporter.note, "generator: another build makes it"),
    )
    for suffix in (".safetensors", ".json"):
        name = f"{diffusion_files.STEM}{suffix}"
        shutil.copyfile(folder / name, out / name)
    record = diffusion_files.read_record(out)
    entry: dict[str, object] = {"sha256": record.sha256, "arch": spec.arch, "top1": None}
    return {**entry, "revision": None, "license": None}


def _train(run: StageRun, spec: GeneratorTrainSpec, data: RealData, folder: Path) -> None:
    trained = drive(
        lambda state: train_generator(spec, data.fit, device=run.device, state=state),
        label=f"train generator ({spec.arch})",
        checkpoint=run.work.checkpoint("generator"),
        reporter=run.reporter,
        stop=run.stop,
    )
    diffusion_files.save_trained(
        folder,
        spec,
        trained.transformer,
        trained.vae,
        image_shape=(data.channels, data.height, data.width),
        num_classes=data.num_classes,
        scaling=trained.scaling,
        losses=trained.losses,
    )


def _fetched(run: StageRun, spec: DiffusionSpec, data: RealData) -> GeneratorRecord:
    """The record of a published generator, whose files are at hand and fit the data."""
    kept = run.project.state / WEIGHTS
    image = (data.channels, data.height, data.width)
    folder, transformer = _checkpoint(
        spec.transformer, "transformer", spec.revision, spec.transformer_sha256, kept
    )
    known, vae, vae_sizes = facts_of(folder, spec.license or ""), None, None
    if spec.vae is not None:
        folder, vae = _checkpoint(spec.vae, "vae", spec.vae_revision, spec.vae_sha256, kept)
        vae_sizes = vae_facts_of(folder)
    labels = spec.classes
    if isinstance(labels, str):
        raise AssertionError("labels that resolve did not write out")
    try:
        check_latents(known.latent, image, vae_sizes)
        if max(labels) >= known.classes:
            raise ValueError(f"label {max(labels)} of a generator with {known.classes} classes")
    except ValueError as error:
        raise DataError(
            str(error),
            where=f"generator: {spec.transformer}",
            mend="set dataset.size, generator.vae and generator.classes to what the transformer "
            "was made for",
        ) from error
    return GeneratorRecord(
        spec=spec,
        image_shape=image,
        labels=labels,
        scaling=spec.scaling,
        license=spec.license,
        transformer=transformer,
        vae=vae,
    )


def _checkpoint(
    source: str, part: str, revision: str | None, sha256: str | None, kept: Path
) -> tuple[Path, Checkpoint]:
    """Folder and files of a checkpoint."""
    if sha256 is not None:
        return kept / sha256, describe(kept / sha256, source, part, None)
    folder, commit = fetch(source, part, revision)
    return folder, describe(folder, source, part, commit)
