"""The manifest and the artifact's digest."""

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from distillhub.digests import canonical, digest_of
from distillhub.records.manifest import (
    Content,
    FileEntry,
    Manifest,
    entry_of,
    files_of,
    labels_digest,
)

ZERO = "0" * 64


def content(**changes: object) -> Content:
    fields: dict[str, object] = {
        "recipe_sha256": ZERO,
        "parquet": {"data/train-00000-of-00001.parquet": "1" * 64},
        "weights": {"teacher": "2" * 64},
        "labels_sha256": None,
        "rows": 2,
        "classes": ("a", "b"),
        "ipc": 1,
    }
    return Content.model_validate(fields | changes)


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical({"b": 1, "a": [1, "é"]}) == '{"a":[1,"é"],"b":1}'.encode()


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([float("nan")])


def test_digest_is_the_sha256_of_the_canonical_text():
    assert digest_of({}) == hashlib.sha256(b"{}").hexdigest()


def test_digest_of_the_content_does_not_depend_on_the_order_of_networks():
    weights = {"teacher": "2" * 64, "observer-0": "3" * 64}

    swapped = content(weights=dict(reversed(weights.items())))

    assert content(weights=weights).digest == swapped.digest


@pytest.mark.parametrize(
    "change",
    [
        {"recipe_sha256": "9" * 64},
        {"parquet": {"data/train-00000-of-00001.parquet": "9" * 64}},
        {"weights": {"teacher": "9" * 64}},
        {"labels_sha256": "9" * 64},
        {"rows": 3},
        {"classes": ("b", "a")},
        {"ipc": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_of_the_content_changes_with_every_field(change: dict[str, object]):
    assert content(**change).digest != content().digest


def test_manifest_reads_back_what_it_wrote():
    manifest = Manifest(
        digest=content().digest,
        content=content(),
        runs_sha256=ZERO,
        files={"README.md": FileEntry(sha256=ZERO, bytes=3)},
        columns={"image": ZERO},
        rows=("0" * 16, "1" * 16),
    )

    assert Manifest.model_validate_json(manifest.text()) == manifest


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/../b", "a\\b", ".", ""])
def test_a_file_outside_the_artifact_is_no_file_of_it(name: str):
    with pytest.raises(ValidationError):
        content(parquet={name: ZERO})


def test_labels_digest_is_none_without_label_columns():
    assert labels_digest({"image": ZERO, "label": ZERO}) is None


def test_labels_digest_does_not_depend_on_the_images():
    columns = {"image": ZERO, "label": ZERO, "soft_val": "1" * 64}

    assert labels_digest(columns) == labels_digest(columns | {"image": "2" * 64})


def test_entry_of_a_file_is_its_size_and_digest(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")

    assert entry_of(tmp_path / "x") == FileEntry(sha256=hashlib.sha256(b"abc").hexdigest(), bytes=3)


def test_files_of_git_and_of_the_hub_client_are_no_part_of_an_artifact(tmp_path: Path):
    for name in (".git/config", ".cache/huggingface/x", ".gitattributes", "data/b", "a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert [path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path)] == ["a", "data/b"]


def test_a_linked_folder_is_listed_and_not_followed(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").touch()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")

    assert [path.name for path in files_of(tmp_path / "set")] == ["link"]
