from collections.abc import Callable
from pathlib import Path

import pytest

from distillhub.errors import UsageError
from distillhub.hub.addresses import Address, address, newest
from distillhub.hub.versions import Release, Version, changes, gravest, restamped
from distillhub.packaging.card import REPORT
from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import EvalReport, loads

OTHER = "ab" * 32


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    return Release(
        Manifest.model_validate_json((tiny / MANIFEST).read_bytes()),
        loads((tiny / REPORT).read_bytes()),
    )


def with_columns(release: Release, **digests: str) -> Release:
    manifest = release.manifest
    columns = {**manifest.columns, **digests}
    rows = ("0" * 16, *manifest.rows[1:])
    return release._replace(manifest=manifest.model_copy(update={"columns": columns, "rows": rows}))


def with_features(release: Release, change: Callable[[list[dict[str, object]]], None]) -> Release:
    report = EvalReport.model_validate_json(release.report.model_dump_json(by_alias=True))
    assert report.card is not None
    change(report.card.data["dataset_info"]["features"])
    return release._replace(report=report)


@pytest.mark.parametrize("text", ["1.2.3", "v1.2.3"])
def test_a_version_reads_with_and_without_its_v(text: str):
    assert Version.parse(text) == Version(1, 2, 3)


@pytest.mark.parametrize("text", ["1.2", "01.2.3", "1.2.3-rc1", "", "latest"])
def test_what_is_no_version_is_refused(text: str):
    assert Version.parse(text) is None
    with pytest.raises(UsageError, match="is no version"):
        Version.of(text, "--version")


def test_a_bump_resets_what_stands_behind_it():
    old = Version(1, 2, 3)

    assert [str(old.bumped(kind)) for kind in ("major", "minor", "patch")] == [
        "2.0.0",
        "1.3.0",
        "1.2.4",
    ]


def test_the_tenth_patch_is_newer_than_the_ninth():
    versions = dict.fromkeys([Version(1, 0, 9), Version(1, 0, 10), Version(10, 0, 0)], "")

    assert newest(versions, "v1") == Version(1, 0, 10)
    assert newest(versions, "1.0.9") == Version(1, 0, 9)
    assert newest(versions, None) == Version(10, 0, 0)
    assert newest(versions, "v2") is None


def test_addresses_have_an_owner():
    assert address("org/name@v1") == Address("org/name", "v1")
    assert address("org/name") == Address("org/name", None)
    assert [address(word) for word in ("name", "./folder/x", "org/name@", "a/b/c")] == [None] * 4


def test_equal_sets_have_no_changes(release: Release):
    assert changes(release, release) == ()
    assert gravest(()) is None


@pytest.mark.parametrize(
    ("column", "said"),
    [("image", "images: 1 of 20"), ("soft_val", "labels: 1 of 20"), ("view_crop", "views: 1 of")],
)
def test_other_images_or_labels_are_a_minor_change(release: Release, column: str, said: str):
    found = changes(release, with_columns(release, **{column: OTHER}))

    assert gravest(found) == "minor"
    assert said in found[0].what


def test_a_longer_label_is_a_major_change(release: Release):
    def longer(features: list[dict[str, object]]) -> None:
        features[-1]["length"] = 40

    found = changes(release, with_features(release, longer))

    assert found[0] == ("major", "column soft_val has another type or length")


def test_a_column_that_comes_or_goes_is_a_major_change(release: Release):
    def without(features: list[dict[str, object]]) -> None:
        del features[-1]

    fewer = with_features(release, without)

    assert changes(release, fewer)[0] == ("major", "column soft_val is gone")
    assert changes(fewer, release)[0] == ("major", "column soft_val is new")


def test_other_source_data_are_a_major_change(release: Release):
    source = release.report.source.model_copy(update={"split_hashes": {"train": OTHER}})
    other = release._replace(report=release.report.model_copy(update={"source": source}))

    assert changes(release, other)[0] == ("major", "source data")


def test_other_scores_are_a_patch(release: Release):
    manifest = release.manifest.model_copy(update={"runs_sha256": OTHER})

    assert changes(release, release._replace(manifest=manifest)) == (("patch", "evaluation runs"),)


def test_the_gravest_change_decides_and_stands_first(release: Release):
    manifest = release.manifest.model_copy(
        update={
            "runs_sha256": OTHER,
            "columns": {**release.manifest.columns, "image": OTHER, "source_row": OTHER},
        }
    )

    found = changes(release, release._replace(manifest=manifest))

    assert [change.kind for change in found] == ["minor", "patch"]
    assert found[0].what == "images, source_row: 0 of 20 rows differ"
    assert gravest(reversed(found)) == "minor"


def test_a_new_number_changes_the_texts_alone(release: Release, tiny: Path, tmp_path: Path):
    made, files = restamped(release, Version(3, 1, 4), "org/name")

    assert set(files) == {"README.md", "eval.json", "croissant.json", "manifest.json"}
    assert made.manifest.digest == release.manifest.digest
    for path in tiny.rglob("*"):
        if path.is_file():
            name = path.relative_to(tiny).as_posix()
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(files.get(name, path.read_bytes()))
    assert verify(tmp_path).faults == ()
    assert restamped(made, Version(3, 1, 4), "org/name") == (made, {})
