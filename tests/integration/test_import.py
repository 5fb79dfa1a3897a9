"""Sets of others become artifacts that open, verify, are scored, and say what is unknown."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distillhub.packaging.verify import verify
from distillhub.records.distilled import load
from distillhub.records.report import loads
from distillhub_cli.main import app
from tests.foreign_sets import arrays, label_folder, pictures, save
from tests.made_up import shapes_folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def digest(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digest"]


def imported(*words) -> None:
    result = run("import", *words)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("import")
    imported(pictures(root / "set", per_class=3), "--out", root / "artifact")
    return root / "artifact"


def test_the_artifact_opens_with_load_dataset(artifact):
    from datasets import load_dataset

    rows = load_dataset(str(artifact), split="train", cache_dir=str(artifact.parent / "cache"))

    assert rows.features["label"].names == ["circle", "square", "triangle"]
    assert rows.num_rows == 9


def test_the_artifact_is_what_its_manifest_says(artifact):
    assert verify(artifact).faults == ()


def test_the_card_says_what_nobody_said(artifact):
    card = (artifact / "README.md").read_text(encoding="utf-8")

    assert "license: unknown" in card
    assert "Not known: the method, the images that it was made from, its license" in card
    assert "Imported, not built here" in card


def test_a_changed_import_record_is_noticed(artifact, tmp_path):
    import shutil

    copy = shutil.copytree(artifact, tmp_path / "copy")
    record = copy / "recipe" / "import.json"
    record.write_text(record.read_text().replace('"unknown"', '"mit"', 1))

    assert "recipe/import.json" in {fault.where for fault in verify(copy).faults}


def test_the_same_source_gives_the_same_digest(artifact, tmp_path):
    imported(artifact.parent / "set", "--out", tmp_path / "again")

    digests = [
        json.loads((p / "manifest.json").read_text())["digest"]
        for p in (artifact, tmp_path / "again")
    ]
    assert digests[0] == digests[1]


def test_classes_of_different_sizes_are_imported_and_verified(tmp_path):
    folder = pictures(tmp_path / "set", per_class=3)
    (folder / "circle" / "002.png").unlink()

    imported(folder, "--out", tmp_path / "artifact")

    assert verify(tmp_path / "artifact").faults == ()
    assert "2 to 3 images per class" in (tmp_path / "artifact" / "README.md").read_text()


@pytest.mark.parametrize("looks", [2, 70])
def test_label_batches_become_soft_labels_that_replay(tmp_path, looks):
    folder = pictures(tmp_path / "set")
    labels = torch.arange(3).repeat_interleave(4)
    label_folder(tmp_path / "labels", labels, looks=looks, seed=42, batch=12)

    imported(folder, "--kind", "fkd", "--labels", tmp_path / "labels", "--out", tmp_path / "a")

    opened = load(tmp_path / "a")
    images, logits = opened.view_batch(torch.arange(12), torch.ones(12, dtype=torch.int64), 1.0)
    assert verify(tmp_path / "a").faults == ()
    assert opened.views_per_image == looks
    assert images.shape == (12, 3, 24, 24)
    assert logits.argmax(1).tolist() == labels.tolist()


def test_what_would_run_code_is_refused_without_a_traceback_and_did_not_run(tmp_path):
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    save([torch.zeros(2, 1, 4, 4), Canary()], tmp_path / "bad.pt")

    result = run("import", tmp_path / "bad.pt", "--out", tmp_path / "a")

    assert result.exit_code == 4
    assert "the file would call posix.system; it was not opened" in result.output
    assert not canary.exists()
    assert not (tmp_path / "a").exists()


def test_a_folder_with_something_else_is_not_replaced(tmp_path):
    folder = pictures(tmp_path / "set")

    result = run("import", folder, "--out", folder)

    assert result.exit_code == 2
    assert "something else" in result.output
    assert (folder / "circle" / "000.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mean", "a,b"], "no list of numbers"),
        (["--kind", "fkd"], "folder of the batches"),
        (["--labels", "nowhere"], "no such file or folder"),
        (["--order", "sideways"], "is no order"),
        (["--version", "1"], "is no version"),
        (["--license", "other"], "license other needs a name and a link"),
        (["--classes", "a,b"], "2 class names for 3 classes"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path, words, said):
    folder = pictures(tmp_path / "set")

    result = run("import", folder, "--out", tmp_path / "a", *words)

    assert result.exit_code == 2
    assert said in result.output


def test_hostile_names_do_not_reach_the_card(tmp_path):
    path = save(list(arrays()), tmp_path / "a](javascript:x)`<script>.pt")

    imported(path, "--out", tmp_path / "a", "--method", "<b>`x`", "--made-from", "a|b](c)")

    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "<script" not in card
    assert "<b>" not in card
    assert "](javascript" not in card
    assert verify(tmp_path / "a").faults == ()


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scored")
    images, labels = arrays(9, side=16)
    np.savez(root / "set.npz", images=images.numpy(), labels=labels.numpy())
    imported(root / "set.npz", "--out", root / "a", "--classes", "circle,square,triangle")
    shapes_folder(root / "real", per_class=12, side=16)
    words = ["--data", root / "real", "--test-split", "0.4", "--protocol", "smoke-cpu-1"]
    words += ["--student", "convnet2-w8", "--runs", 2, "--card"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        result = run(
            "evaluate", root / "a", *words, "--student", "convnet2-w8", "--runs", 2, "--card"
        )
    assert result.exit_code == 0, result.output
    return root / "a"


def test_an_evaluation_comes_onto_the_card_of_an_imported_set(scored):
    report = loads((scored / "eval.json").read_bytes())

    assert [run.arm for run in report.runs] == ["syn_hard", "syn_hard", "rnd_hard", "rnd_hard"]
    assert verify(scored).faults == ()
    assert "| distilled | " in (scored / "README.md").read_text()


def test_an_evaluation_leaves_the_identity_of_the_set_as_it_was(scored, tmp_path):
    imported(
        scored.parent / "set.npz", "--out", tmp_path / "b", "--classes", "circle,square,triangle"
    )

    before, after = (
        json.loads((p / "manifest.json").read_text()) for p in (tmp_path / "b", scored)
    )
    assert before["digest"] == after["digest"]


def test_the_card_of_a_set_that_was_not_imported_is_left_alone(tmp_path):
    folder = pictures(tmp_path / "set")

    result = run("evaluate", folder, "--data", folder, "--card")

    assert result.exit_code == 2
    assert "only the card of an imported set" in result.output
