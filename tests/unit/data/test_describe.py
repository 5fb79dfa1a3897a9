from pathlib import Path

import pytest

from distillhub.data.describe import describe
from distillhub.data.sources import pin_source
from distillhub.errors import RecipeError
from tests.unit.data.sets import hub_folder, image_folder, noise


def test_class_folders_get_a_share_as_test_split(tmp_path: Path) -> None:
    assert describe(image_folder(tmp_path, {"a": 5, "b": 3})).spec.test == 0.2


def test_the_smallest_class_is_named(tmp_path: Path) -> None:
    assert describe(image_folder(tmp_path, {"a": 5, "b": 3})).smallest == ("b", 3)


def test_a_validation_folder_is_taken_as_test_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image_folder(tmp_path / split, {"a": 2, "b": 2})

    assert describe(tmp_path).spec.test == "val"


def test_a_hub_layout_is_understood(tmp_path: Path) -> None:
    found = describe(hub_folder(tmp_path))

    assert (found.images, found.classes, found.channels, found.sides) == (12, 2, 1, (8, 8))


def test_images_of_one_size_need_no_size(tmp_path: Path) -> None:
    assert describe(image_folder(tmp_path, {"a": 2, "b": 2})).spec.size is None


def test_images_of_several_sizes_get_a_usual_one(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2}, size=(40, 36))
    (root / "a/000.png").write_bytes(noise(0, size=(90, 70)))

    assert describe(root).spec.size == 32


def test_what_is_proposed_can_be_pinned(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 5, "b": 5})

    assert pin_source(describe(root).spec, {}, None).counts == (4, 4)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no folder"):
        describe(tmp_path / "gone")


def test_a_folder_of_broken_images_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no image")

    with pytest.raises(RecipeError, match="no image could be decoded"):
        describe(tmp_path)
