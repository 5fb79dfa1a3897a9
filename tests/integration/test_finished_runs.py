"""Equal trainings of several recipes are made once, and are the same record for all of them."""

import json

import pytest
import torch

from distillhub.data.specs import SplitPin
from distillhub.packaging.verify import verify
from distillhub.pipeline.finished import run_key
from distillhub.recipe.loading import load_resolved
from distillhub.records.report import PlannedRun, loads
from tests.integration.builds import Log, build_here, runs_of, write_recipe

HEAD = """\
schema_version: 1
name: digits-tiny
dataset: {id: "sklearn:digits"}
ipc: 2
teacher: {arch: convnet2-w8, steps: 20}
card: {license: cc-by-4.0}
"""
RANDOM = "method: {name: random, version: 1}\n"
DM = "method: {name: dm, version: 1, iterations: 3, arch: convnet2-w8, batch_real: 16}\n"
HARD = (
    "evaluate: [{protocol: smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard, rnd_hard], "
    "runs: 1}]\n"
)
ONLINE = """\
evaluate:
  - protocol: smoke-online-1
    arms: [syn_hard, rnd_hard, syn_soft_online, rnd_soft_online]
    runs: 1
    expect: {convnet2-w8: {top1: 0.94, source: Table 3, regime: soft_online}}
"""


def kept(folder):
    return sorted((folder / ".distillhub/resources/runs").glob("*.json"))


def runs(dataset):
    found = loads((dataset / "eval.json").read_bytes()).runs
    return {run.arm: run for run in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two methods on one data set in one project."""
    folder = tmp_path_factory.mktemp("shared")
    first = build_here(write_recipe(folder, HEAD + RANDOM + HARD, "random"))
    before = kept(folder)
    log = Log()
    second = build_here(write_recipe(folder, HEAD + DM + HARD, "dm"), log)
    return folder, first, second, before, log


def test_the_random_images_of_two_methods_are_trained_once(built):
    folder, _, _, before, log = built

    assert len(before) == 2
    assert len(kept(folder)) == 3  # the distilled images of the second method
    assert not [note for note in log.notes if "twin" in note]


def test_a_kept_run_is_the_same_record_seconds_included(built):
    _, first, second, _, _ = built

    assert runs(first)["rnd_hard"] == runs(second)["rnd_hard"]
    assert runs(first)["syn_hard"] != runs(second)["syn_hard"]


def test_a_build_from_kept_runs_is_that_of_fresh_ones(built, tmp_path):
    fresh = build_here(write_recipe(tmp_path, HEAD + DM + HARD, "dm"))

    assert runs_of(fresh) == runs_of(built[2])


def test_other_labels_do_not_retrain_hard_arms(built, tmp_path):
    relabelled = HEAD + RANDOM + "relabel: {views: {}, count: 2, budget: 9.0}\n" + HARD
    first = build_here(write_recipe(tmp_path, HEAD + RANDOM + HARD, "random"))

    second = build_here(write_recipe(tmp_path, relabelled, "labelled"))

    assert len(kept(tmp_path)) == 2
    assert runs(first) == runs(second)


def planned(regime="hard", **fields):
    content = {"id": "x", "protocol": "smoke-online-1", "arm": "syn_hard", "arch": "convnet2-w8"}
    return PlannedRun.model_validate({**content, "regime": regime, "seed": 0, **fields})


def key_of(built, run, *, labellers=("a" * 64,), dataset=None, package="package"):
    place = built[1].parent
    source = dataset or load_resolved(built[1] / "recipe" / "resolved.yaml").dataset
    folder = None if package is None else place / package
    return run_key(run, source, folder, labellers=labellers, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"arch": "mlp"}, {"protocol": "smoke-cpu-1"}, {"arm": "rnd_hard"}]
)
def test_another_run_has_another_key(built, change):
    assert key_of(built, planned(**change)) != key_of(built, planned())


def test_a_teacher_counts_where_it_labels_the_batches(built):
    online = planned("soft_online", arm="syn_soft_online")

    assert key_of(built, planned()) == key_of(built, planned(), labellers=("b" * 64,))
    assert key_of(built, online) != key_of(built, online, labellers=("b" * 64,))


def test_every_network_that_labels_the_batches_counts(built):
    online = planned("soft_online", arm="syn_soft_online")
    one, two, swapped = ("a" * 64,), ("a" * 64, "b" * 64), ("b" * 64, "a" * 64)

    keys = {key_of(built, online, labellers=labellers) for labellers in (one, two, swapped)}

    assert len(keys) == 3
    assert key_of(built, planned(), labellers=two) == key_of(built, planned(), labellers=one)


def test_other_test_images_and_the_real_data_have_other_keys(built):
    source = load_resolved(built[1] / "recipe" / "resolved.yaml").dataset
    test = SplitPin(rows=500, sha256="c" * 64)
    pin = source.pinned.model_copy(update={"test": test})

    assert key_of(built, planned()) != key_of(
        built, planned(), dataset=source.model_copy(update={"pin": pin})
    )
    assert key_of(built, planned()) != key_of(built, planned(), package=None)


def test_threads_have_keys_of_their_own(built, monkeypatch):
    first = key_of(built, planned())

    monkeypatch.setenv("DISTILLHUB_THREADS", "7")

    assert key_of(built, planned()) != first


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    return build_here(write_recipe(tmp_path_factory.mktemp("online"), HEAD + RANDOM + ONLINE))


def test_online_arms_are_trained_and_compared(online):
    (part,) = loads((online / "eval.json").read_bytes()).comparisons

    assert part.metrics["top1.syn_soft_online"].status == "measured"
    assert part.metrics["gain_images_soft_online"].value is not None
    assert part.metrics["best_top1.rnd_soft_online"].value is not None


def test_a_set_with_online_figures_passes_its_verification(online):
    assert verify(online).faults == ()


def test_the_card_says_that_online_labels_need_the_teacher(online):
    card = (online / "README.md").read_text()
    weights = json.loads((online.parent / "models" / "models.json").read_text())["teacher"]

    assert f"Online labels are not in this set: the teacher (`convnet2-w8`, weights `{weights['sha256']}`)" in card  # fmt: skip  # noqa: E501
    assert "| images | hard labels |" in card
    assert "| online labels |" in card
    assert "Published, distilled, labels made online by the teacher: 94.0 % (Table 3)" in card
    assert "The best epoch is a selection on the test set" in card


def test_online_arms_without_a_teacher_are_refused_before_any_work(tmp_path):
    from distillhub.errors import RecipeError

    text = (HEAD + RANDOM + ONLINE).replace("teacher: {arch: convnet2-w8, steps: 20}\n", "")

    with pytest.raises(RecipeError, match="arm syn_soft_online needs a teacher"):
        build_here(write_recipe(tmp_path, text))

    assert not (tmp_path / ".distillhub").exists()
