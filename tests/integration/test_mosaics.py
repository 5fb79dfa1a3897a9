"""A build of mosaics: through images, labels, package, arms and card, and read without us."""

import json
import re

import datasets
import numpy as np
import pytest
import torch

from distillhub.data import codec
from distillhub.errors import RecipeError
from distillhub.ops.formation import expand, pack
from distillhub.packaging.verify import verify
from distillhub.pipeline.random_images import random_images, twin_rows
from distillhub.pipeline.scoring import score_set
from distillhub.pipeline.students import train_student
from distillhub.records.distilled import load
from tests.fakes import tiny_data
from tests.integration.builds import Log, build_here, write_recipe

MOSAICS = """\
schema_version: 1
name: digits-mosaics
dataset: {id: "sklearn:digits"}
ipc: 2
method:
  name: idm
  version: 1
  iterations: 3
  batch_real: 16
  queue: {arch: convnet2-w8, batch: 32, train_steps: 1}
teacher: {arch: convnet2-w8, steps: 20}
relabel: {views: {}, count: 2, budget: 9.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w8], runs: 1, full_cited: {convnet2-w8:
     {top1: 0.9, source: nobody}}}
card: {license: cc-by-4.0}
"""
HARD = re.sub(r"teacher:.*\nrelabel:.*\n", "relabel: null\n", MOSAICS)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_here(write_recipe(tmp_path_factory.mktemp("soft"), MOSAICS, "mosaics"))


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return build_here(write_recipe(tmp_path_factory.mktemp("hard"), HARD, "mosaics"))


def test_the_dataset_passes_its_own_verification(built, hard) -> None:
    assert verify(built).faults == ()
    assert verify(hard).faults == ()


def test_every_sub_image_has_views_of_its_own(built) -> None:
    opened = load(built)

    assert opened.formation == 2
    assert len(opened) == 20
    assert opened.views_per_image == 8
    assert len(opened.unpacked()) == 80
    tops = opened.views.crop[:, :, 0].view(20, 4, 2)
    assert (tops[:, :2] < 4).all()  # the upper two sub-images of 8 x 8 mosaics
    assert (tops[:, 2:] >= 4).all()


def test_students_train_on_four_times_the_stored_images(built) -> None:
    runs = json.loads((built / "eval.json").read_text())["runs"]

    images = {run["arm"]: run["train_images"] for run in runs}
    assert images == {
        "syn_hard": 80,
        "syn_soft": 80,
        "rnd_hard": 20,
        "rnd_soft": 20,
        "rnd_packed_hard": 80,
        "rnd_packed_soft": 80,
    }


def test_the_networks_of_the_queue_are_no_foreign_architecture(hard) -> None:
    cross = json.loads((hard / "eval.json").read_text())["cross_arch"]

    assert cross["convnet2-w8"]["status"] == "measured"
    assert cross["mean_other"]["status"] != "measured"


def test_the_front_matter_says_how_mosaics_come_apart(built) -> None:
    block = load(built).meta

    assert block["formation"] == 2
    assert block["sub_images"] == {
        "order": "row by row",
        "resize": "bilinear, align_corners=False",
        "label": "of the mosaic",
    }


def test_the_card_tells_mosaics_from_images(built) -> None:
    text = (built / "README.md").read_text()

    assert "mosaics of random real" in text
    assert "20 images of 8 x 8 pixels in 10 classes, each a mosaic of 2 x 2" in text
    assert "80 training images" in text
    assert "mosaics of random images" in text


def test_the_cards_program_takes_mosaics_apart(hard, tmp_path, monkeypatch) -> None:
    text = (hard / "README.md").read_text()
    program = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "net" in b)
    rows = datasets.load_dataset(str(hard), split="train", cache_dir=str(tmp_path))
    monkeypatch.chdir(hard)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    scope: dict[str, torch.Tensor] = {}

    exec(program.replace("range(50)", "range(1)"), scope)  # noqa: S102 - what a reader would do

    pixels = np.stack([np.array(picture) for picture in rows["image"]])
    assert len(scope["images"]) == len(scope["labels"]) == 80
    assert scope["labels"].tolist() == [label for label in rows["label"][:] for _ in range(4)]
    repacked = pack(scope["images"], 2)[:, 0]
    whole = load(hard).unpacked().images(torch.arange(80))
    assert torch.allclose(scope["images"], whole, atol=1e-6)
    assert repacked.shape == pixels.shape


def test_more_mosaics_than_real_images_could_fill_are_refused(tmp_path) -> None:
    recipe = write_recipe(tmp_path, MOSAICS.replace("ipc: 2", "ipc: 40"), "mosaics")

    with pytest.raises(RecipeError, match="in mosaics of 4 images"):
        build_here(recipe)


def test_sides_that_do_not_divide_are_refused_before_any_work(tmp_path) -> None:
    recipe = write_recipe(
        tmp_path,
        MOSAICS.replace('id: "sklearn:digits"', 'id: "sklearn:digits", size: 9'),
        "mosaics",
    )

    with pytest.raises(RecipeError, match="cannot be cut into 2 x 2"):
        build_here(recipe)
    assert not list(tmp_path.glob("**/artifacts"))


def test_a_lone_set_of_mosaics_stands_beside_random_images_and_random_mosaics(
    hard, tmp_path
) -> None:
    scores = score_set(str(hard), state=tmp_path / "state", sources=None, reporter=Log(), runs=1)

    assert {run.arm for run in scores.runs} == {"syn_hard", "rnd_hard", "rnd_packed_hard"}
    (comparison,) = scores.comparisons
    assert "mosaics" in comparison.verdicts["hard"]


def test_random_images_lose_beside_mosaics_what_mosaics_lose() -> None:
    real = tiny_data(per_class=8)

    shown = random_images(real, [1, 2, 1], 2, lambda label: torch.Generator().manual_seed(label))

    assert shown.labels.tolist() == [0] * 4 + [1] * 8 + [2] * 4
    rows = twin_rows(real, [4, 8, 4], lambda label: torch.Generator().manual_seed(label))
    stored = codec.to_float(codec.to_uint8(pack(real.images(rows), 2)))
    picked = torch.tensor([5, 0, 14])
    assert torch.allclose(shown.images(picked), expand(stored, 2)[picked], atol=1e-6)
    assert not torch.allclose(shown.images(picked), real.images(rows[picked]), atol=0.01)


def test_a_student_of_a_lone_set_trains_on_the_parts_of_its_mosaics(hard, tmp_path) -> None:
    trained = train_student(
        str(hard),
        tmp_path / "out",
        state=tmp_path / "state",
        reporter=Log(),
        arch="convnet2-w4",
        protocol="smoke-cpu-1",
    )

    assert trained.record.images == 80
