"""kill -9 while observers are trained, looked through, and give back images: nothing is lost."""

import json
import random
import re
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from distillhub.ops.progress import MARK
from tests.e2e.test_unkillable import finish, snapshots, wait_for
from tests.integration.builds import build_here, digest_of, start_build, write_recipe

EDC = """\
schema_version: 1
name: digits-edc
dataset: {id: "sklearn:digits"}
ipc: 4
method:
  name: edc
  version: 1
  together: 2
  iterations: 80
  batch: {order: class_major, size: 10}
  init: {kind: real, flip: false}
  statistics: {augment: flip_shift, batch: 4}
  augment: {crop: [0.7, 1.0], flip: false}
observers:
  - {arch: convnet2-w16-bn, epochs: 12, checkpoint_epoch: 8, batch: 16, augment: shift}
  - {arch: convnet2-w16, epochs: 8, batch: 16, augment: shift}
relabel: {by: observers, budget: 9.0}
evaluate: []
card: {license: cc-by-4.0}
"""
PERIOD = 0.1
"""Seconds between snapshots in these tests; five outside of them."""
PHASES = {
    "squeeze": ("models", None),
    "statistics": ("synthesize", True),
    "recover": ("synthesize", False),
}
"""What is killed: its stage, and whether its snapshots are those of a resource."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    return digest_of(build_here(write_recipe(tmp_path_factory.mktemp("edc"), EDC, "edc")))


def steps_in(folder: Path, phase: str) -> list[int]:
    """The steps of all snapshots of a phase that lie there."""
    stage, of_resource = PHASES[phase]
    found = []
    for path in snapshots(folder, stage):
        try:
            with safe_open(path, "pt") as file:
                content = json.loads((file.metadata() or {})["scalars"])
        except (SafetensorError, OSError):  # replaced or removed just now
            continue
        if of_resource is None or (MARK in content) == of_resource:
            found.append(content["step"])
    return found


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_build_goes_on_and_gives_the_same_artifact(phase, undisturbed, tmp_path):
    recipe, log = write_recipe(tmp_path, EDC, "edc"), tmp_path / "log"
    moments, reached = random.Random(phase), []
    for _ in range(3):
        before = steps_in(tmp_path, phase)
        process = start_build(
            recipe, "--direct", cwd=tmp_path, log=log, DISTILLHUB_SNAPSHOT_SECONDS=str(PERIOD)
        )
        wait_for(lambda before=before: steps_in(tmp_path, phase) not in ([], before), process)
        time.sleep(moments.uniform(0, PERIOD / 2))
        process.kill()
        process.wait()
        reached.append(steps_in(tmp_path, phase))
    text = finish(recipe, tmp_path, log)

    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", text)]
    dataset = tmp_path / ".distillhub/workspace/artifacts/edc/dataset"
    assert len(resumed) == 3  # once after every kill
    assert min(resumed) > 0
    assert [[step] for step in resumed] == reached
    assert digest_of(dataset) == undisturbed
