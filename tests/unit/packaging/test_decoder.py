import datasets
import pytest
import torch

from distillhub.packaging.decoder import decoder
from distillhub.packaging.parquet import write
from distillhub.records.distilled import load
from tests import fake_sets

NAMES = ("cat", "dog", "emu", "fox")


def package(folder, *, n=8, entries=3, channels=1, codec="uint8", top_k=2, views=None):
    soft = fake_sets.soft_labels(n, entries, codec=codec, top_k=top_k)
    files = fake_sets.png_files(fake_sets.pixels(n, channels=channels))
    return write(folder, files, torch.arange(n) % 4, NAMES, soft, views, {})


def check(folder, text, tmp_path, entries):
    """The function of the text agrees with our reader on every view."""
    names = {}
    exec(compile(text, "card", "exec"), names)  # noqa: S102 - the text on the card is under test
    cache = str(tmp_path / "cache")
    tables = [datasets.load_dataset(str(folder), split="train", cache_dir=cache)]
    if entries > 64:
        tables.append(datasets.load_dataset(str(folder), "views", split="train", cache_dir=cache))
    opened = load(folder)
    for row in (0, 5, 7):
        for k in (0, 1, entries - 1):
            place = torch.tensor([row]), torch.tensor([k])
            for temperature in (1.0, 4.0):
                image, logits = names["view"](*tables, row, k, temperature)
                ours, theirs = opened.view_batch(*place, temperature)
                torch.testing.assert_close(image, ours[0], rtol=0, atol=2e-5)
                torch.testing.assert_close(logits, theirs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("codec", "top_k"), [("uint8", 2), ("float16", 2), ("uint8", None)])
@pytest.mark.parametrize("mix", [False, True])
def test_the_text_on_the_card_reads_what_our_reader_reads(tmp_path, channels, codec, top_k, mix):
    folder = tmp_path / "set"
    views = fake_sets.views(8, 3, mix=mix)
    record = package(folder, channels=channels, codec=codec, top_k=top_k, views=views)

    check(folder, decoder(record.front_matter), tmp_path, 3)


@pytest.mark.parametrize("mix", [False, True])
def test_the_text_reads_views_from_a_table_of_their_own(tmp_path, mix):
    folder = tmp_path / "set"
    record = package(folder, entries=65, views=fake_sets.views(8, 65, mix=mix))

    check(folder, decoder(record.front_matter), tmp_path, 65)


def test_whole_image_labels_need_eight_lines(tmp_path):
    record = package(tmp_path / "set", entries=2, codec="float16", top_k=None)

    text = decoder(record.front_matter)

    check(tmp_path / "set", text, tmp_path, 2)
    assert len([line for line in text.splitlines() if line.startswith("    ")]) <= 8


def test_the_text_says_that_randaugment_is_left_out(tmp_path):
    record = package(tmp_path / "set", views=fake_sets.views(8, 3, ops=True))

    assert "RandAugment operations of view_ops are left out" in decoder(record.front_matter)


def test_a_set_without_soft_labels_needs_no_decoder(tmp_path):
    record = write(
        tmp_path, fake_sets.png_files(fake_sets.pixels(4)), torch.arange(4), NAMES, None, None, {}
    )

    assert decoder(record.front_matter) is None
