"""Builds through DVC: in a project, with `dvc repro` and `distillhub build` of one mind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.builds import TINY, start_build

pytestmark = pytest.mark.slow


def run(*words: str, cwd: Path) -> str:
    """A command that must end well; what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | {"PATH": path, "DISTILLHUB_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def stages_run(said: str) -> list[str]:
    """The stages that DVC started."""
    started = [line for line in said.splitlines() if "Running stage" in line]
    return [line.split("'")[1].split("@")[0] for line in started]


def test_build_and_dvc_repro_agree_on_what_is_stale_in_a_users_own_project(tmp_path):
    run("git", "init", "--quiet", cwd=tmp_path)
    run("distillhub", "init", "--project", "mine", cwd=tmp_path)
    project = tmp_path / "mine"
    recipe = project / "recipes" / "tiny.yaml"
    recipe.write_text(TINY, encoding="utf-8")

    first = run("distillhub", "build", str(recipe), "--keep", cwd=tmp_path)
    again = run("distillhub", "build", str(recipe), cwd=tmp_path)
    by_dvc = run("dvc", "repro", cwd=project)
    recipe.write_text(TINY.replace("runs: 2", "runs: 1"), encoding="utf-8")
    changed = run("dvc", "repro", cwd=project)
    after = run("distillhub", "build", str(recipe), cwd=tmp_path)

    assert stages_run(first) == ["models", "synthesize", "relabel", "package", "evaluate", "card"]
    assert stages_run(again) == []
    assert stages_run(by_dvc) == ["resolve"]
    assert stages_run(changed) == ["resolve", "evaluate", "card"]
    assert stages_run(after) == []
    assert "drawing random twin" not in changed
    assert (project / "artifacts" / "tiny" / "dataset" / "manifest.json").exists()


def test_builds_of_different_recipes_at_once_both_end_right(tmp_path):
    recipes = []
    for ipc in (1, 2):
        recipe = tmp_path / f"tiny{ipc}.yaml"
        recipe.write_text(TINY.replace("ipc: 2", f"ipc: {ipc}"), encoding="utf-8")
        recipes.append(recipe)
    log = tmp_path / "log"

    processes = [start_build(recipe, cwd=tmp_path, log=log) for recipe in recipes]

    assert [process.wait() for process in processes] == [0, 0], log.read_text()
