"""The command line, run in this process in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distillhub_cli.main import app

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("validate", "x.yaml")` gives exit_code, stdout, stderr; the folder is empty at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    runner = CliRunner()

    def invoke(*words: object, text: str | None = None) -> Any:
        result = runner.invoke(app, [str(word) for word in words], input=text)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


RECIPE = """\
schema_version: 1
name: tiny
dataset: {id: sklearn:digits}
ipc: 1
method: {name: random, version: 1}
evaluate:
  - {protocol: smoke-cpu-1, arms: [syn_hard], runs: 1}
card: {license: cc-by-4.0}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in the working directory, with one recipe."""
    (tmp_path / "distillhub.toml").write_text("", encoding="utf-8")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "index.yaml").write_text("recipes: [tiny]\n", encoding="utf-8")
    (recipes / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path
