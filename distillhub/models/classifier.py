"""A network with its normalisation: images in [0, 1] go in, logits come out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distillhub.models.network import Network
from distillhub.ops.pixels import denormalize, normalize, resize


class Classifier(nn.Module):
    """A network that normalises by itself.

    Its state dict is that of `net` under `net.`; mean and standard deviation are kept apart
    (`weights.WeightsRecord`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Network,
        *,
        arch: str,
        input_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        channels = input_shape[0]
        if len(mean) != channels or len(std) != channels:
            raise ValueError(f"{len(mean)} means and {len(std)} deviations for {channels} channels")
        if class_names is not None and len(class_names) != net.head.out_features:
            raise ValueError(f"{len(class_names)} class names for {net.head.out_features} outputs")
        self.net = net
        self.arch = arch
        self.input_shape = input_shape
        self.class_names = None if class_names is None else tuple(class_names)
        self.mean_values = tuple(float(value) for value in mean)
        self.std_values = tuple(float(value) for value in std)
        for name, values in (("mean", self.mean_values), ("std", self.std_values)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.net.head.out_features

    @property
    def embed_dim(self) -> int:
        """Width D of `features`."""
        return self.net.head.in_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1]."""
        return self.normalized(self.normalize(images))

    def at_own_size(self, images: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1] of any size, resized to the network's."""
        logits: Tensor = self(resize(images, self.input_shape[1:]))
        return logits

    def normalized(self, x: Tensor) -> Tensor:
        """Logits of images that are normalised already."""
        logits: Tensor = self.net(x)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees, [n, D], for images in [0, 1]."""
        return self.features_normalized(self.normalize(images))

    def features_normalized(self, x: Tensor) -> Tensor:
        """The same for images that are normalised already."""
        return self.net.embed(x)

    def normalize(self, images: Tensor) -> Tensor:
        """From [0, 1] to the network's own space."""
        return normalize(images, self.mean, self.std)

    def denormalize(self, x: Tensor) -> Tensor:
        """From the network's own space back to [0, 1], without clipping."""
        return denormalize(x, self.mean, self.std)

    def freeze(self) -> "Classifier":
        """Eval mode and no gradients for the weights; returns itself."""
        self.eval()
        self.requires_grad_(requires_grad=False)
        return self
