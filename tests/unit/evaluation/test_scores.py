"""Figures of one run, from logits worked by hand."""

import math

import pytest
import torch
from torch.nn import functional

from distillhub.evaluation.scores import calibration_error, per_image, sampling_error, scores


def drawn(n=40, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


def test_two_images_sure_and_right_less_sure_and_wrong():
    error = calibration_error(torch.tensor([0.9, 0.6]), torch.tensor([1.0, 0.0]))

    assert error == pytest.approx(0.35)


def test_calibration_is_perfect_when_bins_agree():
    confident = torch.full((10,), 0.8, dtype=torch.float64)
    right = torch.tensor([1.0] * 8 + [0.0] * 2)

    assert calibration_error(confident, right) == pytest.approx(0, abs=1e-12)


def test_uniform_logits_have_the_likelihood_of_chance():
    judged = per_image(torch.zeros(1, 10), torch.tensor([3]))

    assert judged.nll.item() == pytest.approx(math.log(10))
    assert judged.brier.item() == pytest.approx(0.9)  # 9 * 0.01 + 0.81


def test_a_constant_output_is_right_for_one_class_only():
    labels = torch.arange(10)

    assert scores(per_image(torch.zeros(10, 10), labels), labels, 10).top1 == pytest.approx(0.1)


def test_top5_counts_the_fifth_and_not_the_sixth():
    logits = torch.arange(10.0).flip(0).repeat(2, 1)  # class 0 is best
    labels = torch.tensor([4, 5])

    assert scores(per_image(logits, labels), labels, 10).top5 == 0.5


def test_five_classes_have_no_top5():
    labels = torch.tensor([0])

    assert scores(per_image(torch.zeros(1, 5), labels), labels, 5).top5 is None


def test_the_likelihood_is_the_cross_entropy():
    logits, labels = drawn()

    nll = scores(per_image(logits, labels), labels, 7).nll

    assert nll == pytest.approx(functional.cross_entropy(logits.double(), labels).item())


def test_the_brier_score_is_the_squared_distance_to_one_hot():
    logits, labels = drawn()
    distance = (logits.double().softmax(1) - functional.one_hot(labels, 7)).square().sum(1)

    assert scores(per_image(logits, labels), labels, 7).brier == pytest.approx(
        distance.mean().item()
    )


def test_class_accuracies_weighted_by_their_images_give_top1():
    logits, labels = drawn()
    counts = torch.bincount(labels, minlength=7).tolist()

    found = scores(per_image(logits, labels), labels, 7)

    hits = sum(acc * n for acc, n in zip(found.class_acc, counts, strict=True) if n)
    assert hits / 40 == pytest.approx(found.top1)


def test_a_class_without_test_images_has_no_accuracy():
    labels = torch.tensor([0, 2])

    assert scores(per_image(torch.eye(3)[labels], labels), labels, 3).class_acc == (1.0, None, 1.0)


def test_the_order_of_test_images_does_not_matter():
    logits, labels = drawn()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))

    moved = scores(per_image(logits[order], labels[order]), labels[order], 7)

    assert moved.class_acc == scores(per_image(logits, labels), labels, 7).class_acc


def test_renaming_the_classes_changes_nothing_but_their_order():
    logits, labels = drawn()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))

    renamed = scores(
        per_image(logits[:, order], order.argsort()[labels]), order.argsort()[labels], 7
    )

    plain = scores(per_image(logits, labels), labels, 7)
    assert renamed.top1 == plain.top1
    assert renamed.ece == pytest.approx(plain.ece)
    assert renamed.class_acc == tuple(plain.class_acc[i] for i in order)


def test_a_logit_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        per_image(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))


def test_the_sampling_error_of_half_right():
    assert sampling_error(0.5, 10_000) == pytest.approx(0.005)
