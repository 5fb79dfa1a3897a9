"""The forward pass without gradients fuses the first block; it must not change a number."""

import pytest
import torch

from distillhub.models.convnet import ConvNet, Pooling


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pooling", ["avgpool", "nopool"])
def test_embeddings_with_and_without_gradients_agree(channels: int, pooling: Pooling) -> None:
    net = ConvNet(5, channels, 12, 12, depth=2, filters=6, pooling=pooling)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    x = torch.randn(4, channels, 12, 12, generator=generator)

    recorded = net.embed(x)
    with torch.no_grad():
        unrecorded = net.embed(x)

    torch.testing.assert_close(unrecorded, recorded.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["bn", "gn", "none"])
def test_other_norms_take_the_plain_layers(norm) -> None:
    net = ConvNet(5, 1, 12, 12, depth=2, filters=8, norm=norm).eval()
    x = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))

    recorded = net.embed(x)
    with torch.no_grad():
        unrecorded = net.embed(x)

    assert torch.equal(unrecorded, recorded)
