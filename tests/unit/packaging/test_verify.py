"""What `verify` says of good sets, of single faults, and of any bytes at all."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST, entry_of, files_of
from tests.unit.packaging import corruption, sample

SHARD = "data/train-00000-of-00001.parquet"
NAMES = (
    "README.md", "assets/arms.png", "assets/contact_sheet.png", "croissant.json", SHARD,
    "eval.json", "evaluation/results.parquet", "manifest.json", "provenance.json",
    "recipe/dm_animals_4.yaml", "recipe/resolved.yaml",
)  # fmt: skip
GARBAGE: dict[str, Callable[[random.Random], bytes]] = {
    "nothing": lambda chance: b"",
    "noise": lambda chance: chance.randbytes(3000),
    "zeros": lambda chance: bytes(3000),
    "null": lambda chance: b"null",
    "empty object": lambda chance: b"{}",
    "list of numbers": lambda chance: b"[1, 2, 3]",
    "deep": lambda chance: b"[" * 100_000,
    "deep objects": lambda chance: b'{"a":' * 50_000,
    "long number": lambda chance: b"1" * 10_000,
    "bad text": lambda chance: b"\xff\xfe---\n\x00\n---",
    "no Parquet between the marks": lambda chance: b"PAR1" + chance.randbytes(500) + b"PAR1",
    "footer that is too long": lambda chance: b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1",
    "picture without an end": lambda chance: b"\x89PNG\r\n\x1a\n" + chance.randbytes(60),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "set"
    sample.build(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "set")
    return tmp_path / "set"


def told(folder: Path) -> str:
    return "\n".join(str(fault) for fault in verify(folder).faults)


def test_the_files_of_a_set_are_the_known_ones(good: Path):
    assert tuple(p.relative_to(good).as_posix() for p in files_of(good)) == NAMES


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"soft": False},
        {"channels": 3},
        {"codec": "uint8"},
        {"top_k": 2},
        {"codec": "uint8", "top_k": 2},
        {"count": 70},
    ],
    ids=["float16", "hard", "RGB", "uint8", "top-2", "uint8 top-2", "70 views"],
)
def test_a_fresh_set_has_no_fault(made: dict[str, Any], tmp_path: Path):
    sample.build(tmp_path / "set", **made)

    assert verify(tmp_path / "set").faults == ()


def test_the_digest_is_that_of_the_manifest(good: Path):
    assert verify(good).digest == json.loads((good / MANIFEST).read_text())["digest"]


def test_a_set_is_good_wherever_it_is_moved(folder: Path):
    moved = folder.rename(folder.with_name("elsewhere"))

    assert verify(moved).ok


def test_what_the_hub_and_git_put_there_is_no_fault(folder: Path):
    (folder / ".gitattributes").touch()
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / ".cache/huggingface/x").touch()

    assert verify(folder).ok


def test_a_missing_folder_is_one_fault(tmp_path: Path):
    assert [fault.what for fault in verify(tmp_path / "none").faults] == ["no such folder"]


def test_a_link_is_no_file_of_a_set(folder: Path):
    outside = folder.with_name("outside.md")
    (folder / "README.md").rename(outside)
    (folder / "README.md").symlink_to(outside)

    assert "README.md: not a regular file" in told(folder)


def test_a_pipe_is_not_waited_for(folder: Path):
    for name in ("eval.json", "recipe/resolved.yaml"):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    assert "eval.json: not a regular file" in told(folder)


def test_a_folder_in_the_place_of_a_file_is_a_fault(folder: Path):
    (folder / "croissant.json").unlink()
    (folder / "croissant.json").mkdir()

    assert "croissant.json: missing" in told(folder)


def test_both_digests_of_a_file_are_told(folder: Path):
    path = folder / "recipe/resolved.yaml"
    path.write_text("name: other\n")

    found = re.search(
        r"^recipe/resolved\.yaml: the file has sha256 (\w{64}), recorded is (\w{64})$",
        told(folder),
        re.MULTILINE,
    )

    assert found is not None
    assert found.group(1) == sample.sha("name: other\n")
    assert found.group(2) == sample.sha("name: animals-dm-4\nipc: 4\n")


def test_all_faults_are_told_together(folder: Path):
    (folder / "croissant.json").unlink()
    (folder / "notes.txt").touch()
    corruption.change_pixel(folder, random.Random(0))
    corruption.card_figure(folder, random.Random(0))

    text = told(folder)

    for part in ("croissant.json: missing", "notes.txt: not in", "column image", "README.md: line"):
        assert part in text


def test_the_figure_that_differs_is_told_with_its_line(folder: Path):
    path = folder / "README.md"
    text = path.read_text()
    line = next(
        n for n, part in enumerate(text.split("\n"), 1) if part.startswith("| distilled | 81")
    )
    path.write_text(text.replace("| 81.2 [", "| 91.2 [", 1))

    assert f"README.md: line {line}: says '91.2', eval.json gives '81.2'" in told(folder)


def test_nan_in_a_report_is_refused(folder: Path):
    path = folder / "eval.json"
    path.write_text(path.read_text().replace('"ece": 0.05', '"ece": NaN', 1))

    assert "eval.json: runs.0.ece" in told(folder)


def test_a_percentage_in_a_report_is_refused_with_the_fraction_that_was_meant(folder: Path):
    path = folder / "eval.json"
    path.write_text(path.read_text().replace('"ece": 0.05', '"ece": 5.0', 1))

    assert "5.0 looks like a percentage; a fraction is meant: 0.05" in told(folder)


def test_an_unknown_key_in_a_report_is_refused(folder: Path):
    corruption.edit_report(folder, lambda content: content.update(extra=1))

    assert "eval.json: extra: Extra inputs are not permitted" in told(folder)


def test_class_names_of_the_card_must_be_those_of_the_rows(folder: Path):
    def rename(content: dict[str, Any]) -> None:
        features = content["card"]["data"]["dataset_info"]["features"]
        features[1]["dtype"]["class_label"]["names"]["0"] = "fox"

    corruption.edit_report(folder, rename)

    assert f"{SHARD}: columns are" in told(folder)


def test_a_cost_that_differs_between_report_and_provenance_is_told(folder: Path):
    path = folder / "provenance.json"
    path.write_text(path.read_text().replace('"wall_seconds": 12.5', '"wall_seconds": 1.5'))

    assert "provenance.json: stages.synthesize.wall_seconds: 1.5, the set gives 12.5" in told(
        folder
    )


def test_a_manifest_cannot_lead_out_of_the_folder(folder: Path):
    content = json.loads((folder / MANIFEST).read_text())
    content["files"]["../secret"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / MANIFEST).write_text(json.dumps(content))

    assert "'../secret' is no plain path inside the artifact" in told(folder)


def test_an_interval_that_its_runs_do_not_give_is_told(folder: Path):
    def widen(content: dict[str, Any]) -> None:
        content["comparisons"][0]["metrics"]["top1.syn_hard"]["ci95"][0] -= 0.01

    corruption.edit_report(folder, widen)

    assert "eval.json: comparisons.0.metrics.top1.syn_hard.ci95" in told(folder)


def test_a_gain_that_its_arms_do_not_give_is_told(folder: Path):
    def raise_gain(content: dict[str, Any]) -> None:
        content["comparisons"][0]["metrics"]["gain_images_hard"]["value"] += 0.01

    corruption.edit_report(folder, raise_gain)

    assert "metrics.gain_images_hard: 0.08" in told(folder)


@pytest.mark.parametrize("kind", GARBAGE)
def test_any_bytes_in_any_file_give_a_verdict_that_names_it(kind: str, folder: Path):
    chance = random.Random(kind)
    for name in NAMES:
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(GARBAGE[kind](chance))

        faults = [str(fault) for fault in verify(folder).faults]

        assert any(fault.startswith(name) for fault in faults), (name, faults)
        (folder / name).write_bytes(kept)


def replaced(content: object, chance: random.Random) -> object:
    """A JSON value with one part, at any depth, put in the place of another."""
    if isinstance(content, dict | list) and content and chance.random() < 0.85:
        key = chance.choice(list(content) if isinstance(content, dict) else range(len(content)))
        content[key] = replaced(content[key], chance)
        return content
    return chance.choice(
        [None, -1, 0, 1e308, "", "x", [], {}, [[]], {"a": {}}, True, 10**400, "\ud800"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["eval.json", "manifest.json", "croissant.json", "provenance.json"]
)
def test_any_value_in_the_place_of_another_gives_a_verdict(name: str, folder: Path):
    text = (folder / name).read_text()
    chance = random.Random(name)
    for _ in range(60):
        (folder / name).write_text(json.dumps(replaced(json.loads(text), chance)))
        recompute(folder, name)

        assert isinstance(told(folder), str)


def recompute(folder: Path, name: str) -> None:
    """Let the changed file agree with the manifest, so that its content is looked at."""
    if name != MANIFEST:
        manifest = json.loads((folder / MANIFEST).read_text())
        entry = entry_of(folder / name)
        manifest["files"][name] = {"sha256": entry.sha256, "bytes": entry.bytes}
        (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.slow
def test_any_bytes_in_the_rows_file_give_a_verdict(folder: Path):
    chance = random.Random(1)
    kept = (folder / SHARD).read_bytes()
    for _ in range(150):
        data = bytearray(kept)
        for _ in range(chance.choice([1, 3, 30])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (folder / SHARD).write_bytes(data)

        assert data == kept or SHARD in told(folder)
