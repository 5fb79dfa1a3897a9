"""Sentences: a gain that is smaller than its interval is no gain."""

import pytest

from distillhub.evaluation.verdicts import verdict
from distillhub.records.report import Metric


def gain(value, low, high, n=5):
    return Metric(value=value, ci95=(low, high), n=n, unit="difference", status="measured")


def test_images_that_win():
    text = verdict("hard", gain(0.053, 0.031, 0.075))

    assert text == (
        "Under hard labels: the images beat random ones by 5.3 points "
        "(95 % interval 3.1 to 7.5, 5 paired runs)."
    )


def test_images_that_lose():
    assert "lose to random ones by 2.0 points" in verdict("hard", gain(-0.02, -0.03, -0.01))


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.03), (0.0, 0.02), (-0.02, 0.0), (0.0, 0.0)])
def test_an_interval_that_holds_zero_is_no_clear_difference(low, high):
    assert "no clear difference" in verdict("soft_stored", gain((low + high) / 2, low, high))


def test_a_comparison_that_was_not_made_says_why():
    text = verdict("soft_stored", Metric(unit="difference", note="arm rnd_soft was not run"))

    assert text.endswith("not compared with random images (arm rnd_soft was not run).")
