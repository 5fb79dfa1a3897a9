import json
from pathlib import Path

import pytest
import torch

from distillhub.data.sources import RealData, SplitName, open_split, pin_source
from distillhub.data.specs import DataPin, SourceSpec
from distillhub.errors import DataError, RecipeError
from tests.unit.data.sets import hub_folder, image_folder, noise, parquet, picture


def _pin(spec: SourceSpec, sources: dict[str, Path] | None = None) -> DataPin:
    return pin_source(spec, sources or {}, None)


def _open(
    spec: SourceSpec, split: SplitName = "train", sources: dict[str, Path] | None = None
) -> RealData:
    pinned = spec.model_copy(update={"pin": _pin(spec, sources)})
    return open_split(pinned, split, sources or {})


def _refused(spec: SourceSpec, match: str) -> RecipeError:
    with pytest.raises(RecipeError, match=match) as caught:
        _pin(spec)
    return caught.value


# --- digits


def test_digits_are_split_into_1297_and_500() -> None:
    spec = SourceSpec(id="sklearn:digits")

    assert (len(_open(spec)), len(_open(spec, "test"))) == (1297, 500)


def test_train_and_test_share_no_digit() -> None:
    spec = SourceSpec(id="sklearn:digits")
    train, test = (_open(spec).source_rows.tolist(), _open(spec, "test").source_rows.tolist())

    assert sorted(train + test) == list(range(1797))


def test_the_16_levels_of_the_digits_reach_white() -> None:
    assert _open(SourceSpec(id="sklearn:digits")).pixels(range(100)).max() == 255


def test_a_share_of_the_digits_can_be_the_test_split() -> None:
    assert len(_open(SourceSpec(id="sklearn:digits", test=0.1), "test")) == 180


def test_the_digits_have_no_other_splits() -> None:
    spec = SourceSpec(id="sklearn:digits", train="all", test="val")

    assert [fault.where for fault in _refused(spec, "no split 'all'").faults] == [
        "dataset.train",
        "dataset.test",
    ]


# --- choosing


def test_labels_are_positions_in_the_list_of_the_recipe(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), classes=("light", "dark"))

    assert _open(spec).labels[:4].tolist() == [1, 0, 1, 0]


def test_the_digests_are_those_of_all_rows_whatever_classes_are_taken(tmp_path: Path) -> None:
    root = str(image_folder(tmp_path, {"a": 3, "b": 3, "c": 3}))
    some, every = (_pin(SourceSpec(id=root, test=None, classes=c)) for c in (("c", "a"), None))

    assert some.train == every.train


def test_source_rows_count_the_rows_before_the_choice(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2, "c": 2})
    data = _open(SourceSpec(id=str(root), test=None, classes=("c", "a")))

    assert data.source_rows.tolist() == [0, 1, 4, 5]


def test_rows_of_a_class_are_its_images(tmp_path: Path) -> None:
    shades = {"dark": 10, "light": 240}
    for name, shade in shades.items():
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(picture(shade))
    data = _open(SourceSpec(id=str(tmp_path), test=None))

    assert data.pixels(data.rows_of(1)).unique().tolist() == [240]


# --- pins


def test_a_pin_says_the_same_of_two_copies(tmp_path: Path) -> None:
    here, there = (hub_folder(tmp_path / name) for name in ("here", "there"))
    spec = SourceSpec(id="me/set")

    assert _pin(spec, {"me/set": here}) == _pin(spec, {"me/set": there})


def test_a_pin_holds_no_path(tmp_path: Path) -> None:
    pin = _pin(SourceSpec(id="me/set"), {"me/set": hub_folder(tmp_path)})

    assert str(tmp_path) not in pin.model_dump_json()


def test_one_changed_pixel_changes_the_digest(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(image_folder(tmp_path, {"a": 2, "b": 2})), test=None)
    before = _pin(spec).train.sha256

    (tmp_path / "b/001.png").write_bytes(noise(99))

    assert _pin(spec).train.sha256 != before


def test_one_changed_label_changes_the_digest(tmp_path: Path) -> None:
    images = [noise(number) for number in range(4)]
    digests = set()
    for folder, labels in (("x", [0, 1, 0, 1]), ("y", [0, 1, 1, 0])):
        parquet(tmp_path / folder / "train.parquet", images, labels, ["a", "b"])
        digests.add(_pin(SourceSpec(id=str(tmp_path / folder), test=None)).train.sha256)

    assert len(digests) == 2


def test_the_digest_does_not_depend_on_the_row_groups(tmp_path: Path) -> None:
    images = [noise(number) for number in range(9)]
    digests = set()
    for group in (1, 4, 9):
        path = tmp_path / str(group) / "train.parquet"
        parquet(path, images, [0, 1, 0] * 3, ["a", "b"], group=group)
        digests.add(_pin(SourceSpec(id=str(path.parent), test=None)).train.sha256)

    assert len(digests) == 1


def test_published_statistics_are_used_for_a_known_set(tmp_path: Path) -> None:
    name = "zalando-datasets/fashion_mnist"

    assert _pin(SourceSpec(id=name), {name: hub_folder(tmp_path)}).mean == (0.2861,)


def test_statistics_of_an_unknown_set_are_measured(tmp_path: Path) -> None:
    for name, shade in {"a": 0, "b": 51}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture(shade))
    pin = _pin(SourceSpec(id=str(tmp_path), test=None))

    assert (pin.mean, pin.std) == ((0.1,), (0.1,))  # half 0, half 51 / 255


def test_given_statistics_win(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), mean=(0.4,), std=(0.3,))

    assert (_pin(spec).mean, _pin(spec).std) == ((0.4,), (0.3,))


def test_mixed_grey_and_color_become_color(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    (root / "b/000.png").write_bytes(picture(7, mode="RGB"))

    assert _pin(SourceSpec(id=str(root), test=None)).channels == 3


def test_the_cache_gives_the_same_pin(tmp_path: Path) -> None:
    spec, cache = SourceSpec(id=str(hub_folder(tmp_path / "set"))), tmp_path / "pins.json"

    assert pin_source(spec, {}, cache) == pin_source(spec, {}, cache) == _pin(spec)


def test_the_cache_saves_reading_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cache = SourceSpec(id=str(hub_folder(tmp_path / "set"))), tmp_path / "pins.json"
    pin = pin_source(spec, {}, cache)
    monkeypatch.delattr("distillhub.data.tables.ParquetRows.chunks")
    monkeypatch.delattr("distillhub.data.tables.ParquetRows.take")

    assert pin_source(spec, {}, cache) == pin


def test_the_cache_notices_a_changed_file(tmp_path: Path) -> None:
    root, cache = image_folder(tmp_path / "set", {"a": 2, "b": 2}), tmp_path / "pins.json"
    spec = SourceSpec(id=str(root), test=None)
    before = pin_source(spec, {}, cache)

    (root / "a/000.png").write_bytes(noise(77))

    assert pin_source(spec, {}, cache).train != before.train


def test_the_cache_holds_no_path(tmp_path: Path) -> None:
    cache = tmp_path / "pins.json"
    pin_source(SourceSpec(id=str(hub_folder(tmp_path / "set"))), {}, cache)

    assert str(tmp_path) not in cache.read_text()


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 1}'])
def test_a_broken_cache_is_made_anew(tmp_path: Path, content: str) -> None:
    spec, cache = SourceSpec(id=str(hub_folder(tmp_path / "set"))), tmp_path / "pins.json"
    cache.write_text(content)

    pin_source(spec, {}, cache)

    assert len(json.loads(cache.read_text())) >= 3


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()

    _open(SourceSpec(id=str(hub_folder(tmp_path))))

    assert torch.equal(torch.get_rng_state(), before)


# --- bad input, found by `resolve`


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    _refused(SourceSpec(id=str(tmp_path / "gone")), "there is no folder '.*gone'")


def test_a_missing_local_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)local copy of me/set.*gone.*DISTILLHUB_SOURCES"):
        _pin(SourceSpec(id="me/set"), {"me/set": tmp_path / "gone"})


def test_a_folder_without_images_says_what_is_expected(tmp_path: Path) -> None:
    _refused(SourceSpec(id=str(tmp_path)), r"(?s)holds neither.*<class>/\*\.png")


def test_missing_columns_are_reported_together(tmp_path: Path) -> None:
    root = str(hub_folder(tmp_path))
    error = _refused(SourceSpec(id=root, image="imge", label="lable"), "did you mean 'image'")

    assert [fault.where for fault in error.faults] == ["dataset.image", "dataset.label"]


def test_two_image_columns_ask_for_a_choice(tmp_path: Path) -> None:
    import pyarrow as pa

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [noise(number) for number in range(2)]
    mask = pa.array([{"bytes": data, "path": None} for data in images], kind)
    parquet(tmp_path / "train.parquet", images, [0, 1], ["a", "b"], extra={"mask": mask})

    _refused(SourceSpec(id=str(tmp_path), test=None), "2 image columns: image, mask")


def test_a_column_that_holds_no_images_is_refused(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), image="label")

    _refused(spec, r"(?s)'label' holds int64, not encoded images.*image columns: image")


def test_the_test_split_cannot_be_the_training_split(tmp_path: Path) -> None:
    _refused(SourceSpec(id=str(hub_folder(tmp_path)), test="train"), "are the same split 'train'")


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    images = [noise(number) for number in range(3)]
    parquet(tmp_path / "train.parquet", images, [0, 1, 2], ["crane", "dog", "crane"])

    _refused(SourceSpec(id=str(tmp_path), test=None), "have the same name: 'crane'")


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    (root / "b/002.png").symlink_to(root / "gone.png")

    _refused(SourceSpec(id=str(root), test=None), r"002\.png: the folder cannot be read: No such")


def test_a_missing_test_split_offers_a_share(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [noise(0), noise(1)], [0, 1], ["a", "b"])

    _refused(SourceSpec(id=str(tmp_path)), r"(?s)no split 'test'.*known: train.*test: 0\.2")


def test_a_missing_test_folder_offers_a_share(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})

    _refused(SourceSpec(id=str(root)), r"(?s)no split 'test'.*test: 0\.2")


def test_a_misspelt_training_split_offers_the_nearest(tmp_path: Path) -> None:
    _refused(SourceSpec(id=str(hub_folder(tmp_path)), train="trian"), "did you mean 'train'")


def test_faults_of_both_splits_and_of_the_columns_come_together(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), test="tset", image="imge")
    error = _refused(spec, "no column 'imge'")

    assert {fault.where for fault in error.faults} == {"dataset.image", "dataset.test"}


def test_classes_that_do_not_match_offer_the_nearest_names(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), classes=("drak", "light"))

    _refused(spec, "(?s)no class 'drak'.*nearest names of 2: 'dark'")


def test_a_single_class_is_not_enough(tmp_path: Path) -> None:
    _refused(SourceSpec(id=str(image_folder(tmp_path, {"a": 3})), test=None), "one class only")


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 0, "c": 2})

    _refused(SourceSpec(id=str(root), test=None), r"1 class\(es\) without a training image: 'b'")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [], [], ["a", "b"])

    _refused(SourceSpec(id=str(tmp_path), test=None), "split 'train' has no images")


def test_a_share_leaves_every_class_a_training_image(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 1, "b": 9})

    assert _pin(SourceSpec(id=str(root), test=0.9)).counts == (1, 1)


def test_unlabelled_rows_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [noise(n) for n in range(3)], [0, 1, -1], ["a", "b"])

    _refused(SourceSpec(id=str(tmp_path), test=None), "1 of 3 rows .* the first is row 2: -1")


def test_mixed_sizes_name_two_examples(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    (root / "b/001.png").write_bytes(noise(0, size=(12, 10)))

    _refused(
        SourceSpec(id=str(root), test=None),
        r"(?s)8 x 8 pixels \(a/000.png\), 10 x 12 pixels \(b/001.png\).*dataset.size",
    )


def test_mixed_sizes_are_fine_with_a_size(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    (root / "b/001.png").write_bytes(noise(0, size=(12, 10)))

    assert _open(SourceSpec(id=str(root), test=None, size=6)).images(range(4)).shape == (4, 1, 6, 6)


def test_statistics_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)), mean=(0.5,) * 3, std=(0.5,) * 3)

    error = _refused(spec, r"3 value\(s\) for images of 1 channel")
    assert [fault.where for fault in error.faults] == ["dataset.mean", "dataset.std"]


def test_a_corrupt_first_image_is_named_with_the_others(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    for name in ("a/000.png", "b/001.png"):
        (root / name).write_bytes(b"no image")
    error = _refused(SourceSpec(id=str(root), test=None), "cannot be decoded")

    assert [fault.where for fault in error.faults] == ["a/000.png", "b/001.png"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_text("version https://git-lfs.github.com/spec/v1")

    _refused(
        SourceSpec(id=str(tmp_path), test=None), "(?s)train-00000.*not a readable Parquet.*LFS"
    )


def test_a_test_split_with_other_classes_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 2, "b": 2})
    image_folder(tmp_path / "test", {"a": 2, "z": 2})

    _refused(SourceSpec(id=str(tmp_path)), "classes of split 'test' are not in 'train': 'z'")


def test_several_configurations_ask_for_a_choice(tmp_path: Path) -> None:
    for config in ("fine", "coarse"):
        hub_folder(tmp_path / config)
        (tmp_path / config / "data/train-00000-of-00001.parquet").rename(
            tmp_path / config / "train-00000-of-00001.parquet"
        )

    _refused(SourceSpec(id=str(tmp_path), test=None), "2 configurations: coarse, fine")


def test_an_id_with_a_misspelt_scheme_says_what_is_possible() -> None:
    _refused(SourceSpec(id="sklearn:digit"), "(?s)no folder 'sklearn:digit'.*sklearn:digits")


# --- bad input, found when images are opened


def _corrupt_later(root: Path, row: int) -> SourceSpec:
    """A set whose pin was made before one row of its training split was broken."""
    spec = SourceSpec(id=str(hub_folder(root)))
    pinned = spec.model_copy(update={"pin": _pin(spec)})
    images = [noise(number) for number in range(12)]
    images[row] = images[row][:60]
    path = root / "data/train-00000-of-00001.parquet"
    parquet(path, images, [number % 2 for number in range(12)], ["dark", "light"])
    return pinned


def test_a_corrupt_image_is_named_by_file_and_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/train-00000-of-00001.parquet: row 7: the image"):
        open_split(_corrupt_later(tmp_path, 7), "train", {})


def test_a_lost_row_is_found_out(tmp_path: Path) -> None:
    spec = SourceSpec(id=str(hub_folder(tmp_path)))
    pinned = spec.model_copy(update={"pin": _pin(spec)})
    hub_folder(tmp_path, train=10)

    with pytest.raises(DataError, match="not the one that was pinned: split 'train' has 10 images"):
        open_split(pinned, "train", {})


def test_a_source_that_is_gone_is_a_data_error(tmp_path: Path) -> None:
    root = hub_folder(tmp_path / "set")
    spec = SourceSpec(id=str(root))
    pinned = spec.model_copy(update={"pin": _pin(spec)})
    root.rename(tmp_path / "elsewhere")

    with pytest.raises(DataError, match="there is no folder"):
        open_split(pinned, "train", {})


def test_a_color_image_in_a_grey_set_is_not_turned_grey_silently(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2, "b": 2})
    spec = SourceSpec(id=str(root), test=None)
    pinned = spec.model_copy(update={"pin": _pin(spec)})
    (root / "b/001.png").write_bytes(picture(5, mode="RGB"))

    with pytest.raises(DataError, match=r"b/001.png: the image has colors"):
        open_split(pinned, "train", {})


def test_an_unresolved_source_is_not_opened() -> None:
    with pytest.raises(ValueError, match="has not been resolved"):
        open_split(SourceSpec(id="sklearn:digits"), "train", {})
