import pytest
import torch

from distillhub.data.splits import stratified


def test_every_class_gives_its_share() -> None:
    labels = torch.tensor([0] * 40 + [1] * 20)

    _, drawn = stratified(labels, 6)

    assert torch.bincount(labels[drawn]).tolist() == [4, 2]


def test_the_largest_remainder_takes_the_row_that_is_left() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)  # shares of 4: 2.0, 1.2, 0.8

    _, drawn = stratified(labels, 4)

    assert torch.bincount(labels[drawn]).tolist() == [2, 1, 1]


def test_the_two_parts_hold_every_row_once() -> None:
    kept, drawn = stratified(torch.arange(30) % 3, 7)

    assert sorted(kept.tolist() + drawn.tolist()) == list(range(30))


def test_a_class_of_one_image_keeps_it() -> None:
    labels = torch.tensor([0, 1, 1, 1, 1])

    kept, _ = stratified(labels, 4)

    assert set(labels[kept].tolist()) == {0, 1}


def test_another_seed_draws_other_rows() -> None:
    labels = torch.zeros(100, dtype=torch.int64)

    assert not torch.equal(stratified(labels, 10, seed=0)[1], stratified(labels, 10, seed=1)[1])


def test_the_draw_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()

    stratified(torch.zeros(10, dtype=torch.int64), 3)

    assert torch.equal(torch.get_rng_state(), before)


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 rows cannot be drawn from 4"):
        stratified(torch.zeros(4, dtype=torch.int64), 5)
