import shutil
from pathlib import Path

import datasets
import pytest
import torch

import distillhub
from distillhub.errors import DataError
from distillhub.packaging.parquet import write
from distillhub.records.distilled import DistilledSet, load
from tests import fake_sets

NAMES = ("cat", "dog", "emu", "fox")


def package(folder, *, n=12, entries=3, codec="uint8", top_k=2, seed=0, views=True, **shape):
    folder.mkdir(exist_ok=True, parents=True)
    soft = fake_sets.soft_labels(n, entries, codec=codec, top_k=top_k, seed=seed)
    drawn = fake_sets.views(n, entries, ops=True, mix=True, seed=seed) if views else None
    files = fake_sets.png_files(fake_sets.pixels(n, seed=seed, **shape))
    write(folder, files, torch.arange(n) % 4, NAMES, soft, drawn, {"method": "dm"})
    return soft, drawn


def same(one, two):
    """Whether two records hold the same arrays."""
    for name, value in vars(one).items():
        other = getattr(two, name)
        if not (torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other):
            return False
    return True


@pytest.mark.parametrize(("codec", "top_k"), [("uint8", 2), ("float16", 2), ("float16", None)])
@pytest.mark.parametrize("entries", [1, 3, 70])
def test_labels_and_views_come_back_as_they_were_written(tmp_path, codec, top_k, entries):
    soft, views = package(tmp_path, codec=codec, top_k=top_k, entries=entries)

    opened = load(tmp_path)

    assert same(opened.soft, soft)
    assert same(opened.views, views)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_as_they_were_written(tmp_path, channels):
    package(tmp_path, channels=channels)

    opened = load(tmp_path)

    expected = fake_sets.pixels(12, channels=channels)
    assert torch.equal(opened.pixels(range(12)), expected)
    assert torch.equal(opened.images([5, 2]), expected[[5, 2]].float() / 255)
    assert (opened.channels, opened.height, opened.width) == (channels, 12, 10)


def test_facts_of_a_set(tmp_path):
    package(tmp_path, n=10)

    opened = load(tmp_path)

    assert len(opened) == 10
    assert opened.class_names == NAMES
    assert opened.counts == (3, 3, 2, 2)
    assert opened.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert opened.views_per_image == 3
    assert opened.meta["method"] == "dm"


def test_whole_image_labels_need_no_geometry(tmp_path):
    soft, _ = package(tmp_path, entries=1, codec="float16", top_k=None, views=False)

    opened = load(tmp_path)
    images, logits = opened.view_batch(torch.tensor([4]), torch.tensor([0]), 4.0)

    assert opened.views is None
    assert torch.equal(images, opened.images([4]))
    assert torch.equal(logits[0], soft.values[4, 0].float())


def test_a_view_batch_does_not_depend_on_its_order_or_size(tmp_path):
    package(tmp_path)
    opened = load(tmp_path)
    rows, views = torch.arange(12), torch.arange(12) % 3

    images, logits = opened.view_batch(rows, views, 4.0)

    for row in (11, 3, 4):
        one = slice(row, row + 1)
        image, logit = opened.view_batch(rows[one], views[one], 4.0)
        assert torch.equal(image[0], images[row])
        assert torch.equal(logit[0], logits[row])


def test_images_too_many_for_memory_are_decoded_on_access(tmp_path):
    from distillhub.records.images import EncodedImages

    files = fake_sets.png_files(fake_sets.pixels(5))

    lazy = EncodedImages(lambda rows: [files[r] for r in rows], 5, where="test", resident=0)

    assert lazy._kept is None
    assert torch.equal(lazy.pixels([3, 1]), fake_sets.pixels(5)[[3, 1]])


@pytest.mark.parametrize("kept", [False, True])
def test_a_changed_folder_is_noticed(tmp_path, kept):
    folder, cache = tmp_path / "set", tmp_path / "cache" if kept else None
    package(folder, seed=0)
    before = load(folder, cache=cache)
    shutil.rmtree(folder / "data")
    package(folder, seed=1)

    after = load(folder, cache=cache)

    assert not torch.equal(before.soft.values, after.soft.values)
    assert torch.equal(after.pixels(range(12)), fake_sets.pixels(12, seed=1))
    assert torch.equal(before.pixels(range(12)), fake_sets.pixels(12, seed=0))


def test_opening_a_folder_leaves_nothing_behind(tmp_path, monkeypatch):
    import gc
    import tempfile

    package(tmp_path / "set")
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))

    opened = load(tmp_path / "set")
    opened.images([0])
    del opened
    gc.collect()

    assert list((tmp_path / "temp").iterdir()) == []
    assert not (Path(datasets.config.HF_DATASETS_CACHE) / "parquet").exists()


def test_load_is_offered_by_the_package(tmp_path):
    package(tmp_path)

    assert isinstance(distillhub.load(tmp_path), DistilledSet)


def foreign(folder, **columns):
    from PIL import Image

    images = [Image.fromarray(image[0].numpy()) for image in fake_sets.pixels(4)]
    table = datasets.Dataset.from_dict({"picture": images, **columns})
    table = table.cast_column("picture", datasets.Image())
    folder.mkdir(exist_ok=True)
    table.to_parquet(folder / "train.parquet")


def test_a_set_of_others_needs_only_images_and_class_numbers(tmp_path):
    foreign(tmp_path, class_id=[0, 2, 1, 2])

    opened = load(tmp_path)

    assert opened.labels.tolist() == [0, 2, 1, 2]
    assert opened.class_names == ("0", "1", "2")
    assert opened.soft is None
    assert opened.meta == {}
    assert torch.equal(opened.pixels(range(4)), fake_sets.pixels(4))


def test_labels_may_be_words(tmp_path):
    foreign(tmp_path, label=["dog", "cat", "dog", "emu"])

    opened = load(tmp_path)

    assert opened.class_names == ("cat", "dog", "emu")
    assert opened.labels.tolist() == [1, 0, 1, 2]


def test_a_folder_of_images_by_class_opens(tmp_path):
    for name in ("ants", "bees"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(
            fake_sets.png_files(fake_sets.pixels(1))[0]
        )

    opened = load(tmp_path)

    assert opened.class_names == ("ants", "bees")
    assert torch.equal(opened.pixels([1]), fake_sets.pixels(1))


def test_a_set_without_labels_is_refused_with_its_columns(tmp_path):
    foreign(tmp_path, caption=["a", "b", "c", "d"])

    with pytest.raises(DataError, match="no label column: columns are picture, caption"):
        load(tmp_path)


def test_rows_without_a_label_are_refused(tmp_path):
    foreign(tmp_path, label=[0, 1, -1, -1])

    with pytest.raises(DataError, match="2 images have no label, the first is row 2"):
        load(tmp_path)


def test_view_batch_of_a_set_without_soft_labels_is_refused(tmp_path):
    foreign(tmp_path, label=[0, 1, 0, 1])

    with pytest.raises(DataError, match="no soft labels"):
        load(tmp_path).view_batch(torch.tensor([0]), torch.tensor([0]), 4.0)


def test_a_corrupt_image_is_named_by_its_row(tmp_path):
    files = fake_sets.png_files(fake_sets.pixels(3))
    files[2] = files[2][:40]
    write(tmp_path, files, torch.tensor([0, 1, 2]), NAMES, None, None, {})

    with pytest.raises(DataError, match="image of row 2 cannot be decoded"):
        load(tmp_path).pixels([0, 1, 2])


def test_images_of_two_sizes_are_refused(tmp_path):
    files = fake_sets.png_files(fake_sets.pixels(1)) + fake_sets.png_files(
        fake_sets.pixels(1, height=8)
    )
    write(tmp_path, files, torch.tensor([0, 1]), NAMES, None, None, {})

    with pytest.raises(DataError, match="row 1 has 8 x 10 pixels, the first one 12 x 10"):
        load(tmp_path).pixels([0, 1])


def test_an_unknown_split_is_refused(tmp_path):
    package(tmp_path)

    with pytest.raises(DataError, match="split 'tests' cannot be opened"):
        load(tmp_path, split="tests")


def test_a_readme_that_is_no_yaml_is_refused(tmp_path):
    package(tmp_path)
    (tmp_path / "README.md").write_text("---\nconfigs: [a: b: c\n---\n")

    with pytest.raises(DataError, match="cannot be opened with load_dataset: while parsing"):
        load(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "nothing")


def test_a_local_folder_takes_no_revision(tmp_path):
    package(tmp_path)

    with pytest.raises(DataError, match="a local folder has no revision 'v1'"):
        load(tmp_path, revision="v1")


def hub_cache(root, repo, versions, main):
    """A cache of the Hub's client: `versions` maps a commit to (tag, seed of the set)."""
    home = root / f"datasets--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    for commit, (tag, seed) in versions.items():
        package(home / "snapshots" / commit, seed=seed)
        (home / "refs" / tag).write_text(commit)
    (home / "refs" / "main").write_text(main)


def test_a_revision_is_obeyed_without_a_network(tmp_path):
    old, new = "a" * 40, "b" * 40
    hub_cache(tmp_path, "me/set", {old: ("v1", 1), new: ("v2", 2)}, new)

    for revision, seed, commit in (("v1", 1, old), ("v2", 2, new), (None, 2, new), (old, 1, old)):
        opened = load("me/set", revision=revision, cache=tmp_path)
        assert torch.equal(opened.pixels([0]), fake_sets.pixels(12, seed=seed)[:1])
        assert opened.revision == commit


def test_an_unknown_revision_is_refused_without_a_network(tmp_path):
    hub_cache(tmp_path, "me/set", {"a" * 40: ("v1", 1)}, "a" * 40)

    with pytest.raises(DataError, match="this revision is not in the cache"):
        load("me/set", revision="v9", cache=tmp_path)
