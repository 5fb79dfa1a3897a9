"""The recipes of a sweep: others with some keys and the seed changed, each a file of its own.

A variant is named by a digest of what it says. So a sweep that was cut goes on where it was, and
one that asks for more values or seeds reuses what an earlier one built.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from distillhub import methods
from distillhub.digests import fingerprint
from distillhub.errors import Fault, RecipeError, UsageError
from distillhub.methods._base import Method
from distillhub.pipeline.bases import base_path
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.resolve import to_yaml
from distillhub.recipe.loading import load_recipe

SEED_STRIDE = 1000
"""Between the seeds of a sweep: the runs of an evaluation count on from the recipe's seed."""

Setting = Mapping[str, object]
"""Dotted keys of a recipe and the values that a variant gives them."""


class Variant(NamedTuple):
    """One recipe of a sweep."""

    recipe: str
    """Stem of the recipe that it is a variant of."""
    setting: Setting
    seed: int
    path: Path


def parse_setting(text: str, option: str = "--set") -> tuple[str, list[object]]:
    """`method.iterations=100,500` as a key and its values, each read as YAML.

    Raises:
        UsageError: If there is no `=`, no value, or a value is not YAML.
    """
    key, separator, values = text.partition("=")
    if not separator or not key.strip() or not values.strip():
        raise UsageError(f"'{text}' is not a setting", where=option, mend="write key=value,value")
    try:
        content = YAML(typ="safe", pure=True).load(f"[{values}]")
    except YAMLError as error:
        raise UsageError(
            f"'{values}' cannot be read: {str(error).splitlines()[0]}",
            where=f"{option} {key}",
            mend="write values as in a recipe, with commas between them",
        ) from error
    return key.strip(), list(content)


Choices = Mapping[str, Sequence[object]]
"""Values to try per dotted key."""


def plan_sweep(
    recipes: Sequence[Path],
    state: Path,
    *,
    seeds: int,
    settings: Choices,
    alone: Choices = MappingProxyType({}),
) -> list[Variant]:
    """Write and validate the recipes of all variants; nothing is built.

    Args:
        recipes: The recipes that the variants start from.
        state: The scratch folder of the project.
        seeds: How many synthesis seeds, counted on from each recipe's.
        settings: Values to try per dotted key, in every recipe; every combination is one row.
        alone: Values that are tried one at a time, beside each of those rows. A key may be in both
            if it is set to one value, which the others then stand beside.

    Raises:
        RecipeError: With the faults of all variants.
        UsageError: If a key leads nowhere, or is varied beside several values, or two recipes have
            the same name.
    """
    stems = [recipe.stem for recipe in recipes]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is named twice", where="sweep", mend="name each recipe once")
    both = sorted(key for key in alone if len(settings.get(key, ())) > 1)
    if both:
        raise UsageError(
            f"{both[0]} is varied beside several values",
            where="--vary",
            mend="set it to one value, or only set it",
        )
    variants: list[Variant] = []
    faults: list[Fault] = []
    for recipe in recipes:
        for setting in _combined(settings, alone):
            for number in range(seeds):
                variant, wrong = _write(recipe, state, setting, number)
                variants.append(variant)
                faults += wrong
    if faults:
        raise RecipeError.of(dict.fromkeys(faults))
    return variants


def _combined(settings: Choices, alone: Choices) -> Iterator[dict[str, object]]:
    """Every combination of `settings`, as it is and with each single change of `alone`."""
    for values in itertools.product(*settings.values()):
        setting = dict(zip(settings, values, strict=True))
        yield setting
        for key, changes in alone.items():
            yield from ({**setting, key: change} for change in changes)


def said(setting: Setting) -> str:
    """A setting in one line."""
    return ", ".join(f"{key}={word(value)}" for key, value in setting.items())


def word(value: object) -> str:
    """A value of a setting as it is shown."""
    return value if isinstance(value, str) else json.dumps(value)


def _write(recipe: Path, state: Path, setting: Setting, number: int) -> tuple[Variant, list[Fault]]:
    """Write one variant, and those of the builds it rests on with the same seed; its faults."""
    folder = state / "sweeps" / recipe.stem
    seed = load_recipe(recipe).seed + SEED_STRIDE * number
    content = _with(YAML(typ="safe", pure=True).load(recipe), setting, recipe)
    bases = {
        word: base if number == 0 else _write(base, state, {}, number)[0].path
        for word, base in _bases(content.get("method"), recipe).items()
    }
    content = _moved(content, recipe.parent, folder)
    named = {**bases, **_files(content.get("method"), recipe)}
    content = {**content, "method": _on(content.get("method"), named, folder), "seed": seed}
    path = folder / f"{recipe.stem}-{fingerprint(content)[:10]}.yaml"
    text = f"# {recipe.stem} with {said(setting) or 'its own values'}.\n{to_yaml(content)}"
    with storage_errors(folder):
        write_text(path, text)
    try:
        load_recipe(path)
    except RecipeError as error:
        label = f"{recipe.stem} with {said(setting)}" if setting else recipe.stem
        faults = [Fault(f.what, f"{label}: {f.where}", f.mend) for f in error.faults]
    else:
        faults = []
    return Variant(recipe.stem, setting, seed, path), faults


def _moved(content: dict[str, object], home: Path, folder: Path) -> dict[str, object]:
    """The recipe as seen from another folder: its relative paths lead to the same places."""

    def moved(block: object, key: str, suffix: str = "") -> object:
        path = block.get(key) if isinstance(block, dict) else None
        if not isinstance(path, str) or not path.endswith(suffix) or Path(path).is_absolute():
            return block
        return {**block, key: os.path.relpath((home / path).resolve(), folder)}  # type: ignore[dict-item]

    def moved_folder(block: object, key: str) -> object:
        """A key that may also name something of the Hub."""
        path = block.get(key) if isinstance(block, dict) else None
        return moved(block, key) if str(path).startswith(".") else block

    content = {
        **content,
        "dataset": moved_folder(content.get("dataset"), "id"),
        "teacher": moved(content.get("teacher"), "weights", ".safetensors"),
    }
    if "generator" in content:
        generator = moved_folder(content["generator"], "transformer")
        content["generator"] = moved_folder(generator, "vae")
    observers = content.get("observers")
    if isinstance(observers, list):
        content["observers"] = [moved(o, "weights", ".safetensors") for o in observers]
    return content


def _bases(block: object, recipe: Path) -> dict[str, Path]:
    """The recipes that a method block names, by the words it does so with."""
    method = _read(block)
    found = {word: base_path(word, recipe) for word in (method.bases if method else ())}
    return {word: path for word, path in found.items() if path.is_file()}


def _files(block: object, recipe: Path) -> dict[str, Path]:
    """The files that a method block names, by the words it does so with."""
    method = _read(block)
    return {name: (recipe.parent / name).resolve() for name in (method.files if method else ())}


def _read(block: object) -> Method | None:
    """A method block; None where reading the variant will tell what is wrong."""
    if not isinstance(block, dict):
        return None
    try:
        return methods.load(str(block.get("name"))).model_validate(block)
    except (KeyError, ValueError):
        return None


def _on(block: object, bases: Mapping[str, Path], folder: Path) -> object:
    """A method block that names recipes and files, as seen from a folder."""

    def on(value: object) -> object:
        if isinstance(value, list):
            return [on(part) for part in value]
        if isinstance(value, dict):
            return {key: on(part) for key, part in value.items()}
        if isinstance(value, str) and value in bases:
            return os.path.relpath(str(bases[value]), str(folder))
        return value

    if not isinstance(block, dict) or not bases:
        return block
    return {key: value if key == "name" else on(value) for key, value in block.items()}


def _with(base: Mapping[str, object], setting: Setting, recipe: Path) -> dict[str, object]:
    """The content of a recipe with some of its keys set; blocks on the way must be there."""
    content: dict[str, object] = json.loads(json.dumps(base))
    for key, value in setting.items():
        *way, last = key.split(".")
        block: object = content
        for depth, part in enumerate(way):
            if isinstance(block, dict) and part in block:
                block = block[part]
            elif isinstance(block, list) and part.isdigit() and int(part) < len(block):
                block = block[int(part)]
            else:
                raise _nowhere(key, ".".join(way[: depth + 1]), recipe)
        if isinstance(block, dict):
            block[last] = value
        elif isinstance(block, list) and last.isdigit() and int(last) < len(block):
            block[int(last)] = value
        else:
            raise _nowhere(key, key, recipe)
    return content


def _nowhere(key: str, part: str, recipe: Path) -> UsageError:
    return UsageError(
        f"the recipe has no block '{part}'",
        where=f"--set {key}",
        mend=f"write the block into {recipe} first",
    )
