"""The random projector: its layers, the folded mean, and projectors side by side."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from distillhub.ops.projector import Projector, projector_flops

WIDTHS, GROUPS = (8, 8, 16, 16), 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(9))


def projector(shape: tuple[int, int, int], count: int = 1) -> Projector:
    return Projector.draw(shape, WIDTHS, GROUPS, [generator(seed) for seed in range(count)])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 12, 16), (4, 32, 32)])
def test_dsco_check_11_the_folded_mean_is_that_of_the_last_map(shape):
    net = projector(shape)
    x = latents(2, 3, *shape)

    assert torch.allclose(net.pooled(x), net(x).mean(dim=(3, 4)).transpose(1, 2), atol=1e-5)


def test_it_is_four_convolutions_with_a_leaky_relu_after_all_but_the_last():
    net = projector((2, 16, 16))
    layers = [nn.Conv2d(2, 8, 3, padding=1)]
    layers += [
        nn.Conv2d(before, width, 4, stride=2, padding=1, groups=GROUPS)
        for before, width in pairwise(WIDTHS)
    ]
    for layer, weight, bias in zip(layers, net.weights, net.biases, strict=True):
        assert layer.weight.shape == weight.shape
        layer.weight.data, layer.bias.data = weight, bias
    plain = nn.Sequential(
        layers[0], nn.LeakyReLU(), layers[1], nn.LeakyReLU(), layers[2], nn.LeakyReLU(), layers[3]
    )
    x = latents(1, 3, 2, 16, 16)

    assert torch.allclose(net(x)[0], plain(x[0]), atol=1e-6)


def test_the_published_widths_have_the_published_number_of_parameters():
    net = Projector.draw((4, 32, 32), (256, 512, 1024, 2048), 16, [generator()])

    assert sum(part.numel() for part in (*net.weights, *net.biases)) == 2_765_568


def test_weights_are_drawn_as_pytorch_draws_those_of_a_convolution():
    net = Projector.draw((4, 32, 32), (256, 512, 1024, 2048), 16, [generator()])

    for weight, bias in zip(net.weights, net.biases, strict=True):
        bound = weight[0].numel() ** -0.5
        for part in (weight, bias):
            assert part.abs().max() <= bound
            assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_projectors_side_by_side_are_those_of_their_classes(shape):
    both = projector(shape, count=2)
    each = [Projector.draw(shape, WIDTHS, GROUPS, [generator(seed)]) for seed in range(2)]
    x = latents(2, 3, *shape)

    alone = [net(x[k : k + 1]) for k, net in enumerate(each)]
    pooled = [net.pooled(x[k : k + 1]) for k, net in enumerate(each)]

    assert torch.allclose(both(x), torch.cat(alone), atol=1e-6)
    assert torch.allclose(both.pooled(x), torch.cat(pooled), atol=1e-6)
    assert torch.equal(Projector.join(each).pooled(x), both.pooled(x))


def test_projectors_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="2 projectors for 3 classes"):
        projector((1, 8, 8), count=2)(latents(3, 1, 1, 8, 8))


@pytest.mark.parametrize(
    ("shape", "widths", "what"),
    [((1, 4, 8), WIDTHS, "at least 8"), ((1, 8, 8), (8, 8, 16, 18), "multiples of 4")],
)
def test_latents_and_widths_that_do_not_fit_are_refused(shape, widths, what):
    with pytest.raises(ValueError, match=what):
        Projector.draw(shape, widths, GROUPS, [generator()])


def test_the_published_projector_takes_the_published_work():
    # dsco.md, section 9: 0.220 GFLOP per sample; folding the mean saves 28 %
    settings = (4, 32, 32), (256, 512, 1024, 2048), 16

    whole, folded = (projector_flops(*settings, pooled=pooled) for pooled in (False, True))

    assert whole == pytest.approx(0.220e9, rel=0.005)
    assert folded / whole == pytest.approx(0.72, abs=0.01)
