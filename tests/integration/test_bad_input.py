"""Bad input ends in one message with what, where and mend, and in the documented exit code."""

import contextlib

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distillhub.data.codec import to_uint8
from distillhub.models import weights
from distillhub.models.zoo import build
from distillhub_cli.main import app

RECIPE = """\
schema_version: 1
name: shapes
dataset: {id: ./shapes, test: 0.25}
ipc: 2
method: {name: dm, version: 1, iterations: 2, arch: convnet2-w8}
teacher: {arch: convnet2-w8, steps: 2}
relabel: {}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w8], runs: 1}
card: {license: cc0-1.0}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of eight pictures in each of two classes, and the weights of a network for three."""
    generator = torch.Generator().manual_seed(0)
    for label in ("circle", "square"):
        (tmp_path / "shapes" / label).mkdir(parents=True)
        for number in range(8):
            pixels = to_uint8(torch.rand(8, 8, 3, generator=generator))
            Image.fromarray(pixels.numpy()).save(tmp_path / "shapes" / label / f"{number}.png")
    (tmp_path / "lonely" / "circle").mkdir(parents=True)
    pixels = to_uint8(torch.rand(8, 8, 3, generator=generator))
    Image.fromarray(pixels.numpy()).save(tmp_path / "lonely" / "circle" / "0.png")
    half = (0.5,) * 3
    three = build(
        "convnet2-w8", num_classes=3, channels=3, height=8, width=8, mean=half, std=half, seed=0
    )
    weights.save(three, tmp_path, "three", {})
    return tmp_path


def command(folder, text: str, name: str = "recipe.yaml"):
    """`distillhub build --direct` of a recipe in the folder."""
    (folder / name).write_text(text, encoding="utf-8")
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, ["build", name, "--direct"])


@pytest.mark.parametrize(
    ("old", "new", "code", "sentence"),
    [
        ("ipc: 2", "ipc: 2\nipx: 3", 3, "unknown key 'ipx'"),
        ("ipc: 2", "ipc: two", 3, "valid integer"),
        ("ipc: 2", "ipc: 7", 3, "ipc is 7 but class"),
        ("test: 0.25", "test: 25", 3, "did you mean 0.25"),
        ("test: 0.25", "test: 0.25, holdout: 10", 3, "looks like a percentage"),
        ("test: 0.25", "test: 0.25, classes: [circle, sqare]", 3, "no class 'sqare'"),
        ("test: 0.25", "test: validation", 3, "validation"),
        ("./shapes", "./lonely", 3, "class"),
        ("./shapes", "./absent", 3, "absent"),
        ("./shapes", "nobody/nothing", 3, "cannot be asked"),
        ("name: shapes", "name: ../shapes", 3, "not a safe name"),
        ("ipc: 2", "ipc: !!python/name:os.system ''", 3, "is not allowed"),
        ("smoke-cpu-1", "smoke-gpu-1", 3, "no protocol is called"),
        ("protocol: smoke-cpu-1", "protocol: hard-1", 3, "meant for a GPU"),
        ("arch: convnet2-w8, steps: 2", "arch: convent2, steps: 2", 3, "convnet"),
        ("arch: convnet2-w8, steps: 2", "arch: convnet9, steps: 2", 3, "depth 9 halves"),
        ("arch: convnet2-w8}", "arch: convnet2-w8-bn}", 3, "batch norm"),
        ("steps: 2}", "weights: three.safetensors}", 3, "knows 3 classes"),
        ("steps: 2}", "weights: none.safetensors}", 4, "none.safetensors"),
        ("iterations: 2,", "iterations: 2, lr_img: 1.0e+38,", 4, "at step"),
    ],
)
def test_a_build_of_bad_input_ends_in_a_message_and_its_code(folder, old, new, code, sentence):
    assert old in RECIPE

    result = command(folder, RECIPE.replace(old, new, 1))

    assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
    assert sentence in result.output


def test_a_corrupt_image_is_named(folder):
    (folder / "shapes" / "square" / "3.png").write_bytes(b"\x89PNG and then nothing")

    result = command(folder, RECIPE)

    assert result.exit_code in (3, 4), result.output
    assert "3.png" in result.output
    assert "Traceback" not in result.output


def test_a_file_name_that_is_not_safe_is_refused(folder):
    assert command(folder, RECIPE, "My Recipe.yaml").exit_code == 3


def test_a_build_of_good_input_ends_well(folder):
    result = command(folder, RECIPE)

    assert result.exit_code == 0, result.output
