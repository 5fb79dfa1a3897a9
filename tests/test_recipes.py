"""Every recipe of the repository is valid and opens with what style asks of it."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from distillhub.methods._base import Method
from distillhub.recipe.loading import load_recipe

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
RECIPES = sorted(p for p in FOLDER.glob("*.yaml") if p.stem != "index")


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Every recipe in turn."""
    return Path(request.param)


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: lines.index("schema_version: 1")])


def test_a_recipe_validates(path: Path) -> None:
    load_recipe(path)


def test_the_stem_tells_method_and_images_per_class(path: Path) -> None:
    recipe = load_recipe(path)

    assert path.stem.split("_")[0] in names_of(recipe.method)
    assert path.stem.removesuffix("_cpu").endswith(f"_{recipe.ipc}")


def names_of(method: Method) -> tuple[str, ...]:
    """A doped set bears the name of its base; data-free DsCo and CDA have names of their own."""
    match method.model_dump():
        case {"name": "sre2l", "augment": {"curriculum": {}}}:
            return ("cda",)
        case {"name": "dsco", "nopt": {"mode": "df"}}:
            return ("dfdsco",)
        case {"name": "doping"}:
            return tuple(base.split("_")[0] for base in method.bases)
        case {"name": str(name)}:
            return (name,)
    raise AssertionError("a method without a name")


def test_names_are_not_used_twice() -> None:
    names = [load_recipe(path).name for path in RECIPES]

    assert len(set(names)) == len(names)


def test_a_recipe_opens_with_paper_expectation_and_command(path: Path) -> None:
    text = header(path)

    assert "# Paper: " in text
    assert "# Expected: " in text
    assert f"distillhub build recipes/{path.name}" in text


def test_what_is_always_built_needs_no_download() -> None:
    index = YAML(typ="safe").load(FOLDER / "index.yaml")

    sources = {load_recipe(FOLDER / f"{stem}.yaml").dataset.id for stem in index["recipes"]}
    assert sources == {"sklearn:digits"}
