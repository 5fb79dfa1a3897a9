import pytest
import torch
from torch import nn

from distillhub.models.convnet import ConvNet
from distillhub.models.taps import tap


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_tap_sees_the_input_of_every_layer_of_the_kind():
    net, x = ConvNet(3, 1, 8, 8, depth=2, filters=4), torch.rand(2, 1, 8, 8)

    with tap(net, nn.Conv2d) as seen:
        net(x)

    assert list(seen) == ["blocks.0", "blocks.4"]
    assert torch.equal(seen["blocks.0"], x)


def test_what_a_tap_sees_is_part_of_the_graph():
    net, x = ConvNet(3, 1, 8, 8, depth=2, filters=4, norm="bn"), torch.rand(2, 1, 8, 8)
    x.requires_grad_()

    with tap(net, nn.BatchNorm2d) as seen:
        net(x)

    assert torch.autograd.grad(seen["blocks.5"].sum(), x)[0].abs().sum() > 0


def test_no_hook_is_left_even_after_an_error():
    net = ConvNet(3, 1, 8, 8, depth=2, filters=4)

    with pytest.raises(RuntimeError), tap(net, (nn.Conv2d, nn.Linear)):
        net(torch.rand(2, 2, 8, 8))

    assert hooks(net) == 0


def test_a_model_without_such_a_layer_is_refused():
    with (
        pytest.raises(ValueError, match="ConvNet has no BatchNorm2d"),
        tap(ConvNet(3, 1, 8, 8, depth=1), nn.BatchNorm2d),
    ):
        pass
