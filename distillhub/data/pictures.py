"""One stored picture -> uint8 pixels of the wanted channels and size."""

import struct
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distillhub.data.specs import Channels
from distillhub.errors import Fault

Pixels = NDArray[np.uint8]

CANNOT_DECODE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for bytes that are not a whole picture."""

_COLOR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def undecodable(where: str, error: Exception) -> Fault:
    """The fault of an image that is none, without the address of a buffer in memory."""
    text = str(error)
    reason = "not an image of a known kind" if "BytesIO" in text else text or type(error).__name__
    return Fault(
        f"the image cannot be decoded: {reason}",
        where,
        "replace or remove this image, then resolve the recipe again",
    )


def natural_channels(image: Image.Image) -> Channels:
    """1 for a grey picture, 3 for a colored one; a palette of greys is grey."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.convert("RGB"))
        grey = bool((palette == palette[..., :1]).all())
        return 1 if grey else 3
    return 3 if image.mode in _COLOR else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; `datasets` does the same."""
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """The picture in mode L or RGB.

    16-bit greys are scaled and rounded (65535 -> 255), transparency is laid over white, every other
    mode is converted as Pillow does; the first frame of an animation counts.

    Raises:
        ValueError: If the mode holds no 8- or 16-bit picture.
    """
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("grey levels beyond 16 bits")
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("a floating-point picture has no known white")
    elif image.has_transparency_data:
        solid = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", solid.size, (255, 255, 255, 255)), solid)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def fitted(image: Image.Image, size: int, resize: Literal["crop", "squash"]) -> Image.Image:
    """The picture as a square of `size` pixels, resampled bilinearly with antialiasing.

    Args:
        image: Mode L or RGB.
        size: Side in pixels.
        resize: `crop`: the largest centered square becomes the picture; `squash`: all of it does.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    box = (0.0, 0.0, float(width), float(height))
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def pixels_of(
    image: Image.Image, channels: int, size: int | None, resize: Literal["crop", "squash"]
) -> Pixels:
    """The uint8 [C, H, W] pixels of an opened picture.

    Raises:
        ValueError: If the picture cannot be turned into 8-bit grey or RGB.
        OSError: If its bytes end early.
    """
    image = eight_bit(upright(image), channels)
    if size is not None:
        image = fitted(image, size, resize)
    array: Pixels = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
