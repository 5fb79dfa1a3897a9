"""How the learning rate goes, worked out by hand."""

import math

import pytest
import torch

from distillhub.evaluation import protocols
from distillhub.evaluation.pace import Settling, epoch_factor
from distillhub.ops.progress import capture, restore
from tests.unit.evaluation.sets import TINY

CPU = torch.device("cpu")


def factors(schedule, epochs, **fields):
    return [epoch_factor(schedule, epoch, epochs, **fields) for epoch in range(epochs)]


def of(epoch, name, *, images=100, classes=10):
    protocol = protocols.get(name)
    length = protocol.length(images, classes)
    return protocol.rate(epoch * length.per_epoch, length) / length.lr


def settling_after(losses, gamma=0.5, steps=1):
    pace = Settling(gamma, CPU)
    seen = []
    for loss in losses:
        for _ in range(steps):
            pace.saw(torch.tensor(loss))
        pace.ends(steps)
        seen.append(pace.factor)
    return seen


def test_14_08_smoothing_with_zeta_one_is_a_cosine_to_zero():
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)]

    assert factors("smoothing", 8, zeta=1.0) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("zeta", [1.0, 1.5, 2.0, 3.0])
def test_14_08_smoothing_ends_at_its_closed_form(zeta):
    (late,) = (epoch_factor("smoothing", 10**6, 10**6 + 1, zeta=zeta),)

    assert late == pytest.approx(0.5 * (1 + math.cos(math.pi / zeta)), abs=1e-5)


def test_smoothing_with_zeta_two_is_the_half_cosine():
    by_hand = [1, 0.9619398, 0.8535534, 0.6913417]

    assert factors("smoothing", 4, zeta=2.0) == pytest.approx(by_hand)
    assert factors("smoothing", 4, zeta=2.0) == factors("half_cosine", 4)


def test_14_08_ssrs_by_epochs():
    found = factors("ssrs", 12, zeta=2.0)

    c = 0.6294095
    assert found[:11] == factors("smoothing", 12, zeta=2.0)[:11]
    assert found[10:] == pytest.approx([c, c / 12])


def test_linear_smooth_is_a_line_to_one_minus_one_over_zeta():
    assert factors("linear_smooth", 4, zeta=2.0) == pytest.approx([1, 0.875, 0.75, 0.625])


def test_multistep_multiplies_at_its_shares_of_the_epochs():
    found = factors("multistep", 4, marks=(0.5, 0.75), gamma=0.5)

    assert found == [1, 1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1), (799, 1), (800, 0.5), (900, 0.25), (949, 0.25), (950, 0.125)]
)
def test_cifar10_halves_the_rate_at_800_900_and_950(epoch, factor):
    assert of(epoch, "edc-cifar10-1") == factor


@pytest.mark.parametrize(
    ("name", "epoch", "factor"),
    [
        ("edc-in1k-1", 150, 0.8535534),
        ("edc-in1k-script-1", 150, 0.75),
        ("edc-cifar100-1", 900, 0.5782172),
        ("edc-cifar100-script-1", 900, 0.0629410),
        ("rded-cifar10-1", 150, 0.8535534),
        ("sre2l-cifar100-1", 200, 0.5),
        ("gvbsm-in1k-1", 150, 0.5),
        ("edc-digits-1", 50, 0.8535534),
        ("edc-digits-cosine-1", 50, 0.5),
    ],
)
def test_rates_of_the_protocols_by_hand(name, epoch, factor):
    assert of(epoch, name) == pytest.approx(factor, abs=1e-6)


def test_the_rate_of_an_epoch_holds_for_all_its_steps():
    protocol = protocols.get("edc-tiny-1")
    length = protocol.length(2000, 200)
    rates = {protocol.rate(step, length) for step in range(length.per_epoch)}

    assert length.per_epoch == 20
    assert len(rates) == 1


def test_alrs_lowers_the_rate_after_epochs_that_hardly_changed():
    assert settling_after([1.0, 0.99, 0.5, 0.495, 0.494]) == [1, 0.5, 0.5, 0.25, 0.125]


def test_alrs_goes_by_the_mean_of_an_epoch():
    # sums of 3 steps differ by 0.045, means by 0.015
    assert settling_after([1.0, 0.985], steps=3) == [1, 0.5]


def test_alrs_goes_on_from_a_snapshot_within_an_epoch():
    whole = settling_after([1.0, 0.985], steps=2)
    pace, again = Settling(0.5, CPU), Settling(0.5, CPU)
    for _ in range(2):
        pace.saw(torch.tensor(1.0))
    pace.ends(2)
    pace.saw(torch.tensor(0.985))

    restore(capture(3, **pace.parts), **again.parts)
    again.saw(torch.tensor(0.985))
    again.ends(2)

    assert again.factor == whole[-1] == 0.5


def test_the_rate_of_alrs_starts_as_it_is():
    protocol = TINY.model_copy(update={"schedule": "alrs", "drop_after": None, "gamma": 0.9})
    length = protocol.length(12, 3)

    assert {protocol.rate(step, length) for step in range(length.steps)} == {0.05}
