"""Layers that stand in for networks where only their time or their FLOPs matter."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillhub.models.dit_arch import DitArch

Family = Literal["transformer", "convolution"]


class Blocks(nn.Module):
    """Layers of the sizes of a diffusion transformer, for its time alone."""

    def __init__(self, arch: DitArch, latent: tuple[int, int, int]) -> None:
        super().__init__()
        width, area = arch.width, arch.patch**2
        self.heads, self.patch = arch.heads, arch.patch
        self.enter = nn.Linear(latent[0] * area, width)
        self.leave = nn.Linear(width, 2 * latent[0] * area)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "condition": nn.Sequential(nn.Linear(256, width), nn.SiLU(),
                                               nn.Linear(width, width), nn.SiLU(),
                                               nn.Linear(width, 6 * width)),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"),
                                         nn.Linear(4 * width, width)),
                }
            )
            for _ in range(arch.depth)
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """Latents [n, c, h, w] -> tokens [n, t, 2 * c * patch**2]."""
        n, width = len(z), self.leave.in_features
        x = self.enter(functional.unfold(z, self.patch, stride=self.patch).transpose(1, 2))
        time_features = z.new_zeros(n, 256)
        for block in self.blocks:
            parts = block["condition"](time_features)[:, None].chunk(6, dim=2)  # type: ignore[index]
            seen = functional.layer_norm(x, (width,)) * (1 + parts[0]) + parts[1]
            q, k, v = (
                part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part in block["qkv"](seen).chunk(3, dim=2)  # type: ignore[index]
            )
            found = functional.scaled_dot_product_attention(q, k, v)
            x = x + parts[2] * block["out"](found.transpose(1, 2).flatten(2))  # type: ignore[index]
            seen = functional.layer_norm(x, (width,)) * (1 + parts[3]) + parts[4]
            x = x + parts[5] * block["mlp"](seen)  # type: ignore[index]
        made: Tensor = self.leave(x)
        return made


def count_flops(net: nn.Module, x: Tensor) -> float:
    """FLOPs of the convolutions and matrix products of a network on `x`, 2 per multiply-add."""
    total = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * out.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += 2 * out.numel() * layer.in_features

    handles = [layer.register_forward_hook(add) for layer in net.modules()]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return float(total)


def standard(family: Family) -> tuple[nn.Module, Tensor]:
    """Layers whose speed stands for their kind, and their input."""
    if family == "transformer":
        return nn.Sequential(nn.Linear(768, 3072), nn.GELU("tanh"), nn.Linear(3072, 768)), (
            torch.ones(128, 768)
        )
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)]
    return nn.Sequential(*layers), torch.ones(4, 64, 56, 56)
