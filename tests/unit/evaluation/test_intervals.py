"""Means and intervals over runs."""

import pytest
from scipy import stats

from distillhub.evaluation.intervals import spread, spread_within, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 7, 29, 30, 100, 999])
def test_the_t_quantile_is_that_of_the_distribution(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_interval_of_one_to_five():
    found = spread([1, 2, 3, 4, 5])

    assert found.mean == 3
    assert found.std == pytest.approx(1.5811, abs=5e-5)
    assert found.ci95 is not None
    assert found.ci95[1] - found.mean == pytest.approx(1.9632, abs=6e-5)  # 2.776445 * 0.707107
    assert found.ci95[0] + found.ci95[1] == pytest.approx(6)


def test_fewer_than_three_runs_have_no_interval():
    assert spread([0.1, 0.2]).ci95 is None
    assert spread([0.1]).std is None


def test_the_order_of_runs_does_not_matter_to_the_last_bit():
    values = [0.1, 0.7, 0.30000000000000004, 0.2, 1e-9]

    assert spread(values) == spread(values[::-1])


def test_equal_runs_have_an_interval_of_width_zero():
    assert spread([0.25, 0.25, 0.25]).ci95 == (0.25, 0.25)


def test_no_runs_have_no_mean():
    with pytest.raises(ValueError, match="no runs"):
        spread([])


def test_the_spread_within_a_single_group_is_that_of_its_runs():
    found, alone = spread_within([[1, 2, 3, 4, 5]]), spread([1, 2, 3, 4, 5])

    assert found.ci95 == pytest.approx(alone.ci95)
    assert found.std == pytest.approx(alone.std)


def test_the_spread_within_groups_does_not_see_how_far_they_are_apart():
    near, far = spread_within([[1, 2, 3], [2, 3, 4]]), spread_within([[1, 2, 3], [102, 103, 104]])

    # Variance 1 in each of two groups of three, 4 degrees of freedom: 2.776445 * sqrt(2 / 3) / 2.
    assert near.ci95[1] - near.mean == pytest.approx(1.13348, abs=1e-5)
    assert far.ci95[1] - far.mean == pytest.approx(near.ci95[1] - near.mean)


def test_groups_of_one_run_have_no_spread_within():
    assert spread_within([[0.1], [0.2], [0.3]]) == (pytest.approx(0.2), None, None, 3)
