"""Averaged weights: what is tested, what is trained, what a snapshot holds."""

import pytest
import torch
from torch import nn

from distillhub.evaluation.average import Average
from distillhub.evaluation.feed import Space, hard_feed
from distillhub.evaluation.training import fit
from distillhub.models.zoo import build
from tests.unit.evaluation.sets import MEAN, STD, TINY, Pictures

SPACE = Space((8, 8), MEAN, STD, torch.device("cpu"))
WITH_BN = "convnet1-w4-bn"


def student():
    return build(
        WITH_BN, num_classes=3, channels=1, height=8, width=8, mean=MEAN, std=STD, seed=5
    )  # fmt: skip


def trained(ema, seen=lambda *_: None, state=None):
    net = student()
    protocol = TINY.model_copy(update={"ema": ema})
    for report in fit(net, hard_feed(Pictures(), SPACE), protocol, seed=0, what="x", state=state):
        seen(report, net)
    return net


def parameters(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def buffers(net):
    return {name: b.clone() for name, b in net.named_buffers()}


def equal(one, other):
    return all(one[name].equal(other[name]) for name in one | other)


def test_the_average_of_two_steps_by_hand():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = Average(net, 0.75)

    for value in (2.0, 4.0):
        nn.init.constant_(net.weight, value)
        average.follow()

    with average.shown():
        assert net.weight.item() == 1.9375  # 0.75 (0.75 x 1 + 0.25 x 2) + 0.25 x 4
    assert net.weight.item() == 4.0


def test_14_09_rate_zero_is_the_student():
    plain, averaged = trained(None), trained(0.0)

    assert equal(parameters(plain), parameters(averaged))


def test_14_09_rate_one_is_the_first_weights():
    assert equal(parameters(trained(1.0)), parameters(student()))


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_14_09_batch_norm_buffers_are_those_of_the_student(rate):
    plain, averaged = trained(None), trained(rate)

    assert not equal(parameters(plain), parameters(averaged))
    assert not equal(buffers(plain), buffers(student()))
    assert equal(buffers(plain), buffers(averaged))


def test_every_report_shows_the_average():
    shown = {}

    trained(1.0, lambda report, net: shown.update({report.done: parameters(net)}))

    assert sorted(shown) == [10, 20, 24]
    assert all(equal(seen, parameters(student())) for seen in shown.values())


def test_a_snapshot_holds_the_weights_that_are_trained():
    states, plain = {}, {}

    trained(0.9, lambda report, _: states.update({report.done: report.snapshot()}))
    trained(None, lambda report, _: plain.update({report.done: report.snapshot()}))

    for done, state in states.items():
        own = {name: value for name, value in state.items() if name.startswith(("net/", "opt/"))}
        assert all(torch.as_tensor(plain[done][n]).equal(torch.as_tensor(own[n])) for n in own)


@pytest.mark.parametrize("cut", [10, 20, 24])
def test_a_training_that_was_cut_has_the_same_average(cut):
    states = {}
    whole = trained(0.9, lambda report, _: states.update({report.done: report.snapshot()}))

    resumed = trained(0.9, state=states[cut])

    assert equal(whole.state_dict(), resumed.state_dict())


def test_a_snapshot_that_is_taken_late_is_of_the_same_weights():
    reports, states = [], []

    def keep(report, _net):
        reports.append(report)
        states.append(report.snapshot())

    trained(0.9, keep)

    late = reports[-1].snapshot()
    assert {n for n in late if n.startswith("ema/")}
    assert all(torch.as_tensor(late[n]).equal(torch.as_tensor(states[-1][n])) for n in late)


@pytest.mark.parametrize("outside", [False, True])
def test_hiding_leaves_the_network_as_it_was(outside):
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = Average(net, 1.0)
    nn.init.constant_(net.weight, 2.0)
    if outside:
        average.show()

    with average.hidden():
        assert net.weight.item() == 2.0

    assert net.weight.item() == (1.0 if outside else 2.0)
