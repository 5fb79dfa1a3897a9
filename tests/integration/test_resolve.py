"""Resolve writes every default, pins by content, and refuses what changed since."""

import shutil

import pytest
import torch
from PIL import Image

from distillhub.data.codec import to_uint8
from distillhub.errors import RecipeError
from distillhub.models import weights
from distillhub.models.zoo import build
from distillhub.pipeline.building import indexed
from distillhub.pipeline.project import Project
from distillhub.pipeline.resolve import resolve_recipe
from distillhub.recipe.loading import load_resolved

PHOTOS = """\
schema_version: 1
name: photos
dataset: {id: ./photos, test: 0.25}
ipc: 2
method: {name: random, version: 1}
card: {license: cc0-1.0}
"""


@pytest.fixture
def project(tmp_path):
    """A project with a folder of eight pictures in each of two classes beside its recipe."""
    (tmp_path / "distillhub.toml").write_text("", encoding="utf-8")
    recipes = tmp_path / "recipes"
    generator = torch.Generator().manual_seed(0)
    for label in ("cat", "dog"):
        folder = recipes / "photos" / label
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = to_uint8(torch.rand(8, 8, 3, generator=generator))
            Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    (recipes / "photos.yaml").write_text(PHOTOS, encoding="utf-8")
    return Project.at(tmp_path)


def resolved(project, *, update=False):
    return resolve_recipe(project.recipe("photos"), project, update=update)


def test_the_resolved_recipes_of_the_index_are_current(repo_root, tmp_path):
    shutil.copytree(repo_root / "recipes", tmp_path / "recipes")
    shutil.copy(repo_root / "distillhub.toml", tmp_path)
    project = Project.at(tmp_path)
    for stem in indexed(project):
        before = project.resolved(stem).read_text(encoding="utf-8")

        resolve_recipe(project.recipe(stem), project)

        assert project.resolved(stem).read_text(encoding="utf-8") == before


def test_what_is_written_reads_back_as_what_was_resolved(project):
    assert load_resolved((resolved(project), project.resolved("photos"))[1]) == resolved(project)


def test_resolving_twice_leaves_the_file_alone(project):
    resolved(project)
    before = project.resolved("photos").stat().st_mtime_ns

    resolved(project)

    assert project.resolved("photos").stat().st_mtime_ns == before


def test_data_that_changed_are_refused_until_the_change_is_accepted(project):
    pin = resolved(project).dataset.pinned
    (project.recipes / "photos" / "cat" / "0.png").unlink()

    with pytest.raises(RecipeError, match="not those that this recipe was resolved with"):
        resolved(project)

    assert resolved(project, update=True).dataset.pinned != pin


def test_no_path_of_the_machine_gets_into_the_resolved_recipe(project):
    resolved(project)

    assert str(project.root) not in project.resolved("photos").read_text(encoding="utf-8")


def saved_weights(project):
    net = build(
        "convnet2-w8",
        num_classes=2,
        channels=3,
        height=8,
        width=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        seed=0,
    )
    return weights.save(net, project.recipes, "mine", {})


def test_weights_in_a_file_are_pinned_and_kept_under_their_digest(project):
    record = saved_weights(project)
    block = "teacher: {arch: convnet2-w8, weights: mine.safetensors}\n"
    project.recipe("photos").write_text(PHOTOS + block, encoding="utf-8")

    teacher = resolved(project).teacher

    assert teacher is not None
    assert teacher.weights == f"{record.sha256}.safetensors"
    assert (project.state / "weights" / teacher.weights).exists()


def test_weights_that_are_not_the_pinned_ones_are_refused(project):
    saved_weights(project)
    block = f"teacher: {{arch: convnet2-w8, weights: mine.safetensors, sha256: '{'0' * 64}'}}\n"
    project.recipe("photos").write_text(PHOTOS + block, encoding="utf-8")

    with pytest.raises(RecipeError, match=r"sha256 of mine\.safetensors is"):
        resolved(project)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ipc: 2", "ipc: 7", "ipc is 7 but class 'cat' has 6 training images"),
        ("test: 0.25", "test: 0.25, classes: [cat, dgo]", "there is no class 'dgo'"),
        ("test: 0.25", "test: 0.25, classes: [cat]", "class"),
        ("./photos", "./fotos", "fotos"),
        ("method:", "relabel: {top_k: 5}\nteacher: {arch: mlp}\nmethod:", "top_k is 5 but"),
    ],
)
def test_what_the_data_make_impossible_is_told_before_any_work(project, old, new, sentence):
    project.recipe("photos").write_text(PHOTOS.replace(old, new), encoding="utf-8")

    with pytest.raises(RecipeError, match=sentence):
        resolved(project)


@pytest.mark.parametrize(
    ("ipc", "method", "written"),
    [
        (5, "{name: dsco, version: 1}", "lattice"),
        (4, "{name: dsco, version: 1}", "gaussian"),
        (5, "{name: dsco, version: 1, nopt: {mode: df}}", "gaussian"),
        (6, "{name: dit, version: 1, init_noise: auto}", "lattice"),
        (6, "{name: igds, version: 1, init_noise: auto}", "lattice"),
        (6, "{name: dit, version: 1}", "gaussian"),
    ],
)
def test_the_noise_that_auto_stands_for_is_written_out(project, ipc, method, written):
    text = PHOTOS.replace("ipc: 2", f"ipc: {ipc}\ngenerator: {{arch: dit-w8-d1-h1-p2}}")
    text = text.replace("{name: random, version: 1}", method)
    if "igds" in method:
        text += "teacher: {arch: mlp}\n"
    project.recipe("photos").write_text(text, encoding="utf-8")

    assert resolved(project).method.init_noise == written
    assert load_resolved(project.resolved("photos")).method.init_noise == written
