import math

import pytest

from distillhub.ops.schedules import (
    cosine,
    linear,
    settled,
    ssrs,
    warmup,
    warmup_cosine,
)


def test_cosine_goes_from_one_through_a_half_to_zero():
    assert [cosine(step, 8) for step in (0, 4, 8)] == pytest.approx([1, 0.5, 0], abs=1e-15)


def test_cosine_stretched_by_two_ends_at_a_half():
    assert cosine(300, 300, stretch=2) == pytest.approx(0.5)


@pytest.mark.parametrize("stretch", [1.0, 1.5, 2.0, 3.0])
def test_the_end_of_a_cosine_is_its_closed_form(stretch: float):
    expected = 0.5 * (1 + math.cos(math.pi / stretch))

    assert cosine(7, 7, stretch=stretch) == pytest.approx(expected, abs=1e-15)


def test_a_warmup_rises_in_equal_steps_and_stays_at_one():
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_warmup_can_start_above_zero():
    assert warmup(0, 9, start=0.1) == pytest.approx(0.2)


def test_no_warmup_is_one_at_once():
    assert warmup(0, 0) == 1


def test_linear_meets_its_ends():
    assert [linear(step, 4, end=0.5) for step in (0, 2, 4)] == [1, 0.75, 0.5]


def test_cosine_follows_the_warmup_without_a_jump():
    factors = [warmup_cosine(step, 10, warmup_steps=4) for step in range(11)]

    assert factors[3] == factors[4] == 1
    assert factors[10] == pytest.approx(0, abs=1e-15)


def test_a_step_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match=r"step 9 lies outside 0 \.\. 8"):
        cosine(9, 8)


def test_14_08_ssrs_falls_at_five_sixths_to_a_sixth_and_ends_at_zero():
    c = 0.5 * (1 + math.cos(5 * math.pi / 12))  # 0.6294

    factors = [ssrs(step, 6000, stretch=2) for step in (2500, 5000, 5001, 6000)]

    half_way = 0.5 * (1 + math.cos(math.pi * 2500 / 12000))
    assert factors == pytest.approx([half_way, c, c * 999 / 6000, 0], abs=1e-12)
    assert factors[2] == pytest.approx(c / 6, rel=2e-3)


def test_ssrs_lies_inside_its_steps():
    with pytest.raises(ValueError, match="lies outside"):
        ssrs(7, 6, stretch=2)


@pytest.mark.parametrize(
    ("loss", "before", "expected"),
    [
        (0.99, 1.0, True),  # by 0.01, which is 1.01 %
        (0.97, 1.0, False),  # by 0.03
        (99.0, 100.0, False),  # 1 %, but by 1
        (0.0105, 0.01, False),  # by 0.0005, but that is 4.8 %
        (1.01, 1.0, True),  # a loss that rises settles too
        (0.5, math.inf, False),  # nothing before
    ],
)
def test_a_loss_settles_when_it_changes_little_in_both_measures(loss, before, expected):
    assert settled(loss, before) is expected
