"""IDM and BACON killed with -9: in matching and while their queue of networks is made."""

import contextlib
import random
import re
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.test_unkillable import PERIOD, finish, newer, wait_for
from tests.integration.builds import build_here, digest_of, start_build, write_recipe

QUEUE = """\
schema_version: 1
name: digits-METHOD
dataset: {id: "sklearn:digits"}
ipc: 2
method:
  name: METHOD
  version: 1
  iterations: 160
  batch_real: 64
  dsa: color_crop_cutout_scale_rotate
  queue: {arch: convnet2-w8, batch: 64, train_steps: 4, generate_every: 10}
evaluate: []
card: {license: cc-by-4.0}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["idm", "bacon"])
def undisturbed(request, tmp_path_factory) -> tuple[str, str]:
    """A recipe and the digest of what it builds in peace."""
    text = QUEUE.replace("METHOD", request.param)
    dataset = build_here(write_recipe(tmp_path_factory.mktemp("queue"), text, "queue"))
    return text, digest_of(dataset)


def test_a_killed_synthesis_and_a_killed_queue_end_in_the_same_artifact(undisturbed, tmp_path):
    text, digest = undisturbed
    recipe, log = write_recipe(tmp_path, text, "queue"), tmp_path / "log"
    moments = random.Random(5)
    for kind in ("queue", "matching", "queue", "matching"):
        process = start_build(
            recipe, "--direct", cwd=tmp_path, log=log, DISTILLHUB_SNAPSHOT_SECONDS=str(PERIOD)
        )
        begun = time.time()
        if kind == "queue":
            wait_for(partial(half_made, tmp_path, begun), process)
        else:
            wait_for(partial(newer, tmp_path, "synthesize", begun), process)
            time.sleep(moments.uniform(0, PERIOD))
        process.kill()
        process.wait()
        if kind == "queue":
            assert half_made(tmp_path, begun)
    said = finish(recipe, tmp_path, log)

    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", said)]
    # The first kill came before anything was matched; every later one finds a snapshot.
    assert len(resumed) == 3
    assert min(resumed) > 0
    assert resumed == sorted(resumed)
    assert not half_made(tmp_path, 0.0)
    assert digest_of(tmp_path / ".distillhub/workspace/artifacts/queue/dataset") == digest


def half_made(folder: Path, begun: float) -> bool:
    """Whether a part of the queue is being made, or was when its process was killed."""
    for path in (folder / ".distillhub" / "resources").glob(".queue-*.new-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > begun:
                return True
    return False
