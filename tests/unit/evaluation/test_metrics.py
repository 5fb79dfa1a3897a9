"""Composed figures: values worked by hand, bounds, and refusal of percentages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillhub.evaluation import metrics

FRACTION = st.floats(0, 1)
GOLDEN = {"full_hard": 0.698, "syn_hard": 0.050, "syn": 0.608, "rnd": 0.570}


@pytest.mark.parametrize(("score", "squashed"), [(-1, 0), (0, 0.2689414214), (1, 1)])
def test_squash_maps_the_ends_to_zero_and_one(score, squashed):
    assert metrics.squash(score) == pytest.approx(squashed, abs=1e-10)


def test_the_worked_example_of_the_label_robust_score():
    assert metrics.hlr(0.698, 0.050) == pytest.approx(0.648)
    assert metrics.ior(0.608, 0.570) == pytest.approx(0.038)
    assert metrics.lrs_argument(**GOLDEN) == pytest.approx(-0.305)
    assert metrics.lrs(**GOLDEN) == pytest.approx(0.1570981783, abs=1e-10)


@pytest.mark.parametrize("key", list(GOLDEN))
def test_percentages_are_refused_with_the_fraction_that_was_meant(key):
    with pytest.raises(ValueError, match=r"a fraction is needed: 0\.698"):
        metrics.lrs(**{**GOLDEN, key: 69.8})


def test_nan_is_no_fraction():
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        metrics.ior(float("nan"), 0.5)


@given(FRACTION, FRACTION, FRACTION, FRACTION)
def test_both_scores_stay_between_zero_and_one(a, b, c, d):
    assert -1e-12 <= metrics.lrs(a, b, c, d) <= 1 + 1e-12
    assert -1e-12 <= metrics.ars(a, b, c, d) <= 1 + 1e-12


@given(FRACTION, FRACTION)
def test_gains_change_sign_with_the_arms(a, b):
    assert metrics.ior(a, b) == -metrics.ior(b, a)


def test_no_gain_with_or_without_augmentation_scores_as_squash_of_zero():
    assert metrics.ars(0.5, 0.5, 0.3, 0.3) == pytest.approx(0.2689414214, abs=1e-10)


def test_recovery_is_a_ratio():
    assert metrics.recovery(0.45, 0.9) == 0.5
    with pytest.raises(ValueError, match="is 0"):
        metrics.recovery(0.45, 0)


def test_the_bottom_tenth_of_twenty_classes_is_the_mean_of_two():
    recalls = [0.9] * 18 + [0.1, 0.3]

    assert metrics.bottom_tenth(recalls) == pytest.approx(0.2)
    assert metrics.worst(recalls) == 0.1


def test_the_bottom_tenth_of_few_classes_is_the_worst_one():
    assert metrics.bottom_tenth([0.5, 0.2, 0.8]) == 0.2


def test_disparity_and_deviation_of_two_classes():
    assert metrics.disparity([0.25, 0.75]) == 0.5
    assert metrics.deviation([0.25, 0.75]) == 0.25


def test_the_worked_example_of_the_robustness_figures():
    ratio = metrics.robustness_ratio(70, [30, 10, 20])
    efficiency = metrics.attack_efficiency(2, [3, 10, 5])

    assert ratio == pytest.approx(16.6667, abs=5e-5)
    assert efficiency == 50
    assert metrics.crei(ratio, efficiency) == pytest.approx(33.3333, abs=5e-5)


def test_the_robustness_ratio_does_not_depend_on_the_unit_of_accuracy():
    percent = metrics.robustness_ratio(70, [30, 10, 20])

    assert metrics.robustness_ratio(0.7, [0.3, 0.1, 0.2]) == pytest.approx(percent)


def test_attacks_without_harm_or_time_score_zero():
    assert metrics.robustness_ratio(0.7, [0.7, 0.7]) == 0
    assert metrics.attack_efficiency(2, [2, 2]) == 0
