"""Uniform draws and herding against hand-worked picks and a search through all rows."""

import pytest
import torch

from distillhub.ops.selection import herd, sample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_sample_holds_different_rows() -> None:
    rows = torch.arange(100, 120)

    drawn = sample(rows, 20, generator())

    assert sorted(drawn.tolist()) == rows.tolist()
    assert drawn.tolist() != rows.tolist()


def test_a_smaller_sample_is_the_start_of_a_larger_one() -> None:
    rows = torch.arange(50)

    assert sample(rows, 20, generator())[:5].tolist() == sample(rows, 5, generator()).tolist()


def test_samples_are_uniform_over_the_rows() -> None:
    draws = generator()

    drawn = torch.stack([sample(torch.arange(5), 2, draws) for _ in range(2000)])

    counts = torch.bincount(drawn.flatten(), minlength=5)  # 800 each, standard deviation 22
    assert counts.min() > 700
    assert counts.max() < 900


def test_a_sample_beyond_the_rows_is_all_of_them() -> None:
    assert len(sample(torch.arange(3), 9, generator())) == 3


def test_herding_follows_the_mean_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [5.0], [2.0]])  # mean 2

    # 2 is the mean; then 1 gives 1.5 where 0 gives 1 and 5 gives 3.5; then 5 gives 8/3, 0 gives 1
    assert herd(features, 4).tolist() == [3, 1, 2, 0]


def test_every_pick_is_the_best_one_left() -> None:
    features = torch.randn(30, 4, generator=generator(), dtype=torch.float64)

    picked = herd(features, 12).tolist()

    for k, choice in enumerate(picked):
        left = [row for row in range(30) if row not in picked[:k]]
        distance = {
            row: (features[[*picked[:k], row]].mean(dim=0) - features.mean(dim=0)).norm().item()
            for row in left
        }
        assert choice == min(left, key=distance.__getitem__)


def test_a_herd_is_nearer_to_the_mean_than_random_rows() -> None:
    features = torch.randn(200, 16, generator=generator())

    herded = features[herd(features, 10)].mean(dim=0) - features.mean(dim=0)

    drawn = [features[sample(torch.arange(200), 10, generator(s))].mean(dim=0) for s in range(20)]
    nearest = min((mean - features.mean(dim=0)).norm() for mean in drawn)
    assert herded.norm() < nearest / 2


def test_a_row_is_picked_once_though_all_rows_agree() -> None:
    assert herd(torch.ones(6, 3), 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"7 rows cannot be picked from features \(6, 3\)"):
        herd(torch.ones(6, 3), 7)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not all finite"):
        herd(torch.tensor([[1.0], [torch.nan]]), 1)
