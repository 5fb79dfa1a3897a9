"""Builds that a recipe rests on: put in order, compared with it, found, and pinned by digest."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from distillhub.data.specs import DataPin, Digest
from distillhub.errors import DataError, Fault, RecipeError
from distillhub.evaluation import protocols
from distillhub.models.zoo import parse_arch
from distillhub.pipeline.project import MARKER, Project, indexed
from distillhub.recipe.loading import load_recipe
from distillhub.recipe.schema import Recipe, license_conflict
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import loads
from distillhub.units import Target

WORKSPACE = "workspace"
"""Folder of a project's state with the recipes that the project does not keep."""


class Link(NamedTuple):
    """A recipe of a chain of builds."""

    path: Path
    """The file that the user wrote."""
    recipe: Recipe
    bases: Mapping[str, Path]
    """Recipes it rests on, by the words of its method."""


def base_path(word: str, recipe: Path) -> Path:
    """The file that a recipe means by a base: a name beside it, or a path from its folder."""
    name = word if word.endswith(".yaml") else f"{word}.yaml"
    return (recipe.parent / name).resolve()


def link(path: Path) -> Link:
    """Read a recipe and find those that it rests on.

    Raises:
        RecipeError: If the recipe is faulty, or a base is missing or named twice.
    """
    recipe = load_recipe(path)
    bases = {word: base_path(word, path) for word in recipe.method.bases}
    faults = [
        Fault(
            f"there is no recipe '{word}': {base}",
            f"{path}: method",
            "name a recipe beside this one, or give a path from its folder",
        )
        for word, base in bases.items()
        if not base.is_file()
    ]
    stems = [base.stem for base in bases.values()]
    faults += [
        Fault(f"two bases are called {stem}", f"{path}: method", "rename one of the recipes")
        for stem in sorted({stem for stem in stems if stems.count(stem) > 1})
    ]
    if faults:
        raise RecipeError.of(faults)
    return Link(path, recipe, bases)


def chain(path: Path) -> list[Link]:
    """A recipe and all that it rests on, each after its bases; nothing is built.

    Raises:
        RecipeError: If a recipe is faulty or missing, or builds rest on one another in a circle.
    """
    found: dict[Path, Link] = {}

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        key = path.resolve()
        if key in way:
            circle = " -> ".join(step.stem for step in (*way[way.index(key) :], key))
            raise RecipeError(
                f"builds rest on one another in a circle: {circle}",
                where=f"{way[-1]}: method",
                mend="name a base that can be built without this recipe",
            )
        if key not in found:
            read = link(path)
            for base in read.bases.values():
                visit(base, (*way, key))
            found[key] = read

    visit(path, ())
    return list(found.values())


def compared(
    upper: Link, pin: DataPin, bases: Mapping[Path, tuple[Recipe, DataPin]]
) -> Iterator[Fault]:
    """Why a recipe cannot rest on its bases.

    Args:
        upper: The recipe.
        pin: Of its data set.
        bases: Recipe and pin of the data set of each base.
    """
    where = f"{upper.path}: method"
    recipe = upper.recipe
    for word, path in upper.bases.items():
        base, other = bases[path]
        for what, ours, theirs in (
            ("images", pin.train.sha256, other.train.sha256),
            ("classes", pin.class_names, other.class_names),
            (
                "image size",
                (pin.channels, pin.height, pin.width),
                (other.channels, other.height, other.width),
            ),
        ):
            if ours != theirs:
                yield Fault(
                    f"{what} of base {word} are {_short(theirs)}, here {_short(ours)}",
                    where,
                    "give both recipes the same dataset: block",
                )
        if recipe.method.keeps_files and base.method.grid > 1:
            yield Fault(
                f"base {word} has mosaics of {base.method.grid} x {base.method.grid} images, and "
                f"{recipe.method.name} puts whole images beside them",
                where,
                "name a base whose method has formation: 1",
            )
        conflict = license_conflict(base.card.license, recipe.card.license)
        if conflict:
            yield Fault(
                f"base {word} is published under {base.card.license}, {conflict}",
                f"{upper.path}: card.license",
                f"set it to {base.card.license}",
            )
    made = {word: bases[path][0] for word, path in upper.bases.items()}
    ipcs = {word: base.ipc * base.method.grid**2 for word, base in made.items()}
    target = Target(len(pin.class_names), recipe.ipc, pin.channels, pin.height, pin.width)
    for sentence in recipe.method.check_bases(target, ipcs):
        yield Fault(sentence, where, "change ipc, or the method's keys")
    for student in recipe.method.students:
        try:
            protocols.get(student.protocol)
            if student.arch is not None:
                parse_arch(student.arch)
        except ValueError as error:
            yield Fault(
                str(error),
                f"{where}.student",
                "`distillhub list protocols` and `list models` show all names",
            )


def _short(value: object) -> str:
    text = " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) < 60 else f"{text[:60]}..."


# ---- finished bases


def find_built(base: Path, project: Project) -> Project | None:
    """Where a base was built; None where it was not.

    Args:
        base: The recipe's file, as the user wrote it.
        project: Where the recipe is built that rests on it.
    """
    owner = Project.find(base.parent)
    places = []
    if owner is not None and owner.recipes == base.parent and base.stem in indexed(owner):
        places.append(owner)
    states = dict.fromkeys([project.state, *([owner.state] if owner is not None else [])])
    spaces = [state / WORKSPACE for state in states]
    places += [Project.at(space) for space in spaces if (space / MARKER).is_file()]
    for place in (*places, project):
        mine = place.recipe(base.stem)
        finished = place.artifacts(base.stem) / "dataset" / MANIFEST
        if mine.is_file() and place.written(base.stem).resolve() == base and finished.is_file():
            return place
    return None


def built_folder(base: Path, project: Project) -> Path:
    """The finished data set of a base.

    Raises:
        RecipeError: If it was not built yet; names the command.
    """
    found = find_built(base, project)
    if found is None:
        raise RecipeError(
            f"base {base.stem} is not built",
            where=str(base),
            mend=f"build it first: distillhub build {base}",
        )
    return found.artifacts(base.stem) / "dataset"


def digest_in(dataset: Path) -> Digest:
    """The digest of a finished data set.

    Raises:
        DataError: If its manifest cannot be read.
    """
    try:
        return Manifest.model_validate_json((dataset / MANIFEST).read_bytes()).digest
    except (OSError, ValidationError) as error:
        raise DataError(
            "the manifest of a base cannot be read",
            where=str(dataset / MANIFEST),
            mend="build the base again",
        ) from error


def base_digests(path: Path, project: Project) -> dict[str, Digest]:
    """Stem -> digest of the finished set of every base of a recipe.

    Args:
        path: The file that the user wrote.
        project: Where the recipe is built.

    Raises:
        RecipeError: If a base is missing or not built.
    """
    bases = sorted(link(path).bases.values(), key=lambda base: base.stem)
    return {base.stem: digest_in(built_folder(base, project)) for base in bases}


def opened_bases(
    stem: str, words: tuple[str, ...], pinned: Mapping[str, Digest], project: Project
) -> dict[str, Path]:
    """Word -> folder of the finished set of each base, which is the one that was pinned.

    Args:
        stem: Of the recipe that rests on them.
        words: `Method.bases`.
        pinned: `bases:` of the resolved recipe.
        project: Where the recipe is built.

    Raises:
        DataError: If a base was built anew since, into something else.
        RecipeError: If it is not built.
    """
    found = {}
    for word in words:
        base = base_path(word, project.written(stem))
        folder = built_folder(base, project)
        digest = digest_in(folder)
        if digest != pinned.get(base.stem):
            raise DataError(
                f"base {base.stem} has digest {digest}, {stem} was resolved with "
                f"{pinned.get(base.stem)}",
                where=str(folder),
                mend=f"build again: distillhub build {project.written(stem)}",
            )
        found[word] = folder
    return found


def real_share(folders: Mapping[str, Path], base: str) -> float | None:
    """Share of real pixels in a base, as its report has it; None where that is not known.

    Args:
        folders: Of finished sets, as `opened_bases` gives them.
        base: Stem of the recipe.
    """
    folder = next(folder for word, folder in folders.items() if Path(word).stem == base)
    report = loads((folder / "eval.json").read_bytes(), where=str(folder))
    return None if report.privacy is None else report.privacy.real_pixel_share
