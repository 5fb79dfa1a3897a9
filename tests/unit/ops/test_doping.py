"""Confusion, selection and the Dope Trigger: dsco checks 15 and 16, and values by hand."""

import pytest
import torch

from distillhub.ops.doping import confusion, most_confused, most_confused_by_class, pick


def random_margins(n: int = 400, classes: int = 5):
    generator = torch.Generator().manual_seed(3)
    probabilities = (3 * torch.randn(n, classes, generator=generator)).softmax(dim=1)
    labels = torch.randint(classes, (n,), generator=generator)
    return probabilities, labels


def test_dsco_check_15_confusion_is_positive_just_where_student_and_label_disagree():
    probabilities, labels = random_margins()

    score = confusion(probabilities, labels)

    assert torch.equal(score > 0, probabilities.argmax(dim=1) != labels)
    assert -1 <= score.min() < 0 < score.max() <= 1


def test_dsco_check_15_confusion_by_hand():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.625, 0.25], [0.25, 0.25, 0.5]])

    score = confusion(probabilities, torch.tensor([0, 2, 0]))

    assert score.tolist() == [-0.25, 0.375, 0.25]


def test_dsco_check_15_global_selection_is_the_bottom_of_all_margins():
    score = confusion(*random_margins())
    margins = -score

    picked = most_confused(score, 90)

    assert sorted(margins[picked].tolist()) == sorted(margins.tolist())[:90]
    assert len(picked.unique()) == 90


def test_dsco_check_15_a_classwise_quota_gives_every_class_its_number():
    probabilities, labels = random_margins()
    score = confusion(probabilities, labels)

    picked = most_confused_by_class(score, labels, [9, 0, 4, 20, 1])

    assert torch.bincount(labels[picked], minlength=5).tolist() == [9, 0, 4, 20, 1]
    assert len(picked.unique()) == len(picked) == 34
    left = torch.ones(len(score), dtype=torch.bool)
    left[picked] = False
    assert score[picked][labels[picked] == 3].min() >= score[left & (labels == 3)].max()


def test_ties_go_to_the_lower_row():
    assert most_confused(torch.tensor([0.5, 0.75, 0.5, 0.75]), 3).tolist() == [1, 3, 0]


def test_a_smaller_selection_is_the_start_of_a_larger_one():
    score = confusion(*random_margins())

    assert torch.equal(most_confused(score, 200)[:50], most_confused(score, 50))


@pytest.mark.parametrize("n", [-1, 5])
def test_more_rows_than_there_are_cannot_be_picked(n):
    with pytest.raises(ValueError, match="from 4"):
        most_confused(torch.zeros(4), n)


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(ValueError, match="class 1 has 2 images, 3 are asked for"):
        most_confused_by_class(torch.zeros(4), torch.tensor([0, 1, 1, 0]), [1, 3])


def test_a_confusion_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        most_confused(torch.tensor([0.1, torch.nan]), 1)


# N(M) = 1000 (1 - exp(-M / 200)) over M = 100, 500, 1000, 1500: gains 1.31, 0.15, 0.01.
SIZES = (100, 500, 1000, 1500)
CONCAVE = (393.5, 917.9, 993.3, 999.4)


def test_dsco_check_16_the_trigger_picks_the_size_after_which_a_gain_is_at_most_one():
    choice = pick(SIZES, CONCAVE)

    assert choice.size == 1
    assert choice.gains == pytest.approx((1.311, 0.1508, 0.0122), abs=1e-4)


def test_dsco_check_16_a_gain_of_just_one_triggers():
    assert pick((10, 20, 30), (50, 70, 80)).size == 1
    assert pick((10, 20, 30), (50, 60, 80)).size == 0


def test_dsco_check_16_where_every_step_pays_the_largest_size_is_kept():
    assert pick((10, 50), (100, 200)).size == 1
    assert pick((10,), (7,)) == (0, ())


@pytest.mark.parametrize("sizes", [(10, 10), (20, 10), ()])
def test_sizes_that_do_not_rise_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes"):
        pick(sizes, (1.0,) * len(sizes))
