"""A project on disk: recipes, what is built from them, and the scratch folders builds share."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from distillhub.data.specs import SourceSpec
from distillhub.errors import RecipeError, UsageError

MARKER = "distillhub.toml"
LOCAL = "distillhub.local.toml"
ENVIRONMENT = "DISTILLHUB_SOURCES"
WEIGHTS = "weights"
"""Folder of the state with the weights files that recipes name, by sha256."""


@dataclass(frozen=True)
class Project:
    """A folder with `distillhub.toml`, `recipes/` and `dvc.yaml`."""

    root: Path
    state: Path
    """`.distillhub`: work folders, model store, resources, locks.

    Shared with the workspaces inside it.
    """

    @classmethod
    def at(cls, root: Path) -> "Project":
        """The project in `root`, which holds a marker."""
        root = root.resolve()
        settings = _toml(root / MARKER).get("project", {})
        place = (
            settings.get("state", ".distillhub") if isinstance(settings, dict) else ".distillhub"
        )
        return cls(root, (root / str(place)).resolve())

    @classmethod
    def find(cls, start: Path) -> "Project | None":
        """The nearest project that holds `start`."""
        start = start.resolve()
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return cls.at(folder)
        return None

    @property
    def recipes(self) -> Path:
        """Where the recipes are."""
        return self.root / "recipes"

    @property
    def index(self) -> Path:
        """The list of recipes that a bare `dvc repro` builds."""
        return self.recipes / "index.yaml"

    def recipe(self, stem: str) -> Path:
        """The file of a recipe."""
        return self.recipes / f"{stem}.yaml"

    def origin(self, stem: str) -> Path:
        """Where a workspace notes the file that it copied a recipe from."""
        return self.recipes / f".{stem}.origin"

    def written(self, stem: str) -> Path:
        """The file that the user wrote, which a workspace holds a copy of.

        Relative paths in a recipe start from its folder, and messages name it.
        """
        origin = self.origin(stem)
        return Path(origin.read_text(encoding="utf-8")) if origin.exists() else self.recipe(stem)

    def resolved(self, stem: str) -> Path:
        """What `resolve` wrote for a recipe."""
        return self.recipes / "resolved" / f"{stem}.yaml"

    def artifacts(self, stem: str) -> Path:
        """The folder of a build: models, images, labels, package, reports, dataset, stats."""
        return self.root / "artifacts" / stem

    def stats(self, stem: str, stage: str) -> Path:
        """Time and memory that a stage took; an output of the stage that no digest covers."""
        return self.artifacts(stem) / "stats" / f"{stage}.json"

    @property
    def sources(self) -> dict[str, Path]:
        """Local copies of data sets by Hub id.

        From distillhub.toml, then the local file, then the environment.
        """
        found: dict[str, Path] = {}
        for name in (MARKER, LOCAL):
            table = _toml(self.root / name).get("sources", {})
            if not isinstance(table, dict):
                raise UsageError(
                    "[sources] is not a table",
                    where=str(self.root / name),
                    mend='"org/name" = "folder"',
                )
            found |= {key: self.root / str(value) for key, value in table.items()}
        return found | environment_sources()

    def sources_for(self, dataset: SourceSpec) -> dict[str, Path]:
        """The same; an id that is a relative path is found from the folder of the recipes."""
        found = self.sources
        if dataset.id.startswith(".") and dataset.id not in found:
            found[dataset.id] = (self.recipes / dataset.id).resolve()
        return found


def indexed(project: Project) -> list[str]:
    """The recipes in a project's index."""
    content = YAML(typ="safe", pure=True).load(project.index) if project.index.exists() else {}
    stems = content.get("recipes") if isinstance(content, dict) else None
    if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
        raise RecipeError(
            "not a list of recipes", where=str(project.index), mend="write recipes: [name, name]"
        )
    return stems


def environment_sources() -> dict[str, Path]:
    """`DISTILLHUB_SOURCES="org/name=folder,org/other=folder"`."""
    found = {}
    for entry in filter(None, os.environ.get(ENVIRONMENT, "").split(",")):
        name, separator, folder = entry.partition("=")
        if not separator or not folder:
            raise UsageError(
                f"'{entry}' is not a source",
                where=ENVIRONMENT,
                mend="write org/name=folder, separated by commas",
            )
        found[name.strip()] = Path(folder.strip()).expanduser().resolve()
    return found


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"not valid TOML: {error}", where=str(path), mend="mend the file, or remove it"
        ) from error
