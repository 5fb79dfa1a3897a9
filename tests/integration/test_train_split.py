"""Which splits of its data set a build opens, stage by stage."""

import pytest

from distillhub.data.folders import LocalFolder
from distillhub.data.rows import EncodedRows
from tests.integration.builds import Log, build_here, write_recipe
from tests.unit.data.sets import hub_folder

RECIPE = """\
schema_version: 1
name: two-splits
dataset: {id: "FOLDER"}
ipc: 1
method:
  name: METHOD
  version: 1
  iterations: 3
  batch_real: 8
  queue: {arch: convnet2-w4, batch: 16, train_steps: 1}
teacher: {arch: convnet2-w4, steps: 5}
relabel: {views: {}, count: 1, budget: 100.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w4], runs: 1, arms: [syn_hard]}
card: {license: cc-by-4.0}
"""


class Opened(Log):
    """The splits that each stage opens."""

    def __init__(self) -> None:
        super().__init__()
        self.splits: dict[str, set[str]] = {}

    def stage(self, name: str, stem: str) -> None:
        super().stage(name, stem)
        self.splits[name] = set()


@pytest.mark.parametrize("method", ["idm", "bacon"])
def test_bacon_check_09_only_evaluation_opens_the_test_split(tmp_path, monkeypatch, method) -> None:
    source = hub_folder(tmp_path / "source", train=60, test=20)
    text = RECIPE.replace("FOLDER", str(source)).replace("METHOD", method)
    log, rows = Opened(), LocalFolder.rows

    def watched(folder: LocalFolder, split: str) -> EncodedRows:
        if log.stages:  # before the first one, the data are pinned
            log.splits[log.stages[-1]].add(split)
        return rows(folder, split)

    monkeypatch.setattr(LocalFolder, "rows", watched)
    build_here(write_recipe(tmp_path / "here", text, "splits"), log)

    made = ("models", "synthesize", "relabel", "package")
    assert log.splits["synthesize"] == {"train"}
    assert set().union(*(log.splits[stage] for stage in made)) == {"train"}
    assert "test" in log.splits["evaluate"]
