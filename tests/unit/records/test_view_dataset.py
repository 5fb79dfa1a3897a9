import pytest
import torch
from torch.utils.data import DataLoader

from distillhub.ops.views import pick_views
from distillhub.packaging.parquet import write
from distillhub.records.distilled import load
from tests import fake_sets

NAMES = ("cat", "dog", "emu", "fox")


@pytest.fixture
def opened(tmp_path):
    soft, views = fake_sets.soft_labels(12, 3), fake_sets.views(12, 3, ops=True, mix=True)
    files = fake_sets.png_files(fake_sets.pixels(12))
    write(tmp_path, files, torch.arange(12) % 4, NAMES, soft, views, {})
    return load(tmp_path)


def shown(data, **options):
    """label of every logit row seen in one epoch, as (row, view) pairs."""
    stored = data.data.soft.values.float()
    found = set()
    for _, logits, _ in DataLoader(data, collate_fn=data.collate, **options):
        for row in logits:
            place = (stored == row).all(2).nonzero()
            found.add(tuple(place[0].tolist()))
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_all_views_come_up_before_one_is_repeated(opened, workers):
    data = opened.torch_dataset()

    epochs = [shown(data, batch_size=5, shuffle=True, num_workers=workers) for _ in range(3)]

    assert set.union(*epochs) == {(row, view) for row in range(12) for view in range(3)}


def test_views_do_not_depend_on_batches_shuffling_or_workers(opened):
    one, two = opened.torch_dataset(), opened.torch_dataset()

    for _ in range(2):
        plain = shown(one, batch_size=12)
        other = shown(two, batch_size=5, shuffle=True, num_workers=2)
        assert plain == other


def test_a_row_asked_for_twice_in_a_batch_shows_two_views(opened):
    data = opened.torch_dataset()

    one, two = data.__getitems__([4, 4])

    assert not torch.equal(one.target, two.target)


def test_the_default_collate_gives_the_same_batches(opened):
    ours, default = opened.torch_dataset(4.0), opened.torch_dataset(4.0)

    fast = next(iter(DataLoader(ours, batch_size=12, collate_fn=ours.collate)))
    slow = next(iter(DataLoader(default, batch_size=12)))

    for one, two in zip(fast, slow, strict=True):
        assert torch.equal(one, two)


def test_a_single_row_is_one_sample(opened):
    image, logits, label = opened.torch_dataset()[3]

    assert image.shape == (1, 12, 10)
    assert logits.shape == (4,)
    assert label.item() == 3


def test_a_set_without_soft_labels_gives_the_label_as_target(tmp_path):
    files = fake_sets.png_files(fake_sets.pixels(4))
    write(tmp_path, files, torch.arange(4), NAMES, None, None, {})

    image, target, label = load(tmp_path).torch_dataset()[2]

    assert torch.equal(image, fake_sets.pixels(4)[2].float() / 255)
    assert target.item() == label.item() == 2


def test_views_are_picked_without_repetition_until_all_are_used():
    rows = torch.arange(50).repeat_interleave(7)
    for cycle in range(3):
        visits = torch.arange(7).repeat(50) + 7 * cycle

        picked = pick_views(rows, visits, 7, seed=3).reshape(50, 7)

        assert torch.equal(picked.sort(1).values, torch.arange(7).expand(50, 7))


def test_picked_views_are_spread_evenly():
    rows = torch.arange(7000)

    picked = pick_views(rows, torch.zeros_like(rows), 7, seed=0)

    # 1000 expected per view, standard deviation 29: four of them
    assert (torch.bincount(picked, minlength=7) - 1000).abs().max() < 120


def test_another_seed_picks_other_views():
    rows = torch.arange(100)
    visits = torch.zeros_like(rows)

    assert not torch.equal(pick_views(rows, visits, 9, seed=0), pick_views(rows, visits, 9, seed=1))
