"""Random twins are labelled as the set beside them is, whatever their own files weigh."""

from pathlib import Path

import pytest

from distillhub.packaging.parquet import PackageRecord
from distillhub.pipeline import judging
from tests.integration.builds import TINY, build_here, write_recipe

NOISY = TINY.replace("iterations: 3,", "iterations: 1, init: noise,").replace(
    "count: 2, budget: 9.0", "budget: 1.65"
)


def labels_of(package: Path) -> tuple[object, object]:
    """Views and bits of a package."""
    record = PackageRecord.model_validate_json((package / "package.json").read_bytes())
    block = record.front_matter["distillhub"]
    assert isinstance(block, dict)
    return block["views"], block["labels"]


def set_and_twins(folder: Path) -> tuple[tuple[object, object], list[tuple[object, object]]]:
    dataset = build_here(write_recipe(folder, NOISY))
    twins = sorted(folder.glob("**/resources/twin-*/package"))
    return labels_of(dataset.parent / "package"), [labels_of(twin) for twin in twins]


def test_twins_have_the_views_and_bits_that_a_budget_gave_the_set(tmp_path):
    made, twins = set_and_twins(tmp_path)

    assert twins == [made, made]


def test_a_budget_of_their_own_would_give_twins_other_labels(tmp_path, monkeypatch):
    """Noise compresses worse than digits, so that its budget holds more views."""
    monkeypatch.setattr(judging, "_labelled_alike", lambda relabel, made: relabel)

    made, twins = set_and_twins(tmp_path)

    assert len(twins) == 2
    assert made not in twins


pytestmark = pytest.mark.slow
