"""NOpt killed with -9 goes on inside a denoising step; workers may share the classes."""

import multiprocessing
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from distillhub.data.sources import open_split
from distillhub.digests import fingerprint, sha256_of
from distillhub.pipeline.making import chunks, training_key
from distillhub.pipeline.workbench import PipelineBench
from distillhub.recipe.loading import load_resolved
from tests.e2e.test_unkillable import PERIOD, finish, newer, wait_for
from tests.integration.builds import build_here, digest_of, start_build, write_recipe

NOPT = """\
schema_version: 1
name: digits-nopt
dataset: {id: "sklearn:digits"}
ipc: 5
method:
  name: dsco
  version: 1
  together: 2
  steps: 8
  nopt: {iterations: 60, max_real: 20, projector: {widths: [64, 128, 256, 512]}}
generator: {arch: dit-w16-d2-h2-p2, steps: 20, batch: 16}
evaluate: []
card: {license: cc-by-4.0}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return build_here(write_recipe(tmp_path_factory.mktemp("nopt"), NOPT, "nopt"))


def test_a_killed_optimisation_goes_on_and_gives_the_same_artifact(undisturbed, tmp_path):
    recipe, log = write_recipe(tmp_path, NOPT, "nopt"), tmp_path / "log"
    moments = random.Random(7)
    for _ in range(3):
        process = start_build(
            recipe, "--direct", cwd=tmp_path, log=log, DISTILLHUB_SNAPSHOT_SECONDS=str(PERIOD)
        )
        wait_for(partial(newer, tmp_path, "synthesize", time.time()), process)
        time.sleep(moments.uniform(0, PERIOD))
        process.kill()
        process.wait()
    text = finish(recipe, tmp_path, log)

    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", text)]
    dataset = tmp_path / ".distillhub/workspace/artifacts/nopt/dataset"
    assert len(resumed) == 3
    assert min(resumed) > 2  # the first two steps open the latents of a class
    assert digest_of(dataset) == digest_of(undisturbed)


def images_of(build: Path, resources: Path, share: int, of: int) -> dict[str, torch.Tensor]:
    """The images of every `of`-th chunk of a build, made by this process alone."""
    torch.set_num_threads(1)
    recipe = load_resolved(build / "recipes/resolved/nopt.yaml")
    bench = PipelineBench(
        data=open_split(recipe.dataset, "train", {}),
        data_key=fingerprint(training_key(recipe.dataset)),
        models=build / "artifacts/nopt/models",
        checkpoints=build,
        resources=resources,
        seed=recipe.seed,
        device=torch.device("cpu"),
    )
    made = {}
    for chunk in list(chunks(recipe.method, recipe.target, recipe.seed))[share::of]:
        run = recipe.method.synthesize(chunk.units, bench)
        while True:
            try:
                next(run)
            except StopIteration as end:
                made[chunk.name] = end.value.images
                break
    return made


def test_one_worker_and_four_give_the_same_images(undisturbed, tmp_path):
    build = undisturbed.parents[2]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        parts = pool.map(images_of, [build] * 4, [tmp_path / "shared"] * 4, range(4), [4] * 4)
        four = {name: images for part in parts for name, images in part.items()}

    one = images_of(build, tmp_path / "alone", 0, 1)

    assert sha256_of(undisturbed / "manifest.json")  # the build that both take their models from
    assert len(one) == 5
    assert one.keys() == four.keys()
    assert all(torch.equal(one[name], four[name]) for name in one)
