"""A recipe: plain data that names every choice of a distilled data set."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, InstanceOf, SerializeAsAny, field_validator

from distillhub.data.specs import Digest, ImageFormat, SourceSpec
from distillhub.errors import Fault
from distillhub.evaluation.arms import arms_of
from distillhub.evaluation.specs import EvalSpec
from distillhub.methods._base import Method
from distillhub.models.checkpoints import license_of
from distillhub.models.specs import GeneratorSpec, GeneratorTrainSpec, NetworkSpec
from distillhub.packaging.specs import CardSpec, PackageSpec, PublishSpec
from distillhub.relabel.spec import RelabelSpec, labelling_roles
from distillhub.spec import Spec
from distillhub.units import Target

_EXAMPLES = {
    "teacher": "{arch: convnet3, steps: 1000}",
    "observers": "[{arch: convnet3, steps: 1000}]",
    "generator": "{arch: dit-w128-d4-h4-p2}",
}
SAFE_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9]|[._-](?=[a-z0-9]))*$")


class Recipe(Spec):
    """The whole of a recipe file. `recipe.loading.load_recipe` reads one."""

    schema_version: Literal[1]
    name: str
    """The published name; the file's stem is the key within a project."""
    seed: int = Field(default=0, ge=0)
    """Of the synthesis and the evaluation's runs; networks and labels have seeds of their own."""
    dataset: SourceSpec
    ipc: int = Field(gt=0)
    """Stored images per class."""
    method: SerializeAsAny[InstanceOf[Method]]
    teacher: NetworkSpec | None = None
    """Gives the soft labels."""
    observers: tuple[NetworkSpec, ...] = ()
    """Networks whose statistics or features guide a synthesis."""
    generator: GeneratorSpec | None = None
    """A diffusion transformer that images are sampled from."""
    images: ImageFormat = ImageFormat()
    relabel: RelabelSpec | None = None
    """None: hard labels only."""
    package: PackageSpec = PackageSpec()
    evaluate: tuple[EvalSpec, ...] = ()
    card: CardSpec
    publish: PublishSpec | None = None

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if len(name) > 96 or not SAFE_NAME.match(name):
            raise ValueError(
                f"'{name}' is not a safe name: lower-case letters and digits, "
                "single . _ - between them, at most 96"
            )
        return name

    @property
    def target(self) -> Target:
        """What the method is asked for; only a resolved recipe knows."""
        pin = self.dataset.pinned
        return Target(len(pin.class_names), self.ipc, pin.channels, pin.height, pin.width)

    @property
    def networks(self) -> dict[str, NetworkSpec]:
        """Role -> spec: "teacher", "observer-0", ..."""
        roles = {f"observer-{i}": spec for i, spec in enumerate(self.observers)}
        return roles if self.teacher is None else {"teacher": self.teacher, **roles}

    @property
    def labelling(self) -> tuple[str, ...]:
        """Roles of the networks that give the soft labels, stored and online."""
        return labelling_roles(self.relabel, list(self.networks))


class ResolvedRecipe(Recipe):
    """What `resolve` writes: every default spelled out, inputs pinned, stage versions added."""

    bases: dict[str, Digest] = Field(default_factory=dict)
    """Digest of the finished set of each build it rests on, by the stem of its recipe."""
    code: dict[str, Annotated[int, Field(gt=0)]]
    """Version of each stage's results; see `pipeline.versions`."""


def contradictions(recipe: Recipe) -> Iterator[Fault]:
    """What the blocks of a recipe say against one another; `where` is the key.

    These are faults that no block can see alone and that need no data.
    """
    present = {
        "teacher": recipe.teacher,
        "observers": recipe.observers,
        "generator": recipe.generator,
    }
    for block in recipe.method.needs:
        if not present[block]:
            yield Fault(
                f"method {recipe.method.name} needs a {block}: block",
                block,
                f"add one, e.g. {block}: {_EXAMPLES[block]}",
            )
    if recipe.generator is not None:
        yield from _about_generator(recipe, recipe.generator)
    if recipe.method.by_reference and recipe.images.codec == "jpeg":
        yield Fault(
            "jpeg changes pixels, but the real images are published by the digest of theirs",
            "images.codec",
            "set it to png or webp, or method.publish to pixels",
        )
    if recipe.relabel is not None and not present[recipe.relabel.by]:
        yield Fault(
            f"soft labels come from the {recipe.relabel.by}, but there is none",
            "relabel.by",
            f"add a {recipe.relabel.by}: block, or set relabel: null for hard labels only",
        )
    yield from _absent_observers(recipe)
    for index, evaluation in enumerate(recipe.evaluate):
        try:
            arms_of(
                evaluation,
                "",
                soft=recipe.relabel is not None,
                teacher=bool(recipe.labelling),
                mosaics=recipe.method.grid > 1,
                whole=recipe.relabel is not None and recipe.relabel.views is None,
            )
        except ValueError as error:
            yield Fault(
                str(error),
                f"evaluate.{index}.arms",
                "add the teacher: or relabel: block that these labels come from, "
                "or name hard arms only",
            )


def _absent_observers(recipe: Recipe) -> Iterator[Fault]:
    """Observers named by a number that no entry of `observers:` has."""
    named: dict[str, object] = {
        "method.observers": getattr(recipe.method, "observers", None),
        "method.observer": getattr(recipe.method, "observer", None),
        "relabel.observers": None if recipe.relabel is None else recipe.relabel.observers,
    }
    count = len(recipe.observers)
    for key, numbers in named.items():
        listed = numbers if isinstance(numbers, tuple) else (numbers,)
        absent = [number for number in listed if isinstance(number, int) and number >= count]
        if absent and count:
            yield Fault(
                f"there is no observer {absent[0]}; the recipe has {count}, counted from 0",
                key,
                f"name numbers up to {count - 1}, or add an entry to observers:",
            )


def _about_generator(recipe: Recipe, generator: GeneratorSpec) -> Iterator[Fault]:
    """Guidance without an untold label, and a license that allows more than the generator's."""
    if isinstance(generator, GeneratorTrainSpec):
        guided = getattr(recipe.method, "cfg", 1) != 1
        if guided and generator.label_dropout == 0:
            yield Fault(
                "guidance compares with and without a label, but label_dropout: 0 shows no image "
                "without one",
                "generator.label_dropout",
                "set it to 0.1, or method.cfg to 1",
            )
        return
    given = license_of(generator.transformer, generator.license)
    if given is None:
        yield Fault(
            f"the license of {generator.transformer} is not known here",
            "generator.license",
            "write it as the Hub spells it; the card carries it",
        )
        return
    conflict = license_conflict(given, recipe.card.license)
    if conflict:
        yield Fault(
            f"the images come from a generator under {given}, {conflict}",
            "card.license",
            f"set it to {given}, or to other with license_name and license_link",
        )


def license_conflict(given: str, own: str) -> str:
    """How a set's license allows more than that of what it is made from; empty if it does not."""
    if not _no_commerce(given) or _may_be_so(own):
        return ""
    return f"but the set would be published under {own}, which allows commercial use"


def _no_commerce(name: str) -> bool:
    return "nc" in name.lower().split("-")


def _may_be_so(name: str) -> bool:
    return _no_commerce(name) or name.lower() in ("other", "unknown")
