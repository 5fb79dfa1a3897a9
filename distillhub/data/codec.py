"""Images in [0, 1] <-> uint8 <-> encoded files; the only place where pixels are rounded."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillhub.data.pictures import CANNOT_DECODE, pixels_of
from distillhub.data.specs import Channels, ImageFormat

JPEG_QUALITY = 95
"""Where a recipe names none."""


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [0, 1] to the nearest of 256 levels; values outside are clamped.

    Args:
        images: Any shape, floating point.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    if not bool(torch.isfinite(images).all()):
        raise ValueError("an image holds NaN or infinite values")
    return images.detach().clamp(0, 1).mul(255).round_().to(torch.uint8)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 levels as float32 in [0, 1]; `to_uint8` gives them back exactly."""
    return pixels.to(torch.float32).div_(255)


def encode(images: Tensor, fmt: ImageFormat) -> list[bytes]:
    """Write images as files; the same pixels give the same bytes.

    Args:
        images: [n, C, H, W] in [0, 1], C in {1, 3}.
        fmt: Codec and quality; `png` and `webp` keep every level.

    Returns:
        One encoded file per image.

    Raises:
        ValueError: If the shape is another one, or a value is NaN or infinite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"[n, 1 or 3, H, W] is needed, not {tuple(images.shape)}")
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()  # [n, H, W, C]
    return [_encoded(image[..., 0] if image.shape[-1] == 1 else image, fmt) for image in pixels]


def _encoded(pixels: "np.ndarray[Any, np.dtype[np.uint8]]", fmt: ImageFormat) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    file = io.BytesIO()
    if fmt.codec == "png":
        image.save(file, "PNG", compress_level=9)
    elif fmt.codec == "webp":
        image.save(file, "WEBP", lossless=True, quality=100, method=4, exact=True)
    else:
        quality = fmt.quality if fmt.quality is not None else JPEG_QUALITY
        image.save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return file.getvalue()


def decode(files: Sequence[bytes], channels: Channels) -> Tensor:
    """The pixels of encoded images of one size.

    Args:
        files: Encoded images.
        channels: 1 grey, 3 RGB.

    Returns:
        uint8 [n, C, H, W]; [0, C, 0, 0] for no images.

    Raises:
        ValueError: If an image cannot be decoded or has another size; names its position.
    """
    decoded = []
    for place, stored in enumerate(files):
        try:
            with Image.open(io.BytesIO(stored)) as image:
                decoded.append(pixels_of(image, channels, None, "crop"))
        except CANNOT_DECODE as error:
            raise ValueError(f"image {place} cannot be decoded") from error
        if decoded[-1].shape != decoded[0].shape:
            raise ValueError(
                f"image {place} has shape {decoded[-1].shape}, image 0 has {decoded[0].shape}"
            )
    if not decoded:
        return torch.empty((0, channels, 0, 0), dtype=torch.uint8)
    return torch.from_numpy(np.stack(decoded))
