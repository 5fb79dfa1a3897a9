"""Nobody changes the code behind a stage without saying whether its results move."""

import json

import pytest

from distillhub.pipeline.versions import CODE
from tests.stage_code import BEHIND, RECORD, current


def test_every_stage_with_results_is_watched():
    assert set(BEHIND) == set(CODE)


@pytest.mark.parametrize("stage", BEHIND)
def test_the_code_behind_a_stage_is_the_recorded_one(stage):
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[stage]

    assert current()[stage] == recorded, (
        f"code behind stage '{stage}' changed: bump CODE['{stage}'] in pipeline/versions.py "
        "if results may move, then record it with `python -m tests.stage_code`"
    )
