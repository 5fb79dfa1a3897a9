import pytest
import torch

from distillhub.models import convnet
from distillhub.models.convnet import ConvNet


def network(*, channels: int = 1, side: int = 12) -> ConvNet:
    net = ConvNet(5, channels, side, side, depth=2, filters=6)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return net


def random_input(channels: int = 1, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, channels, side, side, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [12, 15])
def test_fused_blocks_equal_the_layers(channels: int, side: int):
    net, x = network(channels=channels, side=side), random_input(channels, side)

    torch.testing.assert_close(net.embed(x), net.blocks(x).flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_fused_gradients_equal_those_of_the_layers(channels: int):
    net, x = network(channels=channels), random_input(channels).requires_grad_()
    wanted = [x, *net.blocks.parameters()]

    ours = torch.autograd.grad(net.embed(x).square().sum(), wanted)

    theirs = torch.autograd.grad(net.blocks(x).square().sum(), wanted)
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_one, theirs_one, rtol=1e-4, atol=1e-4)


def test_pieces_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch):
    net, x = network(), random_input()
    whole = net.embed(x)

    monkeypatch.setattr(convnet, "PIECE_BYTES", 1)

    torch.testing.assert_close(net.embed(x), whole)


def test_batch_norm_sees_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convnet, "PIECE_BYTES", 1)
    net, x = ConvNet(5, 1, 12, 12, depth=2, filters=6, norm="bn"), random_input()

    embedded = net.embed(x)

    torch.testing.assert_close(embedded, net.blocks(x).flatten(1))


def test_a_hook_sees_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convnet, "PIECE_BYTES", 1)
    net, seen = network(), []
    net.blocks[4].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))

    net.embed(random_input())

    assert seen == [4]


def test_the_gradient_of_a_gradient_is_there():
    net, x = network(), random_input().requires_grad_()
    gradient = torch.autograd.grad(net.embed(x).square().sum(), x, create_graph=True)[0]

    again = torch.autograd.grad(gradient.square().sum(), x)[0]

    plain = torch.autograd.grad(net.blocks(x).square().sum(), x, create_graph=True)[0]
    expected = torch.autograd.grad(plain.square().sum(), x)[0]
    torch.testing.assert_close(
        again / expected.norm(), expected / expected.norm(), rtol=0, atol=1e-4
    )


def test_bfloat16_autocast_runs_the_layers():
    net, x = network(), random_input()

    with torch.autocast("cpu", torch.bfloat16):
        embedded = net.embed(x)

    torch.testing.assert_close(embedded.float(), net.blocks(x).flatten(1), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("filters", [6, 96])
def test_no_gradient_and_gradient_give_the_same_numbers(filters: int):
    net, x = ConvNet(5, 3, 12, 12, depth=2, filters=filters), random_input(3)

    with torch.no_grad():
        unrecorded = net.embed(x)

    torch.testing.assert_close(unrecorded, net.embed(x).detach(), rtol=1e-5, atol=1e-5)
