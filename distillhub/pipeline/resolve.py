"""`resolve`: a recipe with every default written out and every input pinned by content."""

import io
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from distillhub.data.sources import pin_source
from distillhub.data.specs import DataPin, SourceSpec
from distillhub.digests import sha256_of
from distillhub.errors import Fault, RecipeError
from distillhub.evaluation import protocols
from distillhub.models.specs import ModelSpec, NetworkSpec, TrainSpec
from distillhub.models.zoo import build, find_weights, parse_arch
from distillhub.pipeline.bases import Link, base_digests, compared, find_built, link
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.generators import generator_faults, pinned_generator
from distillhub.pipeline.heads import outputs_of
from distillhub.pipeline.project import WEIGHTS, Project
from distillhub.pipeline.versions import CODE
from distillhub.recipe.loading import load_recipe, load_resolved
from distillhub.recipe.schema import Recipe, ResolvedRecipe

_HEADER = """\
# Written by `distillhub stage resolve`; like a lock file, kept in git and never edited by hand.
"""


def resolve_recipe(path: Path, project: Project, *, update: bool = False) -> ResolvedRecipe:
    """Validate a recipe, pin its inputs and write `recipes/resolved/<stem>.yaml` if it changed.

    Args:
        path: The recipe's file.
        project: Where sources, digest cache and the resolved file are.
        update: Take the data as they are now, instead of refusing data that changed since the last
            time.

    Raises:
        RecipeError: With all faults of the recipe, its data, its weights and its bases, or if a
            base is not built yet.
    """
    recipe = load_recipe(path)
    written = project.written(path.stem)
    target = project.resolved(path.stem)
    kept = kept_pin(recipe.dataset, target, update=update)
    resolved = resolve(recipe, written, project, kept)
    if recipe.method.bases:
        check_bases(link(written), resolved.dataset.pinned, project, update=update)
        digests = base_digests(written, project)
        resolved = resolved.model_copy(update={"bases": digests})
    text = _HEADER + to_yaml(resolved.model_dump(mode="json"))
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        with storage_errors(target.parent):
            write_text(target, text)
    return resolved


def foresee(step: Link, project: Project, *, update: bool = False) -> None:
    """Find what is wrong with a recipe and with how it fits to its bases; nothing is built.

    Args:
        step: The recipe.
        project: Where it is built.
        update: Take the data as they are now.

    Raises:
        RecipeError: With all faults of the recipe, or everything in which they do not fit together.
    """
    kept = kept_pin(step.recipe.dataset, project.resolved(step.path.stem), update=update)
    pin = resolve(step.recipe, step.path, project, kept).dataset.pinned
    check_bases(step, pin, project, update=update)


def check_bases(upper: Link, pin: DataPin, project: Project, *, update: bool = False) -> None:
    """Compare a recipe with those it rests on.

    Args:
        upper: The recipe.
        pin: Of its data set.
        project: Where it is built.
        update: Take the data as they are now.

    Raises:
        RecipeError: With everything in which they do not fit together.
    """
    bases = {}
    for path in upper.bases.values():
        base, place = load_recipe(path), find_built(path, project)
        kept = None
        if place is not None:
            kept = kept_pin(base.dataset, place.resolved(path.stem), update=update)
        sources = project.sources
        if base.dataset.id.startswith("."):
            sources[base.dataset.id] = (path.parent / base.dataset.id).resolve()
        bases[path] = (base, _pin(base, path, sources, project, kept))
    faults = list(compared(upper, pin, bases))
    if faults:
        raise RecipeError.of(faults)


def resolve(recipe: Recipe, path: Path, project: Project, kept: DataPin | None) -> ResolvedRecipe:
    """The resolved recipe, without writing anything; its bases are not looked for."""
    pin = _pin(recipe, path, project.sources_for(recipe.dataset), project, kept)
    dataset = recipe.dataset.model_copy(update={"pin": pin, "revision": pin.revision})
    pinned = recipe.model_copy(update={"dataset": dataset})
    faults = list(_impossible(pinned, path))
    faults += generator_faults(pinned, path)
    generator = pinned.generator
    networks: dict[str, NetworkSpec] = {}
    for role, spec in recipe.networks.items():
        try:
            networks[role] = _pinned(spec, role, pin.class_names, path, project)
        except RecipeError as error:
            faults += error.faults
    files: dict[str, str] = {}
    for name in recipe.method.files:
        try:
            files[name] = _kept(path.parent / name, project)
        except OSError as error:
            what = f"{name} cannot be read: {error.strerror}"
            faults.append(Fault(what, f"{path}: method", "name a file, seen from this recipe"))
    try:
        if generator is not None and not faults:
            generator = pinned_generator(generator, pinned, path, project)
    except RecipeError as error:
        faults += error.faults
    if faults:
        raise RecipeError.of(faults)
    fields = {name: getattr(pinned, name) for name in Recipe.model_fields}
    return ResolvedRecipe(
        **{
            **fields,
            "method": recipe.method.settled(pinned.target).with_files(files),
            "teacher": networks.pop("teacher", None),
            "observers": tuple(networks.values()),
            "generator": generator,
            "code": CODE,
        }
    )


def _pin(
    recipe: Recipe,
    path: Path,
    sources: Mapping[str, Path],
    project: Project,
    kept: DataPin | None,
) -> DataPin:
    """The pin of a recipe's data set, which is the one of the last time where there was one."""
    pin = pin_source(_at_revision(recipe.dataset, kept), sources, project.state / "digests.json")
    if kept is not None and (pin.train, pin.test) != (kept.train, kept.test):
        raise RecipeError(
            f"the images or labels of {recipe.dataset.id} are not those that this recipe was "
            f"resolved with (train {kept.train.sha256[:12]} then, {pin.train.sha256[:12]} now)",
            where=f"{path}: dataset",
            mend="bring the old data back, or accept the new with --update",
        )
    return pin


def kept_pin(dataset: SourceSpec, resolved: Path, *, update: bool) -> DataPin | None:
    """The pin of the last time, if it is of the same data set."""
    if update or not resolved.exists():
        return None
    try:
        before = load_resolved(resolved).dataset
    except RecipeError:  # of another release; the recipe itself decides
        return None
    ours = dataset.model_dump(exclude={"pin", "revision"})
    theirs = before.model_dump(exclude={"pin", "revision"})
    moved = dataset.revision not in (None, "main", before.revision)
    return before.pin if ours == theirs and not moved else None


def _at_revision(dataset: SourceSpec, kept: DataPin | None) -> SourceSpec:
    """A branch stays where it was when the recipe was resolved first."""
    if kept is None or kept.revision is None:
        return dataset
    return dataset.model_copy(update={"revision": kept.revision})


def _impossible(recipe: Recipe, path: Path) -> Iterator[Fault]:
    """What the data make impossible."""
    pin = recipe.dataset.pinned
    smallest = min(range(len(pin.counts)), key=lambda c: pin.counts[c])
    subs = recipe.method.grid**2
    if recipe.ipc * subs > pin.counts[smallest]:
        mosaics = f", in mosaics of {subs} images," if subs > 1 else ""
        yield Fault(
            f"ipc is {recipe.ipc}{mosaics} but class '{pin.class_names[smallest]}' has "
            f"{pin.counts[smallest]} training images",
            f"{path}: ipc",
            f"set ipc to {pin.counts[smallest] // subs} or less; "
            "no random arm of that size could be drawn either",
        )
    for sentence in recipe.method.check(recipe.target, pin.counts):
        yield Fault(sentence, f"{path}: method", "change the method's keys or the data set")
    archs = [observer.arch for observer in recipe.observers]
    for sentence in recipe.method.check_observers(recipe.target, archs):
        yield Fault(sentence, f"{path}: method", "change the method's keys or the observers")
    yield from _too_deep(recipe, path)
    if recipe.evaluate and pin.test is None:
        yield Fault(
            "there are no test images to evaluate with",
            f"{path}: dataset.test",
            "name a split, set a share of the training images apart (test: 0.2), "
            "or leave evaluate: out",
        )
    if (
        recipe.relabel is not None
        and isinstance(recipe.relabel.top_k, int)
        and recipe.relabel.top_k > len(pin.class_names)
    ):
        yield Fault(
            f"top_k is {recipe.relabel.top_k} but there are {len(pin.class_names)} classes",
            f"{path}: relabel.top_k",
            "set it to `all`",
        )


def _too_deep(recipe: Recipe, path: Path) -> Iterator[Fault]:
    """Networks of our own that images of this size are too small for."""
    target = recipe.target
    wanted = [
        (f"{role}.arch", spec.arch, (target.height, target.width))
        for role, spec in recipe.networks.items()
        if isinstance(spec, TrainSpec)
    ]
    for index, block in enumerate(recipe.evaluate):
        protocol = protocols.get(block.protocol)
        size = protocol.resolution(target.height, target.width)
        students = block.students or protocol.students_for(target.height, target.width)
        wanted += [(f"evaluate.{index}.students", arch, size) for arch in students]
    half = (0.5,) * target.channels
    for key, arch, (height, width) in dict.fromkeys(wanted):
        if parse_arch(arch).library != "own":
            continue
        try:
            build(
                arch,
                num_classes=target.num_classes,
                channels=target.channels,
                height=height,
                width=width,
                mean=half,
                std=half,
                seed=0,
            )
        except ValueError as error:
            yield Fault(str(error), f"{path}: {key}", "choose a shallower network or larger images")


def _pinned(
    spec: NetworkSpec, role: str, classes: tuple[str, ...], path: Path, project: Project
) -> NetworkSpec:
    """Existing weights are pinned by their sha256, if they know the classes of the data set.

    A file is copied into the project's state under that name.
    """
    if not isinstance(spec, ModelSpec):
        return spec
    kept = project.state / WEIGHTS / f"{spec.sha256}.safetensors"
    if spec.sha256 is not None and kept.exists():
        own = spec.model_copy(update={"weights": kept.name})
        facts = find_weights(own, base=kept.parent)
    else:
        facts = find_weights(spec, base=path.parent)
    count = facts.num_classes or len(spec.class_names or ())
    if count:
        try:
            outputs_of(spec, facts.class_names, count, classes)
        except RecipeError as error:
            raise RecipeError.of(
                f._replace(where=f"{path}: {role}.{f.where}") for f in error.faults
            ) from error
    found, digest = facts.path, sha256_of(facts.path)
    if spec.sha256 not in (None, digest):
        raise RecipeError(
            f"sha256 of {spec.weights} is {digest}, the recipe says {spec.sha256}",
            where=f"{path}: sha256",
            mend="use the weights that the recipe was made with, or correct the digest",
        )
    if not spec.weights.endswith(".safetensors"):
        return spec.model_copy(update={"sha256": digest})
    return spec.model_copy(update={"weights": _kept(found, project), "sha256": digest})


def _kept(file: Path, project: Project) -> str:
    """The name under which a copy of a file lies in the project's state: its digest.

    Raises:
        OSError: If it cannot be read.
    """
    known = project.state / WEIGHTS / file.name
    if not file.exists() and known.exists():  # as a resolved recipe names it
        return known.name
    kept = project.state / WEIGHTS / f"{sha256_of(file)}{file.suffix}"
    if not kept.exists():
        with storage_errors(kept.parent):
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, kept.with_suffix(".new"))
            kept.with_suffix(".new").replace(kept)
    return kept.name


def to_yaml(content: object) -> str:
    """Plain content as YAML in the order of its keys."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
