"""Names and sizes of diffusion transformers, and what one costs; needs no library."""

import re
from typing import NamedTuple

_NAME = re.compile(r"dit-w(\d+)-d(\d+)-h(\d+)-p(\d+)")
TIME_FEATURES = 256
"""Sines and cosines of a timestep, as in the authors' code."""


class DitArch(NamedTuple):
    """The sizes of a diffusion transformer."""

    width: int
    depth: int
    heads: int
    patch: int

    def flops(self, channels: int, out_channels: int, side: int) -> float:
        """FLOPs of one forward pass of one row, 2 per multiply-add.

        Args:
            channels: Of the latents.
            out_channels: Of the prediction: twice as many with a learned variance.
            side: Of the latents.
        """
        tokens, w, area = (side // self.patch) ** 2, self.width, self.patch**2
        embedding = TIME_FEATURES * w + w * w
        block = tokens * (12 * w * w + 2 * tokens * w) + 6 * w * w + embedding
        ends = tokens * w * area * (channels + out_channels) + 2 * w * w + embedding
        return 2.0 * (self.depth * block + ends)


def parse_dit(name: str) -> DitArch:
    """The sizes in a name such as `dit-w128-d4-h4-p2`: width, depth, heads, patch.

    Raises:
        ValueError: If it is no such name, or the heads do not divide the width.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"'{name}' is no diffusion transformer; write width, depth, heads and patch, "
            "e.g. dit-w128-d4-h4-p2"
        )
    arch = DitArch(*(int(number) for number in match.groups()))
    if min(arch) < 1:
        raise ValueError(f"'{name}' has a size of 0")
    if arch.width % arch.heads or arch.width // arch.heads % 2:
        raise ValueError(f"the width {arch.width} is no even multiple of {arch.heads} heads")
    if arch.width % 4:
        raise ValueError(f"the width {arch.width} is no multiple of 4")
    return arch


def check_side(arch: DitArch, height: int, width: int) -> None:
    """Refuse latents that the transformer cannot cut into patches.

    Raises:
        ValueError: If they are not square, or the patch does not divide their side.
    """
    if height != width:
        raise ValueError(f"a diffusion transformer needs square images, not {height} x {width}")
    if height % arch.patch:
        raise ValueError(f"a patch of {arch.patch} does not divide the side {height}")


def check_latents(
    latent: tuple[int, int, int], image: tuple[int, int, int], vae: tuple[int, int] | None
) -> None:
    """Refuse a transformer whose latents are not those of the images.

    Args:
        latent: (c, h, w) that the transformer takes.
        image: (C, H, W) of the data set.
        vae: Channels of an autoencoder's latents and pixels per latent; None: latents are pixels.

    Raises:
        ValueError: If they do not fit together.
    """
    if vae is None:
        if latent != image:
            raise ValueError(
                f"the transformer takes {latent}, without an autoencoder images are {image}"
            )
        return
    channels, factor = vae
    wanted = (channels, image[1] // factor, image[2] // factor)
    if latent != wanted or image[1] % factor or image[2] % factor:
        raise ValueError(
            f"the transformer's latents are {latent}, but the autoencoder turns images of "
            f"{image[1]} x {image[2]} pixels into {wanted}"
        )
