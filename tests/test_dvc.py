"""dvc.yaml is what the stages say of themselves: a stage reads the blocks it declares alone."""

import inspect

import pytest
from ruamel.yaml import YAML

from distillhub.pipeline.dvcfile import pipeline_text
from distillhub.pipeline.stages import FUNCTIONS
from distillhub.pipeline.versions import BLOCKS, CODE, READS, STAGES, WRITES
from distillhub.recipe.schema import ResolvedRecipe


def test_the_committed_pipeline_is_the_generated_one(repo_root):
    assert (repo_root / "dvc.yaml").read_text(encoding="utf-8") == pipeline_text()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("resolve", "card")])
def test_a_stage_takes_just_the_blocks_that_dvc_watches_for_it(stage):
    parameters = inspect.signature(FUNCTIONS[stage]).parameters

    assert [name for name in parameters if name != "run"] == list(BLOCKS[stage])


@pytest.mark.parametrize("stage", STAGES[1:])
def test_every_watched_block_is_in_a_resolved_recipe(stage):
    assert set(BLOCKS[stage]) <= set(ResolvedRecipe.model_fields)
    assert stage in CODE


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_reads_only_folders_that_stages_before_it_write(stage):
    before = {WRITES[other] for other in STAGES[1 : STAGES.index(stage)]}

    assert set(READS[stage]) <= before


def test_dvc_watches_exactly_these_blocks(repo_root):
    stages = YAML(typ="safe").load(repo_root / "dvc.yaml")["stages"]

    assert list(stages) == list(STAGES)
    for stage in STAGES[1:]:
        watched = next(iter(stages[stage]["params"][0].values()))
        assert watched == [*BLOCKS[stage], f"code.{stage}"]
