"""First recipes for one's own images, and projects."""

from pathlib import Path

import pytest

from distillhub.errors import UsageError
from distillhub.pipeline.project import Project
from distillhub.pipeline.starting import start_project, starting_recipe
from distillhub.recipe.loading import load_recipe
from tests.made_up import shapes_folder


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shapes_folder(tmp_path / "My Shapes", per_class=6)


def written(data: Path, tmp_path: Path, **wishes) -> Path:
    draft = starting_recipe(str(data), None, **{"name": None, "method": "dm", "ipc": 2, **wishes})
    path = tmp_path / f"{draft.stem}.yaml"
    draft.write(path)
    return path


@pytest.mark.parametrize("method", ["dm", "herding", "random"])
def test_the_recipe_is_valid(shapes, tmp_path, method):
    recipe = load_recipe(written(shapes, tmp_path, method=method))

    assert recipe.method.name == method
    assert recipe.ipc == 2


def test_the_name_of_a_folder_becomes_a_safe_name(shapes, tmp_path):
    assert written(shapes, tmp_path).name == "dm_my_shapes_2.yaml"


def test_the_folder_is_named_as_seen_from_the_recipe(shapes, tmp_path):
    recipe = load_recipe(written(shapes, tmp_path))

    assert (tmp_path / recipe.dataset.id).resolve() == shapes.resolve()


def test_ipc_is_lowered_to_the_smallest_class_and_the_user_is_told(shapes):
    draft = starting_recipe(str(shapes), None, name=None, method="random", ipc=50)

    assert "ipc: 6 " in draft.text
    assert dict(draft.facts)["ipc"].startswith("6 instead of 50")


def test_large_images_are_stored_small_at_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    large = shapes_folder(tmp_path / "large", per_class=3, side=100)

    assert load_recipe(written(large, tmp_path)).dataset.size == 64


def test_a_method_without_a_template_is_refused_with_the_known_ones(shapes):
    with pytest.raises(UsageError, match="known: dm, herding, random"):
        starting_recipe(str(shapes), None, name=None, method="edc", ipc=1)


def test_a_folder_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="no folder 'gone'"):
        starting_recipe("gone", None, name=None, method="dm", ipc=1)


def test_a_project_is_found_after_it_was_started(tmp_path):
    start_project(tmp_path / "distilled", force=False)

    found = Project.find(tmp_path / "distilled" / "recipes")

    assert found is not None
    assert found.root == (tmp_path / "distilled").resolve()


def test_a_project_in_a_repository_leaves_its_other_files_alone(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "code.py").write_text("x = 1\n")

    start_project(tmp_path / "distilled", force=False)

    assert (tmp_path / "code.py").read_text() == "x = 1\n"
    assert not (tmp_path / "distilled" / ".dvc").exists()


def test_files_that_are_there_are_not_replaced_unasked(tmp_path):
    (tmp_path / "dvc.yaml").write_text("mine\n")

    with pytest.raises(UsageError, match=r"already there: dvc\.yaml"):
        start_project(tmp_path, force=False)

    assert (tmp_path / "dvc.yaml").read_text() == "mine\n"
