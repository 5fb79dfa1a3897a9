"""A build of RDED, from observer to card, and what may be published of it."""

import json

import pytest

from distillhub.errors import RecipeError
from distillhub.hub.refusals import refusals
from distillhub.packaging.verify import verify
from distillhub.records.distilled import load
from distillhub.records.report import EvalReport, loads
from tests.integration.builds import build_here, digest_of, write_recipe

RDED = """\
schema_version: 1
name: digits-rded
dataset: {id: "sklearn:digits"}
ipc: 2
method: {name: rded, version: 1, factor: 2, pool: 20, crops: 2, observer: 1}
observers:
  - {arch: convnet2-w8, steps: 4}
  - {arch: convnet2-w8-bn, steps: 20}
relabel: {by: observers, views: {}, count: 2, budget: 9.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard, rnd_hard, syn_soft, rnd_soft],
     runs: 1}
card: {license: cc-by-4.0}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_here(write_recipe(tmp_path_factory.mktemp("rded"), RDED, "rded"))


def report_of(built) -> EvalReport:
    return loads((built / "eval.json").read_bytes())


def test_the_dataset_passes_its_own_verification(built) -> None:
    assert verify(built).faults == ()
    assert load(built).counts == (2,) * 10


def test_collages_are_stored_as_ordinary_images(built) -> None:
    opened = load(built)

    assert opened.formation == 1
    assert (opened.height, opened.width) == (8, 8)
    runs = json.loads((built / "eval.json").read_text())["runs"]
    assert {run["train_images"] for run in runs} == {20}


def test_the_same_recipe_gives_the_same_set(built, tmp_path) -> None:
    again = build_here(write_recipe(tmp_path, RDED, "rded"))

    assert digest_of(again) == digest_of(built)


def test_the_card_says_that_the_pixels_are_real(built) -> None:
    text = (built / "README.md").read_text()

    assert "Every image is made of crops of real images" in text
    assert "cannot be published by naming real images" in text


@pytest.mark.parametrize("said", ["unknown", "no"])
def test_decision_7_real_pixels_are_not_published_without_the_right_to(built, said: str) -> None:
    report = report_of(built)
    rights = report.rights.model_copy(update={"redistributable": said})

    found = list(refusals(report.model_copy(update={"rights": rights}), allow_incomplete=True))

    assert report.rights.redistributable == "unknown"
    assert report.privacy.real_pixel_share == 1.0
    assert [fault.where for fault in found] == ["card.redistributable"]


def test_decision_7_with_the_right_to_they_are(built) -> None:
    report = report_of(built)
    rights = report.rights.model_copy(update={"redistributable": "yes"})

    free = report.model_copy(update={"rights": rights})

    assert list(refusals(free, allow_incomplete=True)) == []


def test_more_crops_than_the_pool_are_refused_before_any_work(tmp_path) -> None:
    recipe = write_recipe(tmp_path, RDED.replace("ipc: 2", "ipc: 6"), "rded")

    with pytest.raises(RecipeError, match="24 crops per class") as caught:
        build_here(recipe)

    assert caught.value.exit_code == 3
    assert not list(tmp_path.glob("**/artifacts"))


def test_an_observer_is_needed(tmp_path) -> None:
    text = RDED.replace(RDED[RDED.index("observers:") : RDED.index("evaluate:")], "relabel: null\n")

    with pytest.raises(RecipeError, match="needs a observers: block"):
        build_here(write_recipe(tmp_path, text, "rded"))
