"""Sets of others, as they are saved by the field's code, come in right or not at all."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distillhub.data import codec
from distillhub.errors import DataError, UsageError
from distillhub.records.importing import Wishes, kind_of, read_foreign
from tests.fake_sets import pixels, png_files
from tests.foreign_sets import arrays, label_folder, pictures, save


def levels(images):
    return codec.to_uint8(images)


def decoded(foreign):
    return codec.decode(foreign.files, foreign.size[0])


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    "content",
    [
        {"images": IMAGES, "labels": LABELS},
        {"image_syn": IMAGES, "label_syn": LABELS},
        {"x": IMAGES.permute(0, 2, 3, 1).contiguous(), "y": LABELS.unsqueeze(1)},
        [IMAGES, LABELS],
        (IMAGES.double(), LABELS.double()),
        {"data": [[IMAGES, LABELS]], "accs_all_exps": {"ConvNet": [np.float64(0.3)]}},
        {"images": levels(IMAGES), "labels": LABELS.int()},
        {"images": levels(IMAGES).float(), "labels": LABELS},
        {"images": torch.nn.Parameter(IMAGES), "labels": LABELS},
    ],
    ids=["dict", "syn", "channels last", "list", "double", "DC", "levels", "float levels", "param"],
)
def test_tensors_in_every_usual_form_give_the_same_images_and_labels(tmp_path, content):
    foreign = read_foreign(str(save(content, tmp_path / "a.pt")), Wishes())

    assert torch.equal(decoded(foreign), levels(IMAGES))
    assert foreign.labels.tolist() == LABELS.tolist()
    assert foreign.class_names == ("0", "1", "2")


def test_arrays_of_numpy_give_the_same(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES.numpy(), labels=LABELS.numpy())

    foreign = read_foreign(str(tmp_path / "a.npz"), Wishes())

    assert torch.equal(decoded(foreign), levels(IMAGES))


def test_arrays_of_the_other_byte_order_are_read_as_the_numbers_they_are(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES.numpy().astype(">f4"), labels=LABELS.numpy())

    foreign = read_foreign(str(tmp_path / "a.npz"), Wishes())

    assert torch.equal(decoded(foreign), levels(IMAGES))


def test_of_several_experiments_the_named_one_is_taken_and_told(tmp_path):
    other, _ = arrays(seed=1)
    path = save({"data": [[IMAGES, LABELS], [other, LABELS]]}, tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes(entry=1))

    assert torch.equal(decoded(foreign), levels(other))
    assert "Of 2 sets in the file, number 1." in foreign.assumed


def test_an_entry_that_is_not_there_is_refused(tmp_path):
    path = save({"data": [[IMAGES, LABELS]]}, tmp_path / "a.pt")

    with pytest.raises(UsageError, match="there are 1 sets"):
        read_foreign(str(path), Wishes(entry=3))


def test_normalised_pixels_need_to_be_told_how(tmp_path):
    path = save([(IMAGES - 0.5) / 0.25, LABELS], tmp_path / "a.pt")

    with pytest.raises(UsageError, match="normalised"):
        read_foreign(str(path), Wishes())


def test_normalised_pixels_are_brought_back_and_the_card_will_say_so(tmp_path):
    path = save([(IMAGES - 0.5) / 0.25, LABELS], tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes(mean=(0.5,) * 3, std=(0.25,) * 3))

    assert (decoded(foreign).int() - levels(IMAGES).int()).abs().max() <= 1
    assert any("mean 0.5, 0.5, 0.5, deviation 0.25" in said for said in foreign.assumed)


def test_pixels_beyond_white_are_cut_and_counted(tmp_path):
    images = torch.full((2, 1, 2, 2), 0.5)
    images[0, 0, 0, 0] = 4.0
    path = save([images, torch.tensor([0, 1])], tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes(mean=(0.0,), std=(1.0,)))

    assert "12.50 % of the values were outside [0, 1] and were cut." in foreign.assumed


def test_labels_of_their_own_file_join_the_images(tmp_path):
    images, labels = save(IMAGES, tmp_path / "i.pt"), save(LABELS, tmp_path / "l.pt")

    foreign = read_foreign(str(images), Wishes(labels=labels))

    assert foreign.labels.tolist() == LABELS.tolist()
    assert set(foreign.inputs) == {"i.pt", "l.pt"}


def test_probabilities_become_logits_whose_softmax_they_are(tmp_path):
    chances = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]).repeat(3, 1)
    path = save({"images": IMAGES, "labels": chances}, tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes())

    logits = foreign.soft.logits(torch.arange(6), torch.zeros(6, dtype=torch.int64), 1.0)
    assert torch.allclose(logits.softmax(1), chances, atol=1e-3)
    assert foreign.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_one_hot_rows_are_hard_labels(tmp_path):
    path = save([IMAGES, torch.eye(3)[LABELS]], tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes())

    assert foreign.soft is None
    assert foreign.labels.tolist() == LABELS.tolist()


def test_other_rows_are_taken_for_logits_and_told(tmp_path):
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 5
    path = save([IMAGES, rows], tmp_path / "a.pt")

    foreign = read_foreign(str(path), Wishes())

    assert torch.equal(foreign.soft.values[:, 0].float(), rows.half().float())
    assert "Soft labels are taken for logits." in foreign.assumed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([IMAGES, LABELS[:5]], "5 labels for 6 images"),
        ([IMAGES * float("nan"), LABELS], "NaN"),
        ([IMAGES, LABELS - 1], "labels run from -1"),
        ([IMAGES, LABELS * 500], "labels go up to 1000"),
        ([IMAGES, LABELS + 0.5], "no class numbers"),
        ([IMAGES, torch.zeros(6)], "1 classes"),
        ([IMAGES[:, :2], LABELS], "shape"),
        ([IMAGES.to(torch.complex64), LABELS], "not numbers"),
        ({"weights": IMAGES}, "no images or labels"),
        ({"images": IMAGES}, "no labels"),
        ([1, 2, 3], "no images and labels"),
    ],
)
def test_what_cannot_be_a_set_is_refused(tmp_path, content, said):
    path = save(content, tmp_path / "a.pt")

    with pytest.raises(DataError, match=said):
        read_foreign(str(path), Wishes())


def test_image_files_are_stored_byte_by_byte(tmp_path):
    folder = pictures(tmp_path / "f")

    foreign = read_foreign(str(folder), Wishes())

    assert foreign.files[0] == (folder / "circle" / "000.png").read_bytes()
    assert foreign.class_names == ("circle", "square", "triangle")
    assert foreign.counts == (4, 4, 4)


def test_a_grey_image_among_colored_ones_is_stored_as_rgb_and_told(tmp_path):
    folder = pictures(tmp_path / "f")
    Image.new("L", (24, 24), 100).save(folder / "circle" / "000.png")

    foreign = read_foreign(str(folder), Wishes())

    with Image.open(io.BytesIO(foreign.files[0])) as image:
        assert image.mode == "RGB"
    assert any(said.startswith("1 of 12 image files were stored anew") for said in foreign.assumed)


def test_an_image_of_another_size_is_named(tmp_path):
    folder = pictures(tmp_path / "f")
    Image.new("RGB", (9, 9)).save(folder / "square" / "002.png")

    with pytest.raises(DataError) as caught:
        read_foreign(str(folder), Wishes())

    assert caught.value.faults[0].where == "square/002.png"


def test_a_class_name_that_cannot_be_printed_is_refused(tmp_path):
    folder = pictures(tmp_path / "f")
    (folder / "circle").rename(folder / "cir\ncle")

    with pytest.raises(DataError, match="cannot be printed"):
        read_foreign(str(folder), Wishes())


def test_a_published_set_of_images_and_class_numbers_comes_in(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = png_files(pixels(4, channels=3))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": file, "path": None} for file in files], kind)
    rows = {"image": images, "class_id": pa.array([1, 0, 1, 0])}
    meta = (
        b'{"info": {"features": {"image": {"_type": "Image"}, '
        b'"class_id": {"dtype": "int64", "_type": "Value"}}}}'
    )
    (tmp_path / "data").mkdir()
    table = pa.table(rows).replace_schema_metadata({b"huggingface": meta})
    pq.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")

    foreign = read_foreign(str(tmp_path), Wishes(classes=("cat", "dog")))

    assert foreign.kind == "hub"
    assert foreign.files == tuple(files)
    assert foreign.labels.tolist() == [1, 0, 1, 0]
    assert foreign.class_names == ("cat", "dog")


def test_label_batches_find_their_images_through_the_usual_seed(tmp_path):
    folder = pictures(tmp_path / "f")
    labels = torch.arange(3).repeat_interleave(4)
    orders = label_folder(tmp_path / "l", labels, seed=42)

    foreign = read_foreign(str(folder), Wishes(labels=tmp_path / "l"))

    assert foreign.soft.values.shape == (12, 2, 3)
    assert (foreign.soft.values[:, :, :].argmax(2) == labels[:, None]).all()
    assert any("RandomSampler with seed 42" in said for said in foreign.assumed)
    first = orders[1][:4]  # the first batch of the second look
    assert set(foreign.views.partner[first, 1].tolist()) == set(first.tolist())
    assert foreign.views.box[first[0], 1].tolist() == [1, 2, 5, 6]


def test_crops_come_back_as_the_pixels_that_they_were(tmp_path):
    folder = pictures(tmp_path / "f")
    label_folder(tmp_path / "l", torch.arange(3).repeat_interleave(4), looks=1, mix=False)

    foreign = read_foreign(str(folder), Wishes(labels=tmp_path / "l"))

    draw = np.random.default_rng(7)
    start, size = draw.integers(0, 12, (4, 2)), draw.integers(6, 12, (4, 2))
    assert foreign.views.crop[:4, 0].tolist() == np.concatenate([start, size], 1).tolist()
    assert foreign.views.partner is None


def test_labels_of_other_images_are_refused(tmp_path):
    folder = pictures(tmp_path / "f")
    label_folder(tmp_path / "l", torch.arange(3).repeat_interleave(4), seed=5)

    with pytest.raises(DataError, match="do not fit the images"):
        read_foreign(str(folder), Wishes(labels=tmp_path / "l"))


def test_the_right_seed_makes_them_fit(tmp_path):
    folder = pictures(tmp_path / "f")
    label_folder(tmp_path / "l", torch.arange(3).repeat_interleave(4), seed=5)

    foreign = read_foreign(str(folder), Wishes(labels=tmp_path / "l", order=5))

    assert foreign.soft.entries == 2


def test_labels_of_mixup_are_refused(tmp_path):
    folder = pictures(tmp_path / "f")
    batch = [torch.full((12, 4), 0.5), torch.zeros(12), torch.arange(12), 0.3, None]
    (tmp_path / "l").mkdir()
    save([*batch, torch.zeros(12, 3)], tmp_path / "l" / "batch_0.tar")

    with pytest.raises(DataError, match="Mixup"):
        read_foreign(str(folder), Wishes(labels=tmp_path / "l"))


def test_batches_are_taken_in_the_order_of_their_numbers(tmp_path):
    from distillhub.records.importing_views import label_files

    for name in ("batch_10.tar", "batch_9.tar", "batch_1.tar"):
        (tmp_path / name).touch()

    assert [path.stem for path in label_files(tmp_path)] == ["batch_1", "batch_9", "batch_10"]


def test_a_set_of_ours_is_not_imported(tmp_path):
    (tmp_path / "manifest.json").touch()

    with pytest.raises(UsageError, match="already"):
        read_foreign(str(tmp_path), Wishes())


def test_kinds_are_told_by_what_is_there(tmp_path):
    assert kind_of(str(save([1], tmp_path / "a.PT"))) == "pt"
    assert kind_of(str(tmp_path)) == "folder"
    assert kind_of("org/name") == "hub"
    with pytest.raises(UsageError, match="no such file"):
        kind_of("./nothing")
