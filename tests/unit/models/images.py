"""Two classes of noise, one brighter: a set that every network learns in a few steps."""

import torch
from torch import Tensor


class BrightOrDark:
    """[N, channels, 8, 8]; label 1 is brighter by 0.4."""

    class_names = ("dark", "bright")
    height = width = 8

    def __init__(self, count: int = 48, *, seed: int = 0, channels: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.channels = channels
        self.mean, self.std = (0.5,) * channels, (0.25,) * channels
        self.labels = torch.arange(count) % 2
        noise = 0.6 * torch.rand(count, channels, 8, 8, generator=generator)
        self._images = noise + 0.4 * self.labels.view(-1, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Tensor) -> Tensor:
        return self._images[rows]
