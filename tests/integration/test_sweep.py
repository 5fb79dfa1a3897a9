"""A sweep builds what is not built yet, and lays the scores side by side."""

import pytest

from distillhub.pipeline.project import Project
from distillhub.pipeline.sweep import run_sweep
from tests.integration.builds import TINY, Log, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "distillhub.toml").write_text("", encoding="utf-8")
    project = Project.at(root)
    recipe = write_recipe(root / "recipes", TINY)
    table = run_sweep(recipe, project, seeds=2, settings={"ipc": [1, 2]}, reporter=Log())
    return recipe, project, table


def test_every_setting_has_a_row_with_all_four_arms(swept):
    _, _, table = swept

    assert [row.setting for row in table.rows] == [{"ipc": "1"}, {"ipc": "2"}]
    for row in table.rows:
        assert {"top1.syn_hard", "top1.rnd_hard", "top1.syn_soft", "top1.rnd_soft"} <= set(
            row.figures
        )


def test_a_row_names_one_dataset_per_seed(swept):
    _, _, table = swept

    assert [len(set(row.builds)) for row in table.rows] == [2, 2]


def test_a_gain_is_the_mean_of_the_differences(swept):
    _, _, table = swept

    for row in table.rows:
        syn, rnd = row.figures["top1.syn_hard"].value, row.figures["top1.rnd_hard"].value
        assert row.figures["gain_images_hard"].value == pytest.approx(syn - rnd)


def test_a_larger_sweep_builds_only_what_is_new(swept):
    recipe, project, _ = swept
    log = Log()

    run_sweep(
        recipe, project, seeds=2, settings={"ipc": [1, 2], "method.iterations": [3]}, reporter=log
    )

    assert log.stages == []
