"""Random twins are labelled as the set beside them is, whatever their own files weigh."""

from pathlib import Path

import pytest

from distillhub.packaging.parquet import PackageRecord
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


@pytest.mark.slow
def test_twins_have_the_views_and_bits_that_a_budget_gave_the_set(tmp_path):
    """Noise compresses worse than digits: a budget of their own would give twins fewer views."""
    dataset = build_here(write_recipe(tmp_path, NOISY))

    made = labels_of(dataset.parent / "package")
    twins = [labels_of(twin) for twin in tmp_path.glob("**/resources/twin-*/package")]
    assert twins == [made, made]
