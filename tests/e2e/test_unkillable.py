"""kill -9 at random moments: the build goes on from its last snapshot to the same artifact."""

import contextlib
import random
import re
import time
from functools import partial
from pathlib import Path

import pytest

from tests.integration.builds import build_here, digest_of, runs_of, start_build, write_recipe

LONG = """\
schema_version: 1
name: digits-long
dataset: {id: "sklearn:digits"}
ipc: 10
method: {name: dm, version: 1, iterations: 300, arch: convnet2-w8, batch_real: 64}
teacher: {arch: convnet3-w16, steps: 500, augment: shift}
relabel: {views: {}, count: 400, max_count: 400, budget: 900.0}
evaluate:
  - {protocol: digits-1, students: [convnet2-w8], arms: [syn_hard, syn_soft], runs: 1}
card: {license: cc-by-4.0}
"""
PERIOD = 0.2
"""Seconds between snapshots in these tests; five outside of them."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, str]:
    dataset = build_here(write_recipe(tmp_path_factory.mktemp("undisturbed"), LONG, "long"))
    return digest_of(dataset), runs_of(dataset)


def wait_for(condition, process, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline, "no snapshot appeared"
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["models", "synthesize", "relabel", "evaluate"])
def test_a_killed_build_goes_on_and_gives_the_same_artifact(stage, undisturbed, tmp_path):
    recipe, log = write_recipe(tmp_path, LONG, "long"), tmp_path / "log"
    moments = random.Random(stage)
    for _ in range(3):
        process = start_build(
            recipe, "--direct", cwd=tmp_path, log=log, DISTILLHUB_SNAPSHOT_SECONDS=str(PERIOD)
        )
        begun = time.time()
        wait_for(partial(newer, tmp_path, stage, begun), process)
        time.sleep(moments.uniform(0, PERIOD))
        process.kill()
        process.wait()
    text = finish(recipe, tmp_path, log)

    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", text)]
    dataset = tmp_path / ".distillhub/workspace/artifacts/long/dataset"
    assert len(resumed) == 3  # once after every kill
    assert min(resumed) > 0
    assert resumed == sorted(resumed) or stage == "evaluate"  # which has several runs
    assert (digest_of(dataset), runs_of(dataset)) == undisturbed


def test_a_build_through_dvc_killed_with_its_children_alive_ends_right(undisturbed, tmp_path):
    recipe, log = write_recipe(tmp_path, LONG, "long"), tmp_path / "log"
    process = start_build(recipe, cwd=tmp_path, log=log, DISTILLHUB_SNAPSHOT_SECONDS=str(PERIOD))
    wait_for(lambda: any(snapshots(tmp_path, "synthesize")), process)
    process.kill()
    process.wait()

    second = start_build(recipe, cwd=tmp_path, log=log)
    third = start_build(recipe, cwd=tmp_path, log=log)

    assert (second.wait(), third.wait()) == (0, 0), log.read_text()
    assert re.search(r"resumed at step [1-9]", log.read_text())
    dataset = tmp_path / ".distillhub/workspace/artifacts/long/dataset"
    assert (digest_of(dataset), runs_of(dataset)) == undisturbed


def newer(folder: Path, stage: str, begun: float) -> bool:
    """Whether this process, and not a killed one before it, has taken a snapshot."""
    for path in snapshots(folder, stage):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > begun:
                return True
    return False


def snapshots(folder: Path, stage: str):
    return (folder / ".distillhub" / "work" / stage).glob("*/*.snapshot.safetensors")


def finish(recipe: Path, folder: Path, log: Path) -> str:
    process = start_build(recipe, "--direct", cwd=folder, log=log)
    assert process.wait() == 0, log.read_text()
    return log.read_text()
