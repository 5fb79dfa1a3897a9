"""Which images a student sees, in which order."""

from collections import Counter

import pytest
import torch

from distillhub.evaluation import feed
from distillhub.evaluation.feed import Space, epoch_rows, epoch_views, hard_feed, soft_feed
from tests.unit.evaluation.sets import MEAN, STD, Pictures, SoftPictures

ALL = torch.arange(12)


def space(side=8):
    return Space((side, side), MEAN, STD, torch.device("cpu"))


def test_an_epoch_shows_every_image_once():
    assert sorted(epoch_rows(12, seed=0, epoch=3).tolist()) == list(range(12))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_rows(12, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}

    assert len(orders) == 4


def test_an_image_shows_all_its_views_before_one_comes_again():
    shown = torch.stack([epoch_views(5, 4, 0, epoch) for epoch in range(4)])

    assert shown.sort(0).values.tolist() == [[view] * 5 for view in range(4)]


def test_the_second_round_of_views_has_another_order():
    first = [epoch_views(5, 4, 0, epoch).tolist() for epoch in range(4)]
    second = [epoch_views(5, 4, 0, epoch).tolist() for epoch in range(4, 8)]

    assert first != second


def test_images_are_normalized_with_the_values_of_the_real_data():
    pictures = Pictures()

    x, labels = hard_feed(pictures, space()).batch(ALL, torch.zeros(12, dtype=torch.int64))

    assert torch.allclose(x, (pictures.pixels - 0.5) / 0.25)
    assert labels.equal(pictures.labels)


@pytest.mark.parametrize("side", [8, 13])
def test_prepared_at_once_or_batch_by_batch_is_the_same(side, monkeypatch):
    rows, views = torch.tensor([7, 2, 2]), torch.tensor([1, 0, 2])
    soft = SoftPictures(views=3)
    resident = soft_feed(soft, space(side), temperature=4.0, steps_images=10_000)
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    on_demand = soft_feed(soft, space(side), temperature=4.0, steps_images=10_000)

    pairs = zip(resident.batch(rows, views), on_demand.batch(rows, views), strict=True)

    assert all(a.equal(b) for a, b in pairs)


def test_more_views_than_a_run_shows_are_not_prepared_at_once():
    soft = SoftPictures(views=3)

    soft_feed(soft, space(), temperature=4.0, steps_images=35)

    assert not soft.asked


def test_all_views_of_a_small_set_are_prepared_once():
    soft = SoftPictures(views=3)

    soft_feed(soft, space(), temperature=4.0, steps_images=36)

    assert set(Counter(soft.asked).values()) == {1}
    assert len(soft.asked) == 36


def test_stored_views_are_not_augmented_and_whole_images_are():
    for whole in (True, False):
        found = soft_feed(
            SoftPictures(views=1, whole=whole), space(), temperature=4.0, steps_images=99
        )
        assert found.augmented is whole


def test_chunks_cover_all_rows_once():
    assert torch.cat(list(feed.chunks(2500, (28, 28)))).equal(torch.arange(2500))
