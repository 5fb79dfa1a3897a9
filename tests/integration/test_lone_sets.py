"""Training on, and scoring, sets that come alone: image files and labels, made by anybody."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from distillhub.errors import DataError, RecipeError, UsageError
from distillhub.models import weights
from distillhub.pipeline.random_images import twin_rows
from distillhub.pipeline.reporting import Silent
from distillhub.pipeline.scoring import Scores, real_source, score_set
from distillhub.pipeline.students import normalization, suitable, train_student
from distillhub.records.distilled import load
from distillhub_cli.main import app
from tests.made_up import shapes_folder


class Log(Silent):
    def __init__(self) -> None:
        self.labels: list[str] = []

    def progress(self, label, done, total, metrics) -> None:
        if label not in self.labels:
            self.labels.append(label)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lone")
    return {
        "real": shapes_folder(root / "real", per_class=12, side=16),
        "small": shapes_folder(root / "small", per_class=3, side=16, seed=1),
    }


def trained(folder: Path, out: Path, state: Path, **wishes):
    wishes = {"arch": "convnet2-w8", "protocol": "smoke-cpu-1", "steps": 4, **wishes}
    return train_student(str(folder), out, state=state, reporter=Silent(), **wishes)


def test_a_foreign_set_trains_a_classifier_that_can_be_loaded_again(folders, tmp_path):
    made = trained(folders["small"], tmp_path / "out", tmp_path / "state")

    again = weights.load(tmp_path / "out", "model")
    before, after = made.classifier.state_dict(), again.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert again.class_names == ("circle", "square", "triangle")


def test_the_same_training_gives_the_same_weights(folders, tmp_path):
    first = trained(folders["small"], tmp_path / "a", tmp_path / "state")
    second = trained(folders["small"], tmp_path / "b", tmp_path / "state")

    assert first.record.weights_sha256 == second.record.weights_sha256


def test_another_seed_gives_other_weights(folders, tmp_path):
    first = trained(folders["small"], tmp_path / "a", tmp_path / "state")
    second = trained(folders["small"], tmp_path / "b", tmp_path / "state", seed=1)

    assert first.record.weights_sha256 != second.record.weights_sha256


def test_nothing_is_left_in_the_scratch_of_a_finished_training(folders, tmp_path):
    trained(folders["small"], tmp_path / "out", tmp_path / "state")

    assert [p for p in (tmp_path / "state" / "work" / "train").iterdir() if p.is_dir()] == []


def test_fewer_steps_drop_the_rate_at_the_same_share_of_the_way(folders, tmp_path):
    made = trained(folders["small"], tmp_path / "out", tmp_path / "state", steps=8)

    assert made.record.protocol.drop_after == 4  # smoke-cpu-1 drops after 10 of 20 epochs


def test_soft_labels_that_are_not_there_are_refused(folders, tmp_path):
    with pytest.raises(UsageError, match="no soft labels"):
        trained(folders["small"], tmp_path / "out", tmp_path / "state", labels="soft")


def test_a_protocol_for_soft_labels_is_refused_for_hard_ones(folders, tmp_path):
    with pytest.raises(UsageError, match="trains with soft_stored labels"):
        trained(folders["small"], tmp_path / "out", tmp_path / "state", protocol="soft-1")


def test_an_unknown_network_is_refused_with_the_way_to_the_names(folders, tmp_path):
    with pytest.raises(UsageError) as caught:
        trained(folders["small"], tmp_path / "out", tmp_path / "state", arch="convnext9000")

    assert "list models" in caught.value.faults[0].mend


def test_a_set_without_a_report_is_normalized_by_its_own_images(folders):
    opened = load(str(folders["small"]))

    found = normalization(opened, str(folders["small"]))

    images = opened.images(torch.arange(len(opened))).double()
    assert found.mean == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert found.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist())


def test_small_images_suit_lowres_1(folders):
    assert suitable(load(str(folders["small"]))) == "lowres-1"


@pytest.fixture(scope="module")
def scored(folders, tmp_path_factory) -> Scores:
    return score(folders, tmp_path_factory.mktemp("state"), Silent())


def score(folders: dict[str, Path], state: Path, reporter, **wishes) -> Scores:
    wishes = {
        "data": str(folders["real"]),
        "test_split": "0.4",
        "protocol": "smoke-cpu-1",
        "students": ("convnet2-w8",),
        "runs": 2,
        **wishes,
    }
    return score_set(str(folders["small"]), state=state, sources={}, reporter=reporter, **wishes)


def test_a_foreign_set_is_scored_beside_random_real_images_with_paired_seeds(scored):
    assert [(run.arm, run.seed) for run in scored.runs] == [
        ("syn_hard", 0),
        ("syn_hard", 1),
        ("rnd_hard", 0),
        ("rnd_hard", 1),
    ]


def test_both_arms_train_on_equally_many_images(scored):
    assert {run.train_images for run in scored.runs} == {9}


def test_what_was_not_run_says_so(scored):
    metrics = scored.comparisons[0].metrics

    assert metrics["top1.rnd_soft"].status == "not_applicable"
    assert metrics["top1.full_hard"].status == "not_run"


def test_without_real_images_it_is_said_how_to_name_them(folders, tmp_path):
    with pytest.raises(UsageError) as caught:
        score(folders, tmp_path, Silent(), data=None)

    assert "--data" in caught.value.faults[0].mend


def test_real_images_take_the_class_order_of_the_set(folders, tmp_path):
    opened = load(str(folders["small"]))

    source = real_source("x", opened, str(folders["real"]), "0.4", tmp_path, {})

    assert source.pinned.class_names == opened.class_names


def test_another_number_of_classes_is_refused(folders, tmp_path):
    opened = load(str(folders["small"]))

    with pytest.raises(RecipeError, match="class"):
        real_source("x", opened, "sklearn:digits", "test", tmp_path, {})


class Labelled:
    """Real images of two classes, three and one of them."""

    class_names = ("a", "b")

    def rows_of(self, label: int) -> torch.Tensor:
        return [torch.tensor([0, 2, 3]), torch.tensor([1])][label]


def test_a_random_twin_has_as_many_images_of_each_class_as_the_set():
    rows = twin_rows(Labelled(), (2, 1), lambda label: torch.Generator().manual_seed(label))

    assert len(rows) == 3
    assert set(rows[:2].tolist()) < {0, 2, 3}
    assert rows[2] == 1


def test_a_twin_that_cannot_be_drawn_is_an_error_that_names_the_class():
    with pytest.raises(DataError, match="2 images of class 'b', the real images 1"):
        twin_rows(Labelled(), (1, 2), lambda label: torch.Generator().manual_seed(label))


def test_the_command_shows_a_foreign_set(folders, monkeypatch):
    result = CliRunner().invoke(app, ["show", str(folders["small"])])

    assert "3: circle, square, triangle" in result.stdout
    assert "9, 16 x 16 RGB" in result.stdout


def test_the_command_trains_and_scores(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", str(folders["small"]), "--model", "convnet2-w8", "--protocol", "smoke-cpu-1"]

    result = CliRunner().invoke(
        app, [*words, "--steps", "4", "--test", str(folders["real"]), "--test-split", "0.4"]
    )

    assert result.exit_code == 0, result.output
    assert "of 14 test images" in result.stdout
    assert (tmp_path / "trained" / "model.safetensors").is_file()
