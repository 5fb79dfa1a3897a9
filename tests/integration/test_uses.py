"""`distillhub use` on sets of our own and of others, and what it refuses."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from distillhub.errors import DataError, DistillhubError, RecipeError, UsageError
from distillhub.evaluation.continual import class_order
from distillhub.pipeline.checkpoint import Interrupted
from distillhub.pipeline.reporting import Silent
from distillhub.pipeline.use_continual import use_continual
from distillhub.pipeline.use_slim import use_slim
from distillhub.pipeline.uses import Wish, open_use
from distillhub.records.report import TIMES_AND_HOSTS
from distillhub.records.uses import ContinualReport, SlimReport
from distillhub_cli.main import app
from tests.integration.builds import build_here, digest_of, write_recipe
from tests.made_up import shapes_folder

TINY = """\
schema_version: 1
name: digits-tiny
dataset: {id: "sklearn:digits"}
ipc: 2
method: {name: random, version: 1}
teacher: {arch: convnet2-w8, steps: 20}
relabel: {views: {}, count: 2, budget: 9.0}
evaluate: [{protocol: smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard], runs: 1}]
card: {license: cc-by-4.0}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A set of ours, with stored soft labels."""
    return build_here(write_recipe(tmp_path_factory.mktemp("built"), TINY))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lone")
    return {
        "real": shapes_folder(root / "real", per_class=12, side=16),
        "small": shapes_folder(root / "small", per_class=3, side=16, seed=1),
    }


def lone(folders: dict[str, Path], **wishes) -> Wish:
    wishes = {
        "data": str(folders["real"]),
        "test_split": "0.4",
        "protocol": "smoke-cpu-1",
        "runs": 2,
        **wishes,
    }
    return Wish(str(folders["small"]), **wishes)


def learned(wish: Wish, folder: Path, *, reporter=None, **how) -> ContinualReport:
    how = {"student": "convnet2-w8", "steps": 3, **how}
    return use_continual(
        wish,
        folder / "out",
        state=folder / "state",
        sources={},
        reporter=reporter or Silent(),
        **how,
    )


def slimmed(wish: Wish, folder: Path, *, reporter=None, **how) -> SlimReport:
    how = {"model": "convnet2-w8-bn", "ratios": (0.5, 0.0), **how}
    return use_slim(
        wish,
        folder / "out",
        state=folder / "state",
        sources={},
        reporter=reporter or Silent(),
        **how,
    )


class Stopping(Silent):
    """Asks the process to stop at a step of a piece of work, and keeps the notes."""

    def __init__(self, label: str = "", done: int = 0) -> None:
        self.label, self.done = label, done
        self.notes: list[str] = []
        self.labels: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, label, done, total, metrics) -> None:
        if label not in self.labels:
            self.labels.append(label)
        if (label, done) == (self.label, self.done):
            os.kill(os.getpid(), signal.SIGTERM)


def results(report: ContinualReport) -> object:
    content = report.model_dump(mode="json")
    for stage in content["stages"]:
        for run in stage["runs"]:
            for name in TIMES_AND_HOSTS:
                run.pop(name)
    return content


@pytest.fixture(scope="module")
def continual(folders, tmp_path_factory) -> tuple[ContinualReport, Path]:
    folder = tmp_path_factory.mktemp("continual")
    return learned(lone(folders), folder), folder


@pytest.fixture(scope="module")
def slim(folders, tmp_path_factory) -> tuple[SlimReport, Path]:
    folder = tmp_path_factory.mktemp("slim")
    return slimmed(lone(folders), folder), folder


def test_every_stage_trains_on_all_images_of_the_classes_so_far(continual):
    report, _ = continual

    assert [stage.seen for stage in report.stages] == [1, 2, 3]
    for stage in report.stages:
        assert {run.train_images for run in stage.runs} == {3 * stage.seen}
        assert {len(run.class_acc) for run in stage.runs} == {stage.seen}


def test_every_stage_is_tested_on_the_classes_so_far(continual):
    report, _ = continual

    tested = [{run.test_images for run in stage.runs} for stage in report.stages]
    (first,), (second,), (third,) = tested
    assert 0 < first < second < third == 14


def test_distilled_and_random_images_share_their_seeds(continual):
    report, _ = continual

    for stage in report.stages:
        assert [(run.arm, run.seed) for run in stage.runs] == [
            ("syn_hard", 0),
            ("syn_hard", 1),
            ("rnd_hard", 0),
            ("rnd_hard", 1),
        ]


def test_the_written_record_is_the_report_and_a_plot_lies_beside_it(continual):
    report, folder = continual

    text = (folder / "out" / "continual.json").read_text()
    assert ContinualReport.model_validate_json(text) == report
    assert json.loads(text)["schema"] == "distillhub.continual/1"
    assert (folder / "out" / "continual.png").read_bytes().startswith(b"\x89PNG")


def test_a_stage_of_one_class_is_said_to_be_no_test(continual):
    report, _ = continual

    assert report.stages[0].top1["syn_hard"].value == 1
    assert any("1 by definition" in note for note in report.notes)


def test_nothing_is_left_in_the_scratch_of_finished_work(continual, slim):
    for _, folder in (continual, slim):
        assert [p for p in (folder / "state" / "work" / "use").iterdir() if p.is_dir()] == []


def test_another_order_brings_other_classes_first(folders, continual, tmp_path):
    other = next(seed for seed in range(1, 9) if class_order(3, seed) != class_order(3, 0))

    report = learned(lone(folders, runs=1), tmp_path, order=other, steps=1)

    assert continual[0].class_order == class_order(3, 0)
    assert report.class_order == class_order(3, other)


def test_interrupted_learning_goes_on_and_ends_as_if_it_had_not_stopped(
    folders, continual, tmp_path
):
    stopped = "smoke-cpu-1.convnet2-w8.rnd_hard.s0.c2"
    with pytest.raises(Interrupted):
        learned(lone(folders), tmp_path, reporter=Stopping(stopped, 10))
    log = Stopping()

    report = learned(lone(folders), tmp_path, reporter=log)

    assert f"{stopped}: resumed at step 10" in log.notes
    assert log.labels[0] == stopped  # what was whole is not done again
    assert results(report) == results(continual[0])


def test_a_set_of_ours_needs_no_words_and_is_named_by_its_digest(built, tmp_path):
    wish = Wish(str(built), runs=1)

    report = learned(wish, tmp_path, steps=2)

    assert report.data == "sklearn:digits"
    assert report.protocol == "smoke-cpu-1"
    assert report.dataset.manifest_sha256 == digest_of(built)
    assert [stage.seen for stage in report.stages] == [5, 10]


def test_stored_labels_are_learned_from_where_they_are_asked_for(built, tmp_path):
    report = learned(Wish(str(built), runs=1, labels="soft"), tmp_path, steps=2)

    regimes = {run.arm: run.regime for stage in report.stages for run in stage.runs}
    assert regimes == {"syn_soft": "soft_stored", "rnd_hard": "hard"}
    assert any("images and labels together" in note for note in report.notes)


def test_random_images_are_those_that_evaluate_draws_for_the_seed(folders, tmp_path):
    from distillhub.evaluation.arms import planned_runs
    from distillhub.evaluation.specs import EvalSpec
    from distillhub.pipeline import scoring

    opened = open_use(lone(folders), state=tmp_path, sources={})
    spec = EvalSpec(protocol="smoke-cpu-1", arms=("rnd_hard",), runs=1)
    (planned,) = planned_runs([spec], seed=5, soft=False, height=16, width=16)

    ours = opened.images("rnd_hard", 5)

    assert ours.origin.equal(scoring._arm(planned, opened.set, opened.train).origin)


def test_a_slim_network_is_smaller_the_more_is_pruned(slim):
    report, _ = slim

    none, half = report.points
    assert (none.ratio, half.ratio) == (0.0, 0.5)
    assert none.parameters["syn_hard"] == report.parameters
    assert none.flops["syn_hard"] == report.flops
    assert half.parameters["syn_hard"] < 0.7 * report.parameters
    assert half.flops["rnd_hard"] < 0.9 * report.flops
    assert {sum(run.channels) for run in report.runs if run.ratio == 0.5} == {8}


def test_the_written_record_of_slimming_is_the_report(slim):
    report, folder = slim

    text = (folder / "out" / "slim.json").read_text()
    assert SlimReport.model_validate_json(text) == report
    assert json.loads(text)["schema"] == "distillhub.slim/1"
    assert (folder / "out" / "slim.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "stopped", ["convnet2-w8-bn.syn_hard.s1", "convnet2-w8-bn.rnd_hard.s0.r0.5"]
)
def test_interrupted_slimming_goes_on_and_ends_with_the_same_bytes(
    folders, slim, tmp_path, stopped
):
    with pytest.raises(Interrupted):
        slimmed(lone(folders), tmp_path, reporter=Stopping(stopped, 10))
    log = Stopping()

    slimmed(lone(folders), tmp_path, reporter=log)

    assert f"{stopped}: resumed at step 10" in log.notes
    assert log.labels[0] == stopped
    for name in ("slim.json", "slim.png"):
        before, after = (folder / "out" / name for folder in (slim[1], tmp_path))
        assert after.read_bytes() == before.read_bytes()


def test_a_layer_that_was_spared_is_told_in_the_record(folders, tmp_path):
    report = slimmed(lone(folders, runs=1), tmp_path, ratios=(0.95,), model="convnet3-w4-bn")

    assert {sum(run.channels) for run in report.runs} == {3}  # 1 of 12, and 2 that are spared
    assert all(len(run.spared) == 2 for run in report.runs)
    assert any("would have emptied" in note and "0.95" in note for note in report.notes)


def test_small_images_are_enlarged_for_a_network_that_they_do_not_fit(folders, tmp_path):
    opened = open_use(lone(folders, protocol="digits-1"), state=tmp_path, sources={})

    from distillhub.pipeline.use_slim import _sized

    assert _sized(opened, "vgg11-bn").size == 32
    assert _sized(opened, "convnet3-bn").size == 16


@pytest.mark.parametrize(
    ("use", "wishes", "how", "kind", "what"),
    [
        (learned, {}, {"steps": 4}, UsageError, "3 classes cannot come in 4 steps"),
        (learned, {}, {"student": "convnext9000"}, UsageError, "no architecture 'convnext9000'"),
        (learned, {"labels": "soft"}, {}, UsageError, "no soft labels"),
        (learned, {"protocol": "soft-1"}, {}, UsageError, "trains with soft_stored labels"),
        (learned, {"protocol": "digits-9"}, {}, UsageError, "no protocol is called 'digits-9'"),
        (learned, {"data": None}, {}, UsageError, "which real images"),
        (learned, {"data": "sklearn:digits"}, {}, RecipeError, "class"),
        (slimmed, {}, {"model": "convnet2-w8"}, UsageError, "has no batch norm"),
        (slimmed, {}, {"model": "resnet18"}, UsageError, "not one chain"),
        (slimmed, {}, {"model": "vgg12-bn"}, UsageError, "no architecture 'vgg12-bn'"),
        (slimmed, {}, {"ratios": (0.5, 1.0)}, UsageError, "1 is no pruning ratio"),
        (slimmed, {}, {"ratios": ()}, UsageError, "there is no pruning ratio"),
        (slimmed, {}, {"sparsity": -1.0}, UsageError, "-1 is no weight"),
        (slimmed, {}, {"finetune": 0.0}, UsageError, "0 is no length"),
    ],
)
def test_what_cannot_be_used_is_refused_before_work_starts(
    folders, tmp_path, use, wishes, how, kind, what
):
    with pytest.raises(kind, match=what) as caught:
        use(lone(folders, **wishes), tmp_path, **how)

    assert isinstance(caught.value, DistillhubError)
    assert all(fault.mend or fault.where for fault in caught.value.faults)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "state" / "work").exists()


def test_views_that_are_mixed_with_other_classes_are_refused_as_soft_labels(
    built, tmp_path, monkeypatch
):
    from distillhub.pipeline import use_continual as module

    opened = open_use(Wish(str(built), labels="soft"), state=tmp_path, sources={})
    geometry = opened.set.views
    shape = geometry.crop.shape[:2]
    boxes = torch.zeros(*shape, 4, dtype=torch.int32)
    partner = torch.zeros(*shape, dtype=torch.int32)
    object.__setattr__(geometry, "partner", partner)
    object.__setattr__(geometry, "box", boxes)
    module._check(opened, (0,))  # boxes of zeros mix nothing

    boxes[3, 1] = torch.tensor([0, 0, 2, 2])

    with pytest.raises(UsageError, match="mixed with images of classes"):
        module._check(opened, (0,))


def test_a_class_without_an_image_is_refused(folders, tmp_path, monkeypatch):
    from distillhub.records.distilled import DistilledSet

    monkeypatch.setattr(DistilledSet, "counts", (3, 0, 3))

    with pytest.raises(DataError, match="no image of class 'square'"):
        open_use(lone(folders), state=tmp_path, sources={})


def test_the_commands_print_tables_and_name_their_files(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--data", str(folders["real"]), "--test-split", "0.4", "--runs", "1"]
    common = [str(folders["small"]), *common, "--protocol", "smoke-cpu-1"]

    first = CliRunner().invoke(
        app, ["use", "continual", *common, "--steps", "3", "--student", "convnet2-w8"]
    )
    second = CliRunner().invoke(
        app, ["use", "slim", *common, "--ratios", "0,0.5", "--model", "convnet2-w8-bn"]
    )

    assert first.exit_code == 0, first.output
    assert "classes seen" in first.stdout
    assert "written to continual/continual.json and continual/continual.png" in first.stdout
    assert second.exit_code == 0, second.output
    assert "parameters" in second.stdout
    assert (tmp_path / "slim" / "slim.json").is_file()


def test_a_wrong_word_ends_with_exit_code_2_and_a_mend(folders):
    result = CliRunner().invoke(app, ["use", "slim", str(folders["small"]), "--ratios", "0,half"])

    assert result.exit_code == 2
    assert "write them as 0,0.5,0.9" in result.stderr
