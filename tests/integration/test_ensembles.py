"""Labels of several observers: the mean of their logits, stored in the set and made online."""

import json

import pytest
import torch

from distillhub.data import codec
from distillhub.models import weights
from distillhub.packaging.verify import verify
from distillhub.pipeline.making import read_images
from distillhub.records.report import loads
from distillhub.relabel.files import read_labels
from tests.integration.builds import build_here, write_recipe

FIRST, SECOND = "{arch: convnet2-w8, steps: 20}", "{arch: mlp, epochs: 2, checkpoint_epoch: 1}"
RECIPE = f"""\
schema_version: 1
name: digits-ensemble
dataset: {{id: "sklearn:digits"}}
ipc: 2
method: {{name: random, version: 1}}
observers: [{FIRST}, {SECOND}]
relabel: {{by: observers, budget: 9.0}}
evaluate:
  - {{protocol: smoke-online-1, arms: [syn_soft_online, rnd_soft_online], runs: 1}}
card: {{license: cc-by-4.0}}
"""
BOTH = "{by: observers, budget: 9.0}"
ALONE = "{by: observers, observers: [0], budget: 9.0}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The same images labelled by two observers, by one of them, and by it as the teacher."""
    folder = tmp_path_factory.mktemp("ensembles")
    taught = RECIPE.replace(f"observers: [{FIRST}, {SECOND}]", f"teacher: {FIRST}")
    texts = {
        "both": RECIPE,
        "alone": RECIPE.replace(BOTH, ALONE),
        "taught": taught.replace(BOTH, "{budget: 9.0}"),
    }
    return {
        stem: build_here(write_recipe(folder, text, stem)).parent for stem, text in texts.items()
    }


def stored_logits(build):
    made = read_labels(build / "labels")
    count = torch.arange(len(made.soft))
    return made.soft.logits(count, torch.zeros_like(count), None)


def logits_of(build, role):
    pixels = codec.to_float(codec.decode(read_images(build / "images").content, 1))
    with torch.inference_mode():
        return weights.load(build / "models", role)(pixels)


def runs_of(build):
    return {run.arm: run for run in loads((build / "dataset/eval.json").read_bytes()).runs}


def test_stored_labels_are_the_mean_of_the_logits(built):
    each = [logits_of(built["both"], role) for role in ("observer-0", "observer-1")]

    mean = (each[0] + each[1]) / 2
    assert torch.allclose(stored_logits(built["both"]), mean, atol=2e-3)
    assert not torch.allclose(each[0], mean, atol=0.05)


def test_14_12_the_mean_over_one_observer_is_that_observer(built):
    assert torch.equal(stored_logits(built["alone"]), stored_logits(built["taught"]))
    assert not torch.equal(stored_logits(built["alone"]), stored_logits(built["both"]))


def test_labels_made_online_come_from_the_same_networks(built):
    losses = {stem: runs_of(build)["syn_soft_online"].nll for stem, build in built.items()}

    assert losses["alone"] == losses["taught"]
    assert losses["both"] != losses["alone"]


def test_random_twins_are_labelled_by_the_same_networks(built):
    losses = {stem: runs_of(build)["rnd_soft_online"].nll for stem, build in built.items()}

    assert losses["both"] != losses["alone"]


def test_an_observer_of_an_early_epoch_is_recorded_as_such(built):
    record = json.loads((built["both"] / "models/observer-1.json").read_text())

    assert record["steps"] == 1167 // 128  # one epoch of the nine tenths that are trained on
    assert (record["spec"]["epochs"], record["spec"]["checkpoint_epoch"]) == (2, 1)


def test_the_report_and_the_card_name_the_networks_that_label(built):
    report = loads((built["both"] / "dataset/eval.json").read_bytes())
    alone = loads((built["alone"] / "dataset/eval.json").read_bytes())
    taught = loads((built["taught"] / "dataset/eval.json").read_bytes())
    card = (built["both"] / "dataset/README.md").read_text()

    assert report.labels.networks == ("observer-0", "observer-1")
    assert (alone.labels.networks, taught.labels.networks) == (("observer-0",), ())
    digests = {block.role: block.weights_sha256 for block in report.method.teacher}
    assert (
        f"the mean logits of 2 observers (`convnet2-w8`, weights `{digests['observer-0']}`; "
        f"`mlp`, weights `{digests['observer-1']}`) are taken anew" in card
    )
    assert "- Observer 1, one of those that label: `mlp`" in card


@pytest.mark.parametrize("stem", ["both", "alone", "taught"])
def test_such_a_set_passes_its_verification(built, stem):
    assert verify(built[stem] / "dataset").faults == ()


def test_networks_of_equal_specs_are_the_same_whatever_their_role(built):
    index = {
        stem: json.loads((build / "models/models.json").read_text())
        for stem, build in built.items()
    }

    assert index["alone"]["observer-0"] == index["taught"]["teacher"]
