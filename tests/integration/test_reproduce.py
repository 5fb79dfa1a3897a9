"""reproduce: what comes out the same, and data that are not those of the pin."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from distillhub.errors import RecipeError, UsageError, VerificationError
from distillhub.packaging.card import CARD, REPORT
from distillhub.packaging.rendering import render
from distillhub.pipeline.reproducing import Reproduction, reproduce
from distillhub.records.manifest import MANIFEST, Manifest, entry_of
from distillhub.records.report import dumps, loads
from distillhub_cli.main import app
from tests.integration.builds import Log, build_here, write_recipe
from tests.made_up import shapes_folder

pytestmark = pytest.mark.slow  # two builds

RECIPE = """\
schema_version: 1
name: shapes-tiny
dataset: {id: ./photos, test: 0.25}
ipc: 2
method: {name: random, version: 1}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w4], arms: [syn_hard, rnd_hard], runs: 2}
card: {license: cc-by-4.0, redistributable: "yes"}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a recipe; the set that was built of them is in `set`."""
    folder = tmp_path_factory.mktemp("reproduce")
    shapes_folder(folder / "photos", per_class=8, side=12)
    shutil.copytree(build_here(write_recipe(folder, RECIPE, "shapes")), folder / "set")
    return folder


def again(home: Path, where: Path, name: str = "set", **more: object) -> Reproduction:
    with contextlib.chdir(where):
        return reproduce(
            home / name,
            reporter=Log(),
            sources={"./photos": home / "photos"},
            **more,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Reproduction:
    """The set, made once more."""
    return again(home, tmp_path_factory.mktemp("made"))


def test_a_set_is_made_again_from_the_recipe_inside_it(made: Reproduction):
    assert made.identical
    assert made.within
    assert made.images == (6, 6)
    assert made.recipe == ()
    assert ".distillhub/reproduce/shapes-" in made.folder.as_posix()


def test_a_second_call_runs_no_stage(home: Path, made: Reproduction):
    log = Log()

    found = reproduce(
        home / "set",
        reporter=log,
        sources={"./photos": home / "photos"},
        workspace=made.folder.parents[2],
    )

    assert log.stages == []
    assert found.folder == made.folder


def test_only_scoring_gives_the_published_accuracies(home: Path, tmp_path: Path):
    found = again(home, tmp_path, evaluate_only=True)

    assert found.digests == ()
    assert [pair.difference for pair in found.runs] == [0.0, 0.0]
    assert all(".syn_hard." in pair.id for pair in found.runs)
    assert all(".rnd_hard." in run for run in found.left_out)
    assert found.within


def test_photos_of_their_maker_must_be_named(home: Path, tmp_path: Path):
    with contextlib.chdir(tmp_path), pytest.raises(UsageError, match=r"folder of its maker") as at:
        reproduce(home / "set", reporter=Log())

    assert "--source ./photos=FOLDER" in str(at.value)


@pytest.mark.parametrize("evaluate_only", [False, True])
def test_other_photos_are_refused_before_any_work(
    home: Path, tmp_path: Path, *, evaluate_only: bool
):
    shutil.copytree(home / "photos", tmp_path / "photos")
    shutil.copytree(home / "set", tmp_path / "set")
    path = next((tmp_path / "photos/circle").glob("*.png"))
    with Image.open(path) as image:
        changed = image.copy()
    changed.putpixel((0, 0), (255, 255, 255))
    changed.save(path)

    with pytest.raises(RecipeError, match="not those that the set was made from"):
        again(tmp_path, tmp_path, evaluate_only=evaluate_only)

    assert not list(tmp_path.glob(".distillhub/reproduce/*/artifacts"))


def test_a_headline_outside_the_published_range_ends_in_5(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "set"
    shutil.copytree(home / "set", folder)
    report = loads((folder / REPORT).read_bytes())
    first = report.comparisons[0]
    assert first.expected is not None
    narrow = first.expected.model_copy(update={"low": 0.999, "high": 1.0})
    report = report.model_copy(
        update={"comparisons": (first.model_copy(update={"expected": narrow}),)}
    )
    (folder / REPORT).write_text(dumps(report), encoding="utf-8")
    (folder / CARD).write_text(render(report), encoding="utf-8")
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    files = {name: entry_of(folder / name) for name in manifest.files}
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": files}).text())
    monkeypatch.chdir(tmp_path)
    source = f"./photos={home / 'photos'}"

    words = ["reproduce", "set", "--evaluate-only", "--source", source]
    done = CliRunner().invoke(app, words)
    told = CliRunner().invoke(app, [*words, "--json"])

    assert (done.exit_code, told.exit_code) == (5, 5)
    assert "is outside the expected 99.90% to 100.00%" in done.stdout
    assert json.loads(told.stdout)["identical"]


def test_a_damaged_set_is_not_reproduced(home: Path, tmp_path: Path):
    shutil.copytree(home / "set", tmp_path / "set")
    (tmp_path / "set" / CARD).write_text("Best of all.\n")

    with pytest.raises(VerificationError, match=r"README\.md"):
        again(tmp_path, tmp_path)


@pytest.mark.parametrize("word", ["uoft-cs/cifar10", "=folder", "x=nowhere"])
def test_a_source_that_names_no_folder_is_a_usage_error(word: str, home: Path):
    done = CliRunner().invoke(app, ["reproduce", str(home / "set"), "--source", word])

    assert done.exit_code == 2
    assert "names no folder" in done.stderr
