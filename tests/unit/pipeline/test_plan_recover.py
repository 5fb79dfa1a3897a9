"""What a plan foretells of networks that are trained for epochs, and of methods that they guide."""

import pytest
import torch

from distillhub.pipeline.plan import make_plan
from distillhub.pipeline.project import Project
from distillhub.pipeline.rates import Rates

EDC = """\
schema_version: 1
name: digits-edc
dataset: {id: "sklearn:digits"}
ipc: 3
method:
  name: edc
  version: 1
  iterations: 25
  batch: {order: class_major, size: 10}
  init: {kind: real, flip: false}
  statistics: {batch: 64}
observers:
  - {arch: convnet2-w8-bn, epochs: 8, checkpoint_epoch: 3, batch: 32}
  - {arch: convnet2-w8, epochs: 8, batch: 32}
  - {arch: convnet1-w4, steps: 7}
relabel: {by: observers, observers: [0, 1], budget: 9.0}
evaluate:
  - {protocol: smoke-online-1, arms: [syn_soft_online], runs: 1}
card: {license: cc-by-4.0}
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Stage -> what it does, in words."""
    root = tmp_path_factory.mktemp("plan")
    (root / "distillhub.toml").write_text("", encoding="utf-8")
    (root / "recipes").mkdir()
    project = Project.at(root)
    project.recipe("edc").write_text(EDC, encoding="utf-8")
    made = make_plan(project.recipe("edc"), project, startup=0.0)
    return {stage.name: [(part.work, part) for part in stage.parts] for stage in made.stages}


def words(parts, stage):
    return [work for work, _ in parts[stage]]


def test_epochs_are_planned_as_the_steps_that_are_taken(parts):
    # 1297 images, 130 of them held out; 1167 // 32 = 36 batches an epoch.
    assert [work for work in words(parts, "models") if work.startswith("train")] == [
        "train observer-0, 108 steps of convnet2-w8-bn",
        "train observer-1, 288 steps of convnet2-w8",
        "train observer-2, 7 steps of convnet1-w4",
    ]


def test_guiding_observers_are_planned_one_by_one(parts):
    # 1297 images are 21 batches of 64; 30 images are 3 batches of 25 steps, in turn over three.
    assert words(parts, "synthesize") == [
        *(f"edc: statistics, 21 calls of {arch}, shared" for arch in ARCHS),
        *(f"edc: steps, 25 calls of {arch}" for arch in ARCHS),
        *(f"edc: flatness, 25 calls of {arch}" for arch in ARCHS),
    ]


ARCHS = ("convnet2-w8-bn", "convnet2-w8", "convnet1-w4")


def test_a_step_is_a_pass_forward_and_one_back_to_the_pixels(parts):
    found = dict(parts["synthesize"])
    steps = found["edc: steps, 25 calls of convnet2-w8"].flops
    looks = found["edc: flatness, 25 calls of convnet2-w8"].flops
    assert steps == 2 * looks > 0


def test_labels_are_planned_for_the_observers_that_give_them(parts):
    rates = Rates(torch.device("cpu"))
    each = [rates.network_flops(arch, (1, 8, 8), 10) for arch in ARCHS]
    large = [rates.network_flops(arch, (1, 16, 16), 10) for arch in ARCHS]

    (stored,) = (part for work, part in parts["relabel"] if work == "30 views")
    (online,) = (part for work, part in parts["evaluate"] if work == "labels online")

    assert stored.flops == pytest.approx(30 * (each[0] + each[1]))  # not the third
    assert online.flops == pytest.approx(12 * 30 * (large[0] + large[1]))  # 12 epochs


def test_gradients_of_pixels_are_timed_without_those_of_weights():
    rates = Rates(torch.device("cpu"))

    one = rates.pixels("convnet2-w8", (1, 8, 8), 10, 10)

    assert one.seconds > 0
    assert one.basis == "timed here"
