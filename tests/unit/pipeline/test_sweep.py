"""Variants of a recipe, and the table of their scores."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from distillhub.errors import RecipeError, UsageError
from distillhub.pipeline.results import markdown, write_results
from distillhub.pipeline.sweep import (
    SEED_STRIDE,
    Figure,
    Row,
    SweepTable,
    parse_setting,
    plan_sweep,
)

RECIPE = """\
schema_version: 1
name: tiny
seed: 5
dataset: {id: sklearn:digits}
ipc: 1
method: {name: dm, version: 1, iterations: 3}
evaluate:
  - {protocol: smoke-cpu-1, arms: [syn_hard], runs: 1}
card: {license: cc-by-4.0}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def read(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path)


def test_a_setting_is_read_as_yaml():
    assert parse_setting("method.lr_img=0.1,1") == ("method.lr_img", [0.1, 1])


def test_a_value_may_be_a_list():
    assert parse_setting("relabel.views.scale=[0.5,1.0],[0.7,1.0]") == (
        "relabel.views.scale",
        [[0.5, 1.0], [0.7, 1.0]],
    )


@pytest.mark.parametrize("text", ["ipc", "=3", "ipc=", "ipc=[1"])
def test_a_malformed_setting_is_refused(text):
    with pytest.raises(UsageError):
        parse_setting(text)


def test_every_combination_has_every_seed(recipe, tmp_path):
    variants = plan_sweep(
        recipe, tmp_path / "state", seeds=3, settings={"ipc": [1, 2], "method.iterations": [3, 4]}
    )

    assert len(variants) == 12
    assert {v.seed for v in variants} == {5, 5 + SEED_STRIDE, 5 + 2 * SEED_STRIDE}


def test_a_variant_says_what_its_setting_says_and_nothing_else(recipe, tmp_path):
    (variant,) = plan_sweep(
        recipe, tmp_path / "state", seeds=1, settings={"method.iterations": [7]}
    )

    changed = read(variant.path)
    assert changed["method"].pop("iterations") == 7
    expected = read(recipe)
    del expected["method"]["iterations"]
    assert changed == {**expected, "teacher": None}


def test_a_variant_keeps_its_name_when_the_sweep_grows(recipe, tmp_path):
    (small,) = plan_sweep(recipe, tmp_path / "state", seeds=1, settings={"ipc": [2]})

    grown = plan_sweep(recipe, tmp_path / "state", seeds=2, settings={"ipc": [1, 2]})

    assert small.path in {variant.path for variant in grown}


def test_an_entry_of_a_list_can_be_set(recipe, tmp_path):
    (variant,) = plan_sweep(recipe, tmp_path / "state", seeds=1, settings={"evaluate.0.runs": [2]})

    assert read(variant.path)["evaluate"][0]["runs"] == 2


def test_a_key_that_leads_nowhere_is_refused(recipe, tmp_path):
    with pytest.raises(UsageError, match="no block 'relabel'"):
        plan_sweep(recipe, tmp_path / "state", seeds=1, settings={"relabel.budget": [1.0]})


def test_faults_of_all_variants_are_reported_before_anything_is_built(recipe, tmp_path):
    with pytest.raises(RecipeError) as caught:
        plan_sweep(recipe, tmp_path / "state", seeds=1, settings={"ipc": [0, -1]})

    assert len(caught.value.faults) == 2


def test_a_relative_folder_leads_to_the_same_place(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("sklearn:digits", "./images"), encoding="utf-8")

    (variant,) = plan_sweep(recipe, tmp_path / "state", seeds=1, settings={"ipc": [2]})

    moved = (variant.path.parent / read(variant.path)["dataset"]["id"]).resolve()
    assert moved == (tmp_path / "images").resolve()


def row(value: float, ci95: tuple[float, float] | None) -> Row:
    return Row(
        setting={"ipc": "1"},
        protocol="digits-1",
        arch="convnet3-w32",
        figures={
            "top1.syn_hard": Figure(value=value, ci95=ci95, n=3),
            "gain_images_hard": Figure(value=0.05, ci95=None, n=3),
        },
        bytes_images=1500,
        bytes_labels=500,
        seconds=Figure(value=61.4, ci95=None, n=3),
        builds=("a" * 64,),
    )


def table(*rows: Row) -> SweepTable:
    return SweepTable(recipe="tiny", seeds=(0, 1000, 2000), keys=("ipc",), rows=rows, device="cpu")


def test_a_row_shows_percent_with_half_of_the_interval_and_gains_with_a_sign():
    text = markdown("tiny", "distillhub sweep tiny", table(row(0.9, (0.88, 0.92))))

    assert "| 1 | digits-1 | convnet3-w32 | 90.0 ± 2.0 | +5.0 | 1.5 kB | 0.5 kB | 61 s |" in text


def test_columns_that_nothing_fills_are_left_out():
    assert "soft" not in markdown("tiny", "x", table(row(0.9, None)))


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path):
    page = tmp_path / "results.md"
    write_results(page, "one", "x", table(row(0.1, None)))
    write_results(page, "two", "x", table(row(0.2, None)))
    before = page.read_text()

    write_results(page, "one", "x", table(row(0.3, None)))

    after = page.read_text()
    assert "| 30.0 |" in after
    assert "| 10.0 |" not in after
    assert after.partition("<!-- sweep two -->")[2] == before.partition("<!-- sweep two -->")[2]


def test_writing_the_same_twice_changes_nothing(tmp_path):
    page = tmp_path / "results.md"
    write_results(page, "one", "x", table(row(0.1, None)))
    before = page.read_bytes()

    write_results(page, "one", "x", table(row(0.1, None)))

    assert page.read_bytes() == before


def test_the_figures_are_beside_the_page_as_json(tmp_path):
    path = write_results(tmp_path / "results.md", "one", "x", table(row(0.1, None)))

    assert json.loads(path.read_text())["rows"][0]["figures"]["top1.syn_hard"]["value"] == 0.1
