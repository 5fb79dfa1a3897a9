import io
import json

import pyarrow.parquet as pq
import pytest
import torch

from distillhub.packaging.digests import digests
from distillhub.packaging.parquet import storage, write
from distillhub.records.columns import label_bytes
from tests import fake_sets

NAMES = ("cat", "dog", "emu", "fox")


def package(folder, *, n=12, entries=3, seed=0, mix=True, **changes):
    arguments = {
        "images": fake_sets.png_files(fake_sets.pixels(n, seed=seed)),
        "labels": torch.arange(n) % 4,
        "class_names": NAMES,
        "soft": fake_sets.soft_labels(n, entries, codec="uint8", top_k=2),
        "views": fake_sets.views(n, entries, ops=True, mix=mix),
        "meta": {"method": "dm"},
    } | changes
    folder.mkdir(exist_ok=True)
    return write(folder, **arguments)


def rewrite(folder, **columns):
    """Replace columns of the only data file."""
    path = folder / "data/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), [values]
        )
    pq.write_table(table, path)


def test_equal_sets_give_equal_bytes(tmp_path):
    one, two = package(tmp_path / "a"), package(tmp_path / "b")

    assert one == two
    for name in [*one.files, "README.md", "package.json"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_columns_have_the_types_of_the_schema(tmp_path):
    record = package(tmp_path)

    assert {
        "view_crop": "fixed_size_list<item: uint16>[12]",
        "view_flip": "fixed_size_list<item: bool>[3]",
        "view_ops": "fixed_size_list<item: uint8>[12]",
        "mix_partner": "fixed_size_list<item: int32>[3]",
        "mix_box": "fixed_size_list<item: uint16>[12]",
        "soft_idx": "fixed_size_list<item: uint16>[6]",
        "soft_val": "fixed_size_list<item: uint8>[6]",
        "soft_range": "fixed_size_list<item: halffloat>[6]",
        "soft_rest": "fixed_size_list<item: halffloat>[6]",
    }.items() <= record.features.items()


def test_image_bytes_are_stored_plain_and_numbers_with_zstd(tmp_path):
    package(tmp_path)

    group = pq.read_metadata(tmp_path / "data/train-00000-of-00001.parquet").row_group(0)
    found = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}

    assert found["image.bytes"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in found["image.bytes"].encodings
    assert found["soft_val.list.element"].compression == "ZSTD"
    assert "RLE_DICTIONARY" in found["soft_val.list.element"].encodings  # uint8
    assert "RLE_DICTIONARY" not in found["soft_rest.list.element"].encodings  # float16
    assert "RLE_DICTIONARY" in found["label"].encodings
    assert found["label"].has_offset_index


def test_storage_is_what_the_footers_say(tmp_path):
    record = package(tmp_path)
    files = fake_sets.png_files(fake_sets.pixels(12))

    found = storage(tmp_path)

    assert found.images >= sum(len(file) for file in files)
    assert (found.images, found.labels, found.aux) == (
        record.bytes_images,
        record.bytes_labels,
        record.bytes_aux,
    )
    assert sum(found.columns.values()) == found.images + found.labels + found.aux
    assert found.aux == sum(v for k, v in found.columns.items() if k.startswith(("view", "mix")))


@pytest.mark.parametrize("entries", [3, 70])
def test_label_bytes_before_packaging_are_those_of_the_package(tmp_path, entries):
    record = package(tmp_path, entries=entries)
    image_bytes = sum(len(file) for file in fake_sets.png_files(fake_sets.pixels(12)))

    measured = label_bytes(
        fake_sets.soft_labels(12, entries, codec="uint8", top_k=2),
        fake_sets.views(12, entries, ops=True, mix=True),
        image_bytes,
    )

    written = {k: v for k, v in record.column_bytes.items() if k not in ("image", "label")}
    assert measured == written


def test_row_groups_have_at_most_a_thousand_rows(tmp_path):
    files = fake_sets.png_files(fake_sets.pixels(1)) * 1500
    soft = fake_sets.soft_labels(1500, 1)

    package(tmp_path, n=1500, images=files, soft=soft, views=None)

    metadata = pq.read_metadata(tmp_path / "data/train-00000-of-00001.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1000, 500]


def test_a_large_set_is_cut_into_shards_with_the_same_digests(tmp_path):
    whole = package(tmp_path / "whole")
    cut = package(tmp_path / "cut", shard_bytes=1000)

    assert len(cut.files) > 2
    assert cut.row_digests == whole.row_digests
    assert cut.column_sha256 == whole.column_sha256


def test_more_than_64_views_stand_in_a_table_of_their_own(tmp_path):
    record = package(tmp_path, entries=65)

    assert sorted(record.files) == [
        "data/train-00000-of-00001.parquet",
        "views/train-00000-of-00001.parquet",
    ]
    assert pq.read_metadata(tmp_path / "views/train-00000-of-00001.parquet").num_rows == 12 * 65
    assert pq.read_schema(tmp_path / "data/train-00000-of-00001.parquet").names == [
        "image",
        "label",
    ]


def test_digests_do_not_depend_on_where_the_views_stand(tmp_path, monkeypatch):
    beside = package(tmp_path / "beside", entries=5)
    monkeypatch.setattr("distillhub.packaging.parquet.INLINE_ENTRIES", 4)
    apart = package(tmp_path / "apart", entries=5)

    assert len(apart.files) == 2
    assert apart.row_digests == beside.row_digests
    assert apart.column_sha256 == beside.column_sha256


def test_a_changed_label_changes_the_digest_of_its_row_and_column_alone(tmp_path):
    record = package(tmp_path)
    labels = (torch.arange(12) % 4).tolist()
    labels[7] = 0

    rewrite(tmp_path, label=labels)
    found = digests(tmp_path)

    pairs = zip(found.rows, record.row_digests, strict=True)
    assert [row for row, (a, b) in enumerate(pairs) if a != b] == [7]
    changed = {k for k, v in found.columns.items() if v != record.column_sha256[k]}
    assert changed == {"label"}


def test_digests_do_not_depend_on_the_encoding(tmp_path):
    record = package(tmp_path)

    rewrite(tmp_path)  # snappy and dictionaries, as pyarrow writes by default

    assert digests(tmp_path).rows == record.row_digests


def test_front_matter_tells_readers_what_they_need(tmp_path):
    record = package(tmp_path, entries=65)

    assert record.front_matter["distillhub"] == {
        "schema": 1,
        "method": "dm",
        "labels": {"values": "logits", "codec": "uint8", "kept": 2, "classes": 4},
        "views": {"count": 65, "size": [12, 10], "formation": 1, "config": "views"},
    }
    assert [config["config_name"] for config in record.front_matter["configs"]] == [
        "default",
        "views",
    ]


def test_record_is_what_package_json_holds(tmp_path):
    record = package(tmp_path)

    assert (
        type(record).model_validate(json.loads((tmp_path / "package.json").read_text())) == record
    )


def test_a_set_without_soft_labels_has_two_columns(tmp_path):
    record = package(tmp_path, soft=None, views=None)

    assert set(record.column_bytes) == {"image", "label"}
    assert record.codec is None
    assert record.views == 0


def test_lengths_that_differ_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\[11, 12\] rows"):
        package(tmp_path, labels=torch.zeros(11, dtype=torch.int64))


def test_a_folder_that_holds_a_set_is_refused(tmp_path):
    package(tmp_path)

    with pytest.raises(ValueError, match="holds Parquet files already"):
        package(tmp_path)


def test_a_plain_reader_of_parquet_gets_images_and_logits(tmp_path):
    from PIL import Image

    package(tmp_path)

    frame = pq.read_table(tmp_path / "data/train-00000-of-00001.parquet").to_pandas()

    image = Image.open(io.BytesIO(frame["image"][3]["bytes"]))
    assert image.size == (10, 12)
    expected = fake_sets.soft_labels(12, 3, codec="uint8", top_k=2).values[3].flatten()
    assert frame["soft_val"][3].tolist() == expected.tolist()
