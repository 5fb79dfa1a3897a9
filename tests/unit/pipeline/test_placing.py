"""Where a recipe is built, also when several builds begin at once."""

import multiprocessing
from pathlib import Path

from distillhub.pipeline.building import indexed, place
from distillhub.pipeline.project import Project
from tests.integration.builds import write_recipe


def place_when_all_are_ready(recipe: Path, space: Path, gate) -> None:
    gate.wait()
    place(recipe, keep=False, replace=False, workspace=space)


def test_recipes_placed_at_once_are_all_in_the_index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = [write_recipe(tmp_path, stem=f"tiny{number}") for number in range(6)]
    space = tmp_path / "space"
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(len(recipes))

    processes = [
        fork.Process(target=place_when_all_are_ready, args=(recipe, space, gate))
        for recipe in recipes
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * len(recipes)
    assert sorted(indexed(Project.at(space))) == sorted(recipe.stem for recipe in recipes)
