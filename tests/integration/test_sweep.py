"""A sweep builds what is not built yet, and lays the scores side by side."""

import pytest

from distillhub.pipeline.project import Project
from distillhub.pipeline.sweep import run_sweep
from tests.integration.builds import TINY, Log, write_recipe

HERDING = TINY.replace("digits-tiny", "digits-herded").replace(
    "name: dm, version: 1, iterations: 3, arch: convnet2-w8, batch_real: 16",
    "name: herding, version: 1",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two recipes of one data set, the second without the images' optimisation."""
    root = tmp_path_factory.mktemp("project")
    (root / "distillhub.toml").write_text("", encoding="utf-8")
    project = Project.at(root)
    recipes = [
        write_recipe(root / "recipes", TINY),
        write_recipe(root / "recipes", HERDING, "herded"),
    ]
    table = run_sweep(recipes, project, seeds=2, settings={"ipc": [1, 2]}, reporter=Log())
    return recipes, project, table


def test_every_images_per_class_have_random_images_and_a_row_of_each_recipe(swept):
    _, _, table = swept

    assert [(row.ipc, row.recipe) for row in table.rows] == [
        (1, "random"), (1, "tiny"), (1, "herded"), (2, "random"), (2, "tiny"), (2, "herded")
    ]  # fmt: skip


def test_every_row_has_its_arms(swept):
    _, _, table = swept

    for row in table.rows:
        arms = {"top1.rnd_hard", "top1.rnd_soft"}
        if row.kind == "distilled":
            arms |= {"top1.syn_hard", "top1.syn_soft"}
        assert arms <= set(row.figures)


def test_a_row_names_one_dataset_per_seed(swept):
    _, _, table = swept

    distilled = [row for row in table.rows if row.recipe == "tiny"]
    assert [len(set(row.builds)) for row in distilled] == [2, 2]


def test_a_gain_is_the_mean_of_the_differences(swept):
    _, _, table = swept

    for row in table.rows:
        if row.kind == "distilled":
            syn, rnd = row.figures["top1.syn_hard"].value, row.figures["top1.rnd_hard"].value
            assert row.figures["gain_images_hard"].value == pytest.approx(syn - rnd)


def test_a_larger_sweep_builds_only_what_is_new(swept):
    recipes, project, _ = swept
    log = Log()

    run_sweep(
        recipes[:1],
        project,
        seeds=2,
        settings={"ipc": [1, 2], "method.iterations": [3]},
        reporter=log,
    )

    assert log.stages == []
