import io

import pytest
import torch
from PIL import Image

from distillhub.data.codec import decode, encode, to_float, to_uint8
from distillhub.data.specs import Channels, ImageFormat

_EVERY_LEVEL = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_values_are_rounded_not_truncated() -> None:
    levels = torch.tensor([0.5, 1.49, 1.51, 254.6]) / 255

    assert to_uint8(levels).tolist() == [0, 1, 2, 255]  # 0.5 rounds to even


def test_values_outside_are_clamped() -> None:
    assert to_uint8(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([float("nan")]))


def test_every_level_survives_the_way_to_float_and_back() -> None:
    assert torch.equal(to_uint8(to_float(_EVERY_LEVEL)), _EVERY_LEVEL)


@pytest.mark.parametrize("codec", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_codecs_keep_every_pixel(codec: str, channels: Channels) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, channels, 9, 7), generator=generator, dtype=torch.uint8)

    files = encode(to_float(pixels), ImageFormat(codec=codec))

    assert torch.equal(decode(files, channels), pixels)


@pytest.mark.parametrize("codec", ["png", "webp", "jpeg"])
def test_equal_images_give_equal_bytes(codec: str) -> None:
    images = to_float(_EVERY_LEVEL).expand(2, 3, 16, 16)

    first, second = encode(images, ImageFormat(codec=codec))

    assert first == second


def test_a_lower_jpeg_quality_takes_fewer_bytes() -> None:
    image = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))

    fine, coarse = (encode(image, ImageFormat(codec="jpeg", quality=q))[0] for q in (95, 30))

    assert len(coarse) < len(fine)


def test_a_grey_image_is_stored_as_grey() -> None:
    stored = encode(to_float(_EVERY_LEVEL), ImageFormat())[0]

    assert Image.open(io.BytesIO(stored)).mode == "L"


def test_an_image_that_is_none_is_named_by_its_position() -> None:
    good = encode(to_float(_EVERY_LEVEL), ImageFormat())[0]

    with pytest.raises(ValueError, match="image 1 cannot be decoded"):
        decode([good, b"no image"], 1)


def test_images_of_two_sizes_are_refused() -> None:
    files = [encode(torch.zeros(1, 1, side, side), ImageFormat())[0] for side in (8, 9)]

    with pytest.raises(ValueError, match="image 1 has shape"):
        decode(files, 1)


def test_no_files_give_no_images() -> None:
    assert decode([], 3).shape == (0, 3, 0, 0)


def test_a_batch_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(4, 4\)"):
        encode(torch.zeros(4, 4), ImageFormat())
