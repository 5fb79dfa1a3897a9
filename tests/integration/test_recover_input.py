"""Bad input of the methods that observers guide: one message with what, where and mend."""

import contextlib
import dataclasses
import json
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distillhub.data.codec import to_uint8
from distillhub.models import weights
from distillhub.models.statistics import ObserverStatistics
from distillhub.models.zoo import build
from distillhub_cli.main import app

HALF = (0.5,) * 3
EDC = """\
schema_version: 1
name: shapes-edc
dataset: {id: ./shapes, test: 0.25}
ipc: 2
method:
  {name: edc, version: 1, iterations: 2, init: {kind: real}, taps: {patch_side: 4}}
observers:
  - {arch: convnet2-w8-bn, weights: ours.safetensors}
  - {arch: convnet2-w8, steps: 2}
relabel: {by: observers, budget: 9.0}
evaluate: []
card: {license: cc0-1.0}
"""
RDED = """\
schema_version: 1
name: shapes-rded
dataset: {id: ./shapes, test: 0.25}
ipc: 2
method: {name: rded, version: 1, factor: 1, crops: 2}
observers: [{arch: convnet2-w8, steps: 2}]
evaluate: []
card: {license: cc0-1.0}
"""


def pictures(folder, names, *, seed):
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = to_uint8(torch.rand(8, 8, 3, generator=generator))
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")


def network(folder, stem, names, *, seed=0, channels=3, side=8):
    net = build(
        "convnet2-w8-bn",
        num_classes=len(names),
        channels=channels,
        height=side,
        width=side,
        mean=HALF[:channels],
        std=HALF[:channels],
        seed=seed,
        class_names=names,
    )
    weights.save(net, folder, stem, {})


def furnish(folder):
    """Pictures of circles and squares, others of the same classes, and networks for some."""
    pictures(folder / "shapes", ("circle", "square"), seed=0)
    pictures(folder / "drawings", ("circle", "square"), seed=1)
    network(folder, "ours", ("circle", "square"))
    network(folder, "other", ("circle", "triangle"))
    network(folder, "swapped", ("square", "circle"))
    return folder


@pytest.fixture
def folder(tmp_path):
    return furnish(tmp_path)


def command(folder, text, name="recipe.yaml"):
    """`distillhub build --direct` of a recipe in the folder."""
    (folder / name).write_text(text, encoding="utf-8")
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, ["build", name, "--direct"])


def changed(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The folder after a build, the statistics of its observers beside the recipe as 0 and 1."""
    folder = furnish(tmp_path_factory.mktemp("built") / "here")
    result = command(folder, EDC)
    assert result.exit_code == 0, result.output
    models = json.loads((built(folder, "recipe") / "models/models.json").read_text())
    for path in folder.glob(".distillhub/resources/statistics-*/statistics.safetensors"):
        whose = ObserverStatistics.load(path).observer
        (number,) = (role[-1] for role, entry in models.items() if entry["sha256"] == whose)
        shutil.copy(path, folder / f"{number}.safetensors")
    return folder


@pytest.fixture
def collected(once, tmp_path):
    return shutil.copytree(once, tmp_path / "here")


def built(folder, stem):
    return folder / ".distillhub/workspace/artifacts" / stem


def with_files(*names):
    listed = ", ".join(f"{name}.safetensors" for name in names)
    return changed(EDC, "iterations: 2,", f"iterations: 2, statistics: {{files: [{listed}]}},")


def test_statistics_of_a_file_give_the_same_images(collected):
    shutil.rmtree(next(collected.glob(".distillhub/resources/statistics-*")).parent)

    result = command(collected, with_files("0", "1"), "again.yaml")

    assert result.exit_code == 0, result.output
    images = [
        (built(collected, stem) / "images/images.parquet").read_bytes()
        for stem in ("recipe", "again")
    ]
    assert images[0] == images[1]
    assert not list(collected.glob(".distillhub/resources/statistics-*"))


def test_a_statistics_file_of_another_observer_is_refused(collected):
    result = command(collected, with_files("1", "0"), "swapped.yaml")

    said = " ".join(result.output.split())
    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "the statistics are of observer" in said
    assert "observer-0 is" in said
    assert "mend: leave files out" in said
    assert not (built(collected, "swapped") / "images").exists()


def test_statistics_of_other_taps_are_refused(collected):
    text = changed(with_files("0", "1"), "patch_side: 4", "patch_side: 2")

    result = command(collected, text, "other.yaml")

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "the recipe taps" in result.output


def test_statistics_that_were_collected_otherwise_are_refused(collected):
    text = changed(with_files("0", "1"), "statistics: {", "statistics: {batch: 5, ")

    result = command(collected, text, "other.yaml")

    said = " ".join(result.output.split())
    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "the statistics were collected by" in said
    assert "batch=5" in said


def test_statistics_of_fewer_images_are_refused(collected):
    found = ObserverStatistics.load(collected / "0.safetensors")
    dataclasses.replace(found, images=7).save(collected / "0.safetensors")

    result = command(collected, with_files("0", "1"), "fewer.yaml")

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "of 7 images, the data set has 12" in " ".join(result.output.split())


def test_a_file_that_holds_no_statistics_is_refused(collected):
    result = command(collected, with_files("0", "ours"), "weights.yaml")

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "not one with statistics" in " ".join(result.output.split())


def test_a_statistics_file_that_changed_makes_another_resolved_recipe(collected):
    command(collected, with_files("0", "1"), "again.yaml")
    resolved = collected / ".distillhub/workspace/recipes/resolved/again.yaml"
    before = resolved.read_text()
    found = ObserverStatistics.load(collected / "0.safetensors")
    path, layer = next(iter(found.layers.items()))
    moved = layer._replace(overall=layer.overall._replace(mean=layer.overall.mean + 1))
    layers = {**found.layers, path: moved}
    dataclasses.replace(found, layers=layers).save(collected / "0.safetensors")

    assert command(collected, with_files("0", "1"), "again.yaml").exit_code == 0

    assert resolved.read_text() != before
    assert str(collected) not in resolved.read_text()


@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        ("ours.safetensors", "other.safetensors", ("observer-0.class_names", "e.g. 'square'")),
        (
            "ours.safetensors",
            "ours.safetensors, class_names: [circle]",
            ("observer-0.class_names", "1 classes are named, the weights have 2 outputs"),
        ),
        ("by: observers", "by: observers, observers: [0, 2]", ("there is no observer 2",)),
        ("version: 1,", "version: 1, observers: [2],", ("there is no observer 2",)),
        ("patch_side: 4", "patch_side: 9", ("taps.patch_side is 9 but images have 8 x 8",)),
        ("kind: real", "kind: build, build: nowhere", ("there is no recipe 'nowhere'",)),
        (
            "kind: real",
            "kind: patches, factor: 3, pool: 4, crops: 4",
            ("2 images of 3 x 3 crops are 18 crops per class", "raise init.crops or init.pool"),
        ),
        (
            "iterations: 2,",
            "iterations: 2, statistics: {files: [none.safetensors, none.safetensors]},",
            ("none.safetensors cannot be read",),
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, old, new, sentences):
    result = command(folder, changed(EDC, old, new))

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    for sentence in sentences:
        assert sentence in " ".join(result.output.split())
    assert "mend:" in result.output
    assert not list(folder.glob(".distillhub/workspace/artifacts/*/models"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("factor: 1", "factor: 2", "8 crops per class (2 images of 2 x 2) are more than the 6"),
        ("factor: 1", "pool: 1, factor: 1", "set pool to 2"),
    ],
)
def test_more_crops_than_there_are_images_are_refused(folder, old, new, sentence):
    result = command(folder, changed(RDED, old, new))

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert sentence in " ".join(result.output.split())


def test_the_observer_of_rded_must_be_there(folder):
    result = command(folder, changed(RDED, "crops: 2", "crops: 2, observer: 1"))

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "there is no observer 1; the recipe has 1" in result.output
    assert "method.observer" in result.output


def test_a_start_from_images_of_another_data_set_is_refused(folder):
    base = changed(RDED, "./shapes", "./drawings")
    (folder / "start.yaml").write_text(base, encoding="utf-8")

    result = command(folder, changed(EDC, "kind: real", "kind: build, build: start"))

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "images of base start are" in " ".join(result.output.split())
    assert "give both recipes the same dataset: block" in " ".join(result.output.split())
    assert not list(folder.glob(".distillhub/workspace/artifacts/*/dataset"))


def test_an_observer_far_below_its_known_accuracy_is_refused(folder):
    text = changed(EDC, "test: 0.25", "test: 0.25, holdout: 0.5")

    result = command(folder, changed(text, "ours.safetensors", "ours.safetensors, top1: 1.0"))

    said = " ".join(result.output.split())
    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert "held-out images are told rightly, the weights are known for 100.0 %" in said
    assert "where: observer-0.top1" in said
    assert "bring class_names into the order of the outputs" in said
    assert not (built(folder, "recipe") / "images").exists()


@pytest.mark.parametrize(
    ("shape", "told"),
    [((3, 16), "16 x 16 pixels in 3 channels"), ((1, 8), "8 x 8 pixels in 1 channel,")],
)
def test_an_observer_for_other_images_is_refused(folder, shape, told):
    network(folder, "ours", ("circle", "square"), channels=shape[0], side=shape[1])

    result = command(folder, EDC)

    said = " ".join(result.output.split())
    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert f"the weights are for images of {told}" in said
    assert "the data set's have 8 x 8 pixels in 3 channels" in said
    assert "where: observer-0.weights" in said
    assert not (built(folder, "recipe") / "images").exists()


def test_an_observer_in_another_order_is_turned_by_its_names(folder):
    result = command(folder, changed(EDC, "ours.safetensors", "swapped.safetensors"))

    assert result.exit_code == 0, result.output
    models = next(folder.glob(".distillhub/workspace/artifacts/*/models"))
    assert weights.load(models, "observer-0").class_names == ("circle", "square")
