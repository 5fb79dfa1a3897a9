from pathlib import Path

import numpy as np
import pytest

from distillhub.data.folders import FolderRows, LocalFolder, parquet_splits
from distillhub.data.specs import SourceSpec
from distillhub.errors import DataError, RecipeError
from tests.unit.data.sets import image_folder, noise, parquet, picture


def _files(root: Path, *names: str) -> Path:
    for name in names:
        parquet(root / name, [noise(0), noise(1)], [0, 1], ["a", "b"])
    return root


def test_classes_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"b": 1, "a": 2, "B": 1})

    assert FolderRows(root, root).names == ("B", "a", "b")


def test_rows_are_in_the_order_of_classes_and_files(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"b": 1, "a": 2})
    rows = FolderRows(root, root)

    assert [rows.where(row) for row in range(3)] == ["a/000.png", "a/001.png", "b/000.png"]


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 1, ".git": 1})
    (root / "a/.000.png").write_bytes(b"")
    (root / "a/notes.txt").write_text("")

    assert len(FolderRows(root, root).labels) == 1


def test_images_below_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    image_folder(tmp_path / "tench", {"images": 2})

    assert FolderRows(tmp_path, tmp_path).names == ("tench",)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    rows = FolderRows(image_folder(tmp_path, {"a": 2}), tmp_path)
    (tmp_path / "a/001.png").unlink()

    with pytest.raises(DataError, match=r"a/001\.png: No such file"):
        rows.take(np.array([1]))


def test_splits_of_an_image_folder_are_its_top_folders(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 1})
    image_folder(tmp_path / "val", {"a": 1})

    assert LocalFolder(SourceSpec(id="x"), tmp_path).splits() == ("train", "val")


@pytest.mark.parametrize(
    "name",
    [
        "data/train-00000-of-00001.parquet",
        "data/train-00000-of-00001-0123456789abcdef.parquet",
        "plain_text/train-00000-of-00001.parquet",
        "train.parquet",
        "data/train.parquet",
        "train/0000.parquet",
        "default/train/0000.parquet",
    ],
)
def test_a_split_is_read_off_the_usual_names(tmp_path: Path, name: str) -> None:
    root = _files(tmp_path, name)

    assert parquet_splits(root, None) == {"train": [root / name]}


def test_shards_are_in_order(tmp_path: Path) -> None:
    names = [f"data/train-{number:05d}-of-00003.parquet" for number in (2, 0, 1)]
    root = _files(tmp_path, *names)

    assert parquet_splits(root, None) == {"train": [root / name for name in sorted(names)]}


def test_rows_go_on_through_the_shards(tmp_path: Path) -> None:
    root = tmp_path
    for shard in range(2):
        images = [picture(10 * shard + number) for number in range(3)]
        parquet(root / f"data/train-{shard:05d}-of-00002.parquet", images, [0, 1, 0], ["a", "b"])
    rows = LocalFolder(SourceSpec(id="x"), root).rows("train")

    assert rows.take(np.array([4, 0])) == [picture(11), picture(0)]


def test_the_card_decides_which_files_are_a_split(tmp_path: Path) -> None:
    root = _files(tmp_path, "one.parquet", "two.parquet")
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: two.parquet\n---\n# A set\n"
    )

    assert parquet_splits(root, None) == {"train": [root / "two.parquet"]}


def test_a_configuration_is_taken_by_name(tmp_path: Path) -> None:
    root = _files(tmp_path, "fine/train-00000-of-00001.parquet", "coarse/train.parquet")

    assert parquet_splits(root, "coarse") == {"train": [root / "coarse/train.parquet"]}


def test_an_unknown_configuration_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'fine'"):
        parquet_splits(_files(tmp_path, "fine/train.parquet", "coarse/train.parquet"), "fin")


def test_class_names_come_from_the_card_where_files_have_none(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [noise(0), noise(1)], [1, 0], None)
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n"
        "  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '0': cat\n          '1': dog\n---\n"
    )

    assert LocalFolder(SourceSpec(id="x"), tmp_path).rows("train").names == ("cat", "dog")


def test_text_labels_are_their_own_class_names(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [noise(n) for n in range(3)], ["dog", "cat", "dog"], None)
    rows = LocalFolder(SourceSpec(id="x"), tmp_path).rows("train")

    assert (rows.names, rows.labels.tolist()) == (("cat", "dog"), [1, 0, 1])


def test_numbers_without_names_are_ordered_as_numbers(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [noise(n) for n in range(3)], [10, 9, 10], None)

    assert LocalFolder(SourceSpec(id="x"), tmp_path).rows("train").names == ("9", "10")


def test_a_shard_without_the_column_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "data/train-00000-of-00002.parquet", [noise(0)], [0], ["a", "b"])
    second = tmp_path / "data/train-00001-of-00002.parquet"
    parquet(second, [noise(1)], [1], ["a", "b"], columns=("img", "label"))

    with pytest.raises(RecipeError, match=r"train-00001-of-00002.parquet: column 'image' is miss"):
        LocalFolder(SourceSpec(id="x"), tmp_path).rows("train")


def test_a_shard_of_another_type_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "data/train-00000-of-00002.parquet", [noise(0)], [0], None)
    parquet(tmp_path / "data/train-00001-of-00002.parquet", [noise(1)], ["b"], None)

    with pytest.raises(RecipeError, match="'label' holds string in this file, int64 in others"):
        LocalFolder(SourceSpec(id="x"), tmp_path).rows("train")


@pytest.mark.parametrize(
    "card",
    [
        "configs: 3",
        "configs:\n- data_files:\n  - {split: train, path: /etc}",
        "configs:\n- data_files:\n  - {split: train, path: 7}",
        "dataset_info: [1, {features: 2}, {features: [3, {dtype: {class_label: 4}}]}]",
        "a: [",
    ],
)
def test_a_card_that_makes_no_sense_is_passed_over(tmp_path: Path, card: str) -> None:
    root = _files(tmp_path, "train.parquet")
    (root / "README.md").write_text(f"---\n{card}\n---\n")

    assert LocalFolder(SourceSpec(id="x"), root).rows("train").names == ("a", "b")
