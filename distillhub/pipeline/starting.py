"""`distillhub init`: a commented first recipe for one's own images, and a project to keep it in."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distillhub import methods
from distillhub.data.describe import Description, describe
from distillhub.data.sources import DIGITS
from distillhub.errors import RecipeError, UsageError
from distillhub.evaluation.protocols import convnet_for
from distillhub.pipeline.dvcfile import project_files
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.project import Project
from distillhub.recipe.loading import load_recipe
from distillhub.spec import nearest

WIDTH = 32
"""Of the networks in a starting recipe: a quarter of the usual 128, so that a build ends soon."""
LARGEST = 64
"""Side in pixels up to which a first recipe keeps images as they are; larger ones take too long."""

_METHODS = {
    "dm": """\
method:
  name: dm  # see `distillhub list methods`
  version: 1
  iterations: {iterations}  # more are better and take longer; the paper uses 20000
  arch: {arch}
  dsa: {dsa}
""",
    "herding": "method: {{name: herding, version: 1}}  # see `distillhub list methods`\n",
    "random": "method: {{name: random, version: 1}}  # see `distillhub list methods`\n",
}

_TEMPLATE = """\
# {title}
# Written by `distillhub init`: a start that is built in minutes, not the best there is.
# docs/recipes.md explains every key.   distillhub plan {word}   distillhub build {word}
schema_version: 1
name: {name}
seed: 0
dataset:
  id: {id}{id_comment}
{dataset}ipc: {ipc}  # stored images per class
{method}teacher:  # gives the soft labels
  arch: {arch}
  steps: {steps}
  augment: {augment}
images: {{codec: png}}
relabel:  # null for hard labels only
  views: {{scale: [0.7, 1.0]{flip}}}
  budget: 1.0  # label bytes, as a multiple of the image bytes
evaluate:
  - {evaluation}
card:
  license: unknown  # of the distilled set; say it before you publish
  redistributable: unknown  # whether your images may be shown to others
publish: null
"""


class Draft(NamedTuple):
    """A recipe that is not written yet."""

    stem: str
    text: str
    facts: list[tuple[str, str]]
    """What was found out about the images, for the user."""

    def write(self, path: Path) -> None:
        """Write the recipe, and read it again as a build would.

        Raises:
            RecipeError: If it is not a valid recipe; the file is then gone again.
        """
        with storage_errors(path.parent):
            write_text(path, self.text)
        try:
            load_recipe(path)
        except RecipeError:
            path.unlink()
            raise


def starting_recipe(
    data: str,
    home: Project | None,
    *,
    name: str | None,
    method: str,
    ipc: int,
    quick: bool = False,
) -> Draft:
    """A recipe that fits a data set.

    Args:
        data: A local folder, `sklearn:digits`, or a Hub id that has a local copy.
        home: The project that the recipe goes to; None: the current folder.
        name: Of the recipe; None: made of method, folder and ipc.
        method: Its name.
        ipc: Images per class; lowered where the smallest class has fewer.
        quick: Small numbers everywhere: shows the whole way, its scores mean nothing.

    Raises:
        UsageError: If method or name cannot be used.
        RecipeError: If there are no images there.
    """
    if method not in _METHODS:
        raise UsageError(
            f"init writes no recipe for method '{method}'",
            where="--method",
            mend=f"{nearest(method, _METHODS)}; or copy one of `distillhub list recipes`",
        )
    if method not in methods.names():
        raise UsageError(
            f"method '{method}' is not installed",
            where="--method",
            mend=nearest(method, methods.names()),
        )
    folder = _folder(data, home)
    found = describe(folder)
    recipes = home.recipes if home is not None else Path.cwd()
    named = home is not None and data in home.sources
    ident = data if named else _relative(folder, recipes)
    fitting = min(ipc, found.smallest[1])
    stem = name or f"{method}_{_safe(folder.name)}_{fitting}"
    side = _side(found)
    flip = side > 28  # smaller images are mostly digits and letters, which have a handedness
    arch = f"{convnet_for(side)}-w{WIDTH}"
    dsa = "color_crop_cutout_flip_scale_rotate" if flip else "color_crop_cutout_scale_rotate"
    text = _TEMPLATE.format(
        title=f"{folder.name}, {fitting} images per class by {method}.",
        word=stem if home is not None else f"{stem}.yaml",
        name=_safe(stem, "-"),
        id=_quoted(ident),
        id_comment="" if named else "  # seen from the folder of this recipe",
        dataset="".join(_dataset_lines(found, side)),
        ipc=fitting,
        method=_METHODS[method].format(iterations=20 if quick else 500, arch=arch, dsa=dsa),
        arch=arch,
        steps=60 if quick else 600,
        augment="flip_shift" if flip else "shift",
        flip=", flip: true" if flip else "",
        evaluation=_evaluation(arch, side, quick=quick),
    )
    return Draft(stem, _aligned(text), list(_facts(found, ipc, fitting, side)))


def _evaluation(arch: str, side: int, *, quick: bool) -> str:
    if quick:
        return "{protocol: smoke-cpu-1, runs: 2}  # shows that it works, no more"
    if side <= 16:
        return "{protocol: digits-1, runs: 3}"
    return f"{{protocol: lowres-1, students: [{arch}], runs: 3}}"


def _aligned(text: str) -> str:
    """The recipe with the comments behind its keys under one another."""
    lines = []
    for line in text.splitlines():
        key, mark, comment = line.partition("  # ")
        lines.append(
            f"{key.rstrip():<28}{mark}{comment}".rstrip() if mark and key.strip() else line
        )
    return "\n".join(lines) + "\n"


def start_project(folder: Path, *, force: bool) -> list[Path]:
    """Make a folder a project; what else is in it is left alone.

    Args:
        folder: Made where needed; may lie inside a git repository.
        force: Replace files that are there already.

    Returns:
        The files written.

    Raises:
        UsageError: If one of the files is there and `force` is not set.
    """
    wanted = project_files()
    if not _inside(folder, ".dvc"):
        no_scm = "" if _inside(folder, ".git") else "    no_scm = true\n"
        wanted[".dvc/config"] = (
            f'[core]\n    analytics = false\n{no_scm}[cache]\n    type = "reflink,copy"\n'
        )
        wanted[".dvc/.gitignore"] = "/config.local\n/tmp\n/cache\n"
    there = [name for name in wanted if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            f"already there: {', '.join(there)}",
            where=str(folder),
            mend="name another folder, or give --force",
        )
    with storage_errors(folder):
        for name, text in wanted.items():
            write_text(folder / name, text)
        (folder / "recipes" / "resolved").mkdir(parents=True, exist_ok=True)
    return [folder / name for name in wanted]


def _inside(folder: Path, mark: str) -> bool:
    folder = folder.resolve()
    return any((place / mark).exists() for place in (folder, *folder.parents))


def _folder(data: str, home: Project | None) -> Path:
    """The local folder of a data set."""
    folder = Path(data).expanduser()
    if folder.is_dir():
        return folder
    if home is not None and data in home.sources:
        return home.sources[data]
    if data == DIGITS:
        raise UsageError(
            f"{DIGITS} has recipes already", where="init", mend="distillhub build dm_digits_10"
        )
    raise UsageError(
        f"no folder '{data}'",
        where=str(folder.absolute()),
        mend="give a folder; for a Hub data set, download it: "
        "hf download --repo-type dataset org/name --local-dir FOLDER",
    )


def _relative(folder: Path, start: Path) -> str:
    path = os.path.relpath(folder.resolve(), start.resolve())
    return path if path.startswith("..") else f"./{path}"


def _side(found: Description) -> int:
    if found.spec.size is not None:
        return min(found.spec.size, LARGEST)
    return min(found.sides[0], LARGEST)


def _dataset_lines(found: Description, side: int) -> Iterator[str]:
    spec = found.spec
    if spec.train != "train":
        yield f"  train: {_quoted(spec.train)}\n"
    if isinstance(spec.test, float):
        yield f"  test: {spec.test:g}  # this share is set apart for scoring\n"
    elif spec.test != "test":
        yield f"  test: {_quoted(str(spec.test))}\n"
    if spec.size is not None or found.sides[1] > LARGEST or found.sides[0] != found.sides[1]:
        yield f"  size: {side}  # side of the stored images in pixels\n"


def _facts(found: Description, asked: int, ipc: int, side: int) -> Iterator[tuple[str, str]]:
    name, count = found.smallest
    low, high = found.sides
    yield "images", f"{found.images:,} of {found.classes} classes; smallest: '{name}' with {count}"
    yield "sides", f"{low} pixels" if low == high else f"{low} to {high} pixels"
    if side < low:
        yield "stored", f"{side} pixels; raise dataset.size for larger ones, on a GPU"
    if ipc < asked:
        yield "ipc", f"{ipc} instead of {asked}: more than that the smallest class does not have"


def _safe(text: str, joint: str = "_") -> str:
    """A safe name: lower-case letters and digits, with single joints between them."""
    return re.sub(r"[^a-z0-9]+", joint, text.lower()).strip(joint) or "images"


def _quoted(text: str) -> str:
    """A YAML scalar."""
    return text if re.fullmatch(r"[\w./-]+", text) and text not in (".", "-") else f"'{text}'"
