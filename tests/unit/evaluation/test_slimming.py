"""Network slimming: the cut network is smaller, and computes what the silenced one does."""

import pytest
import torch

from distillhub.evaluation.feed import Space, hard_feed
from distillhub.evaluation.protocols import get
from distillhub.evaluation.runner import score
from distillhub.evaluation.slimming import (
    Kept,
    chain,
    choose,
    cost,
    masked,
    point,
    pruned,
    shorter,
    slim,
    sparse,
    train_sparse,
)
from distillhub.models.zoo import build
from distillhub.records.uses import SlimRun
from tests.unit.evaluation.sets import MEAN, STD, TINY, Pictures

SPACE = Space((8, 8), MEAN, STD, torch.device("cpu"))


def network(arch: str = "convnet2-w8-bn", *, side: int = 8, channels: int = 1, seed: int = 0):
    return build(
        arch,
        num_classes=3,
        channels=channels,
        height=side,
        width=side,
        mean=MEAN * channels,
        std=STD * channels,
        seed=seed,
    )


def lived_in(net, seed: int = 0):
    """The network with statistics, scales and shifts as a training leaves them, in eval mode."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, norm in chain(net):
            for values, low in ((norm.weight, -1.0), (norm.bias, -1.0), (norm.running_var, 0.5)):
                values.copy_(low + 2 * torch.rand(values.shape, generator=draw))
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=draw))
    return net.eval()


def finish(work, seen=id):
    while True:
        try:
            seen(next(work))
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize(
    ("arch", "side", "channels"),
    [
        ("vgg11-bn", 32, 3),
        ("vgg11-bn", 28, 1),
        ("alexnet-bn", 32, 3),
        ("convnet3-w16-bn", 16, 1),
        ("convnet2-w8-bn-swish-maxpool", 8, 3),
    ],
)
def test_the_cut_network_gives_the_logits_of_the_silenced_one(arch, side, channels):
    net = lived_in(network(arch, side=side, channels=channels))
    images = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    kept = choose([link.norm.weight for link in chain(net)], 0.6)

    with torch.no_grad():
        silent, small = masked(net, kept)(images), pruned(net, kept)(images)
        whole = net(images)

    # Sums over fewer terms round differently; the terms that are left out are zeros.
    assert torch.allclose(small, silent, rtol=1e-4, atol=1e-4 * float(silent.abs().max()))
    assert not torch.allclose(silent, whole, rtol=1e-2)


def test_the_cut_network_has_the_channels_that_were_kept_and_no_others():
    net = network("convnet2-w4-bn")  # 3x3 kernels; 8 + 4 pixels are halved to 5, then to 2
    kept = Kept((torch.tensor([True, False, True, False]), torch.tensor([False] * 3 + [True])), ())

    small = pruned(net, kept)

    assert [tuple(link.conv.weight.shape) for link in chain(small)] == [(2, 1, 3, 3), (1, 2, 3, 3)]
    # convolutions 2*9 + 2 and 2*9 + 1, norms 4 and 2, head 3 * (1 * area) + 3
    area = net.net.head.in_features // 4
    assert cost(small).parameters == 20 + 19 + 4 + 2 + 3 * area + 3
    assert small.embed_dim == area


def test_flops_are_two_per_multiply_add():
    net = network("convnet1-w4-bn")  # one input channel pads by 3: maps of 12 x 12, pooled to 6 x 6

    assert cost(net).flops == 2 * (12 * 12 * 4 * 9 + 3 * 4 * 6 * 6)


def test_cutting_leaves_the_network_and_the_global_generator_as_they_were():
    net = lived_in(network())
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()

    small = pruned(net, choose([link.norm.weight for link in chain(net)], 0.5))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()

    assert all(before[name].equal(value) for name, value in net.state_dict().items())
    assert torch.get_rng_state().equal(state)


def test_the_smallest_scales_of_the_whole_network_go():
    kept = choose([torch.tensor([0.1, -0.9, 0.5]), torch.tensor([-0.2, 0.8, 0.3, 0.7])], 3 / 7)

    assert [mask.tolist() for mask in kept.masks] == [
        [False, True, True],
        [False, True, False, True],
    ]
    assert kept.pruned == pytest.approx(3 / 7)
    assert kept.spared == ()


def test_of_equal_scales_the_first_go():
    kept = choose([torch.ones(4)], 0.5)

    assert kept.masks[0].tolist() == [False, False, True, True]


def test_a_layer_that_would_be_emptied_keeps_its_largest_channel_and_is_named():
    kept = choose([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, -0.3, 0.2])], 0.5)

    assert kept.channels == (3, 1)
    assert kept.masks[1].tolist() == [False, True, False]
    assert kept.spared == (1,)
    assert kept.pruned == pytest.approx(2 / 6)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_outside_of_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        choose([torch.ones(4)], ratio)


@pytest.mark.parametrize("arch", ["convnet2-w8", "mlp", "vgg11"])
def test_a_network_without_batch_norm_is_refused(arch):
    net = network(arch, side=32)

    with pytest.raises(ValueError, match=f"{arch} has no batch norm"):
        chain(net)


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenetv2", "wrn16-2", "convnet2-w8-bn-sigmoid", "shufflenetv2"]
)
def test_a_network_that_is_no_chain_of_silent_layers_is_refused(arch):
    net = network(arch, side=32)

    with pytest.raises(ValueError, match="not one chain"):
        chain(net)


def test_the_norm_of_the_scales_pulls_each_of_them_by_its_sign():
    net = lived_in(network())
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def gradients():
        net.zero_grad()
        torch.autograd.backward(net(images).square().sum())
        return [parameter.grad.clone() for parameter in net.parameters()]

    plain = gradients()
    with sparse(net, 0.25):
        pulled = gradients()
    after = gradients()

    scales = {id(link.norm.weight) for link in chain(net)}
    for parameter, before, now in zip(net.parameters(), plain, pulled, strict=True):
        added = 0.25 * parameter.sign() if id(parameter) in scales else torch.zeros(())
        assert torch.allclose(now - before, added.expand_as(now), atol=1e-4)
    assert all(one.equal(other) for one, other in zip(plain, after, strict=True))


def test_scales_shrink_in_a_training_with_the_norm():
    def mean_scale(sparsity: float) -> float:
        net = network()
        feed = hard_feed(Pictures(12), SPACE)
        finish(train_sparse(net, feed, TINY, sparsity=sparsity, seed=0, what="test"))
        return float(torch.cat([link.norm.weight.detach().abs() for link in chain(net)]).mean())

    assert mean_scale(0.1) < mean_scale(0.0) - 0.05


def slimmed(state=None, seen=id, net=None):
    return finish(
        slim(
            net or lived_in(network()),
            0.5,
            arm="syn_hard",
            seed=3,
            feed=hard_feed(Pictures(12), SPACE),
            test=Pictures(30, seed=9),
            space=SPACE,
            protocol=TINY,
            what="test",
            state=state,
        ),
        seen,
    )


def accuracy(net) -> float:
    return score(net, Pictures(30, seed=9), SPACE, classes=3, what="test").top1


def test_a_slimmed_network_is_tested_before_and_after_fine_tuning():
    net = network(seed=2)
    finish(train_sparse(net, hard_feed(Pictures(12), SPACE), TINY, sparsity=0, seed=0, what=""))
    kept = choose([link.norm.weight for link in chain(net)], 0.5)
    silent, left = masked(net, kept), sum(int(mask.sum()) for mask in kept.masks)

    run = slimmed(net=net)

    assert (run.ratio, run.steps) == (0.5, TINY.steps)
    assert (run.pruned, sum(run.channels)) == (1 - left / 16, left)
    assert accuracy(net) > accuracy(silent) + 0.1  # so that it matters which one is tested
    assert run.top1_pruned == accuracy(silent)
    assert run.top1 > run.top1_pruned + 0.1


def test_a_slimming_that_was_cut_goes_on_and_ends_like_one_that_was_not():
    snapshots, done = {}, []

    def keep(report):
        snapshots[report.done] = report.snapshot()

    whole = slimmed(seen=keep)

    assert slimmed(state=snapshots[10], seen=lambda report: done.append(report.done)) == whole
    assert done == [20, 24]


def test_a_shorter_training_lowers_its_rate_at_the_same_share_of_the_way():
    short = shorter(get("digits-1"), 0.2, 100, 10)

    assert (short.steps, short.drop_after) == (100, 50)
    assert shorter(get("digits-1"), 1.0, 100, 10) is get("digits-1")


def test_a_shorter_training_of_epochs_counts_its_steps():
    short = shorter(get("lowres-1"), 0.1, 600, 10)  # 3 steps per epoch, 1001 epochs

    length = short.length(600, 10)
    assert (length.steps, length.drop) == (300, 151)


def made(arm: str, seed: int, ratio: float, top1: float, parameters: int = 10) -> SlimRun:
    return SlimRun(
        arm=arm,
        seed=seed,
        ratio=ratio,
        channels=(4,),
        pruned=ratio,
        spared=(),
        parameters=parameters,
        flops=2 * parameters,
        top1_pruned=top1 / 2,
        top1=top1,
        steps=1,
    )


def test_a_point_pairs_the_runs_of_its_ratio_by_seed():
    # Gains are 0.1 and 0.3; the runs of the other ratio do not count.
    runs = [
        made("syn_hard", 0, 0.5, 0.6, 10),
        made("syn_hard", 1, 0.5, 0.8, 20),
        made("rnd_hard", 0, 0.5, 0.5),
        made("rnd_hard", 1, 0.5, 0.5),
        made("syn_hard", 0, 0.9, 0.1),
    ]

    found = point(0.5, ("syn_hard", "rnd_hard"), runs)

    assert found.gain.value == pytest.approx(0.2)
    assert found.top1["syn_hard"].value == pytest.approx(0.7)
    assert found.top1_pruned["syn_hard"].value == pytest.approx(0.35)
    assert found.parameters == {"syn_hard": 15.0, "rnd_hard": 10.0}
    assert found.flops["syn_hard"] == 30.0
