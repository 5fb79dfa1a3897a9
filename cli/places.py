"""What a word on the command line stands for: a recipe, a project, a dataset."""

import os
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distillhub.errors import UsageError

if TYPE_CHECKING:
    from distillhub.pipeline.project import Project

NOT_RECIPES = ("index",)
"""YAML files that live beside recipes."""
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
ADDRESS = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def here() -> "Project | None":
    """The project that holds the working directory."""
    from distillhub.pipeline.project import Project

    return Project.find(Path.cwd())


class Workplace(NamedTuple):
    """Where a command keeps what it may resume, and where it finds local copies of data."""

    state: Path
    sources: "dict[str, Path] | None"


def workplace() -> Workplace:
    """Of the project that holds the working directory, else of this directory."""
    project = here()
    if project is None:
        return Workplace(Path.cwd() / ".distillhub", None)
    return Workplace(project.state, project.sources)


def needed_project() -> "Project":
    """The project that holds the working directory.

    Raises:
        UsageError: If there is none.
    """
    project = here()
    if project is None:
        raise UsageError(
            "not inside a distillhub project",
            where=str(Path.cwd()),
            mend="change into one, or make one here: distillhub init --project .",
        )
    return project


def shipped_recipes() -> list[Path]:
    """The recipes that were installed with distillhub."""
    return recipes_in(Path(str(files("distillhub_recipes"))))


def recipes_in(folder: Path) -> list[Path]:
    """Recipe files of a folder, sorted by name."""
    return sorted(p for p in folder.glob("*.yaml") if p.stem not in NOT_RECIPES)


def known_recipes() -> dict[str, Path]:
    """Stem -> file: the shipped recipes, and over them those of the project at hand."""
    project = here()
    found = {path.stem: path for path in shipped_recipes()}
    if project is not None:
        found |= {path.stem: path for path in recipes_in(project.recipes)}
    return found


def recipe_file(word: str) -> Path:
    """The file of a recipe that is given as a path or by its stem.

    Raises:
        UsageError: If there is neither; offers the nearest known stem.
    """
    path = Path(word).expanduser()
    if path.is_file():
        return path
    known = known_recipes()
    if path.name == word and word.removesuffix(".yaml") in known:
        return known[word.removesuffix(".yaml")]
    raise UsageError(
        f"no recipe '{word}'", where=str(path.absolute()), mend=_nearest(path.stem, known)
    )


def dataset(word: str) -> str:
    """The dataset that a word means: a folder, the stem of a build, or a Hub id.

    Raises:
        UsageError: If it is none of these.
    """
    path = Path(word).expanduser()
    if path.is_dir():
        inner = path / "dataset"
        is_build = inner.is_dir() and not (path / "README.md").exists()
        return str(inner if is_build else path)
    built = built_sets()
    if word in built:
        return str(built[word])
    if HUB_ID.match(word) and not word.startswith("."):
        return word
    if is_address(word):
        name, _, revision = word.partition("@")
        raise UsageError(
            f"'{word}' names a published version",
            where=word,
            mend=f"distillhub fetch {word}; a command with --revision takes "
            f"{name} --revision {revision}",
        )
    raise UsageError(f"no dataset '{word}'", where=str(path.absolute()), mend=_nearest(word, built))


def is_address(word: str) -> bool:
    """Whether a word names a published set, and nothing here: `org/name`, `org/name@v1.0.0`."""
    return ADDRESS.fullmatch(word) is not None and not Path(word).expanduser().exists()


def dataset_folder(word: str) -> Path:
    """Like `dataset`, for commands that need the files themselves.

    Raises:
        UsageError: If the word is no folder and no build.
    """
    place = Path(dataset(word))
    if place.is_dir():
        return place
    if "/" not in word:
        raise UsageError(
            f"no dataset '{word}'", where=str(Path.cwd()), mend=_nearest(word, built_sets())
        )
    raise UsageError(
        f"'{word}' is no folder here",
        where=str(Path.cwd()),
        mend=f"hf download --repo-type dataset {word} --local-dir {Path(word).name}",
    )


def built_sets() -> dict[str, Path]:
    """Stem -> dataset folder of every finished build of the project, or of the workspace here."""
    project = here()
    roots = (
        [project.root, project.state / "workspace"]
        if project
        else [Path.cwd() / ".distillhub" / "workspace"]
    )
    found: dict[str, Path] = {}
    for root in reversed(roots):
        for folder in sorted(root.glob("artifacts/*/dataset")):
            found[folder.parent.name] = folder
    return found


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../..") else relative


def complete_recipe(incomplete: str) -> list[str]:
    """Completion: stems of recipes."""
    return [stem for stem in known_recipes() if stem.startswith(incomplete)]


def complete_set(incomplete: str) -> list[str]:
    """Completion: stems of finished builds."""
    return [stem for stem in built_sets() if stem.startswith(incomplete)]


def _nearest(name: str, known: Iterable[str]) -> str:
    from distillhub.spec import nearest

    return nearest(name, known)
