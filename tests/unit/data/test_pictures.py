import io

import numpy as np
import pytest
from PIL import Image

from distillhub.data.pictures import eight_bit, natural_channels, pixels_of


def _stored(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def test_16_bit_grey_is_scaled_and_rounded() -> None:
    levels = np.array([[0, 128, 129, 32768, 65535]], dtype=np.uint16)  # 128 / 257 = 0.498
    image = _stored(Image.fromarray(levels))

    assert pixels_of(image, 1, None, "crop")[0].tolist() == [[0, 0, 1, 128, 255]]


def test_transparency_is_laid_over_white() -> None:
    image = _stored(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))

    assert pixels_of(image, 3, None, "crop").ravel().tolist() == [255, 255, 255]


def test_a_transparent_palette_entry_becomes_white() -> None:
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    image = _stored(palette, transparency=0)

    assert pixels_of(image, 3, None, "crop").ravel().tolist() == [255, 255, 255]


def test_a_palette_of_colors_gives_its_colors() -> None:
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])

    assert pixels_of(_stored(palette), 3, None, "crop").ravel().tolist() == [10, 200, 30]


def test_cmyk_becomes_rgb() -> None:
    image = _stored(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")  # cyan

    red, green, blue = pixels_of(image, 3, None, "crop").mean(axis=(1, 2))
    assert red < 60
    assert min(green, blue) > 150


def test_one_bit_images_are_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)

    assert pixels_of(_stored(image), 1, None, "crop").ravel().tolist() == [0, 255]


def test_grey_as_color_repeats_the_level() -> None:
    assert pixels_of(Image.new("L", (1, 1), 7), 3, None, "crop").ravel().tolist() == [7, 7, 7]


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="no known white"):
        eight_bit(Image.new("F", (1, 1)), 1)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_channels_follow_the_mode(mode: str, channels: int) -> None:
    assert natural_channels(Image.new(mode, (1, 1))) == channels


def test_a_palette_of_greys_is_grey() -> None:
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])

    assert natural_channels(palette) == 1


def test_the_exif_orientation_is_followed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image = _stored(Image.new("L", (4, 2)), "JPEG", exif=exif)

    assert pixels_of(image, 1, None, "crop").shape == (1, 4, 2)


def test_crop_takes_the_centered_square() -> None:
    levels = np.repeat(np.array([[0, 0, 90, 90, 90, 90, 0, 0]], dtype=np.uint8), 4, axis=0)

    assert pixels_of(Image.fromarray(levels), 1, 4, "crop").tolist() == [[[90] * 4] * 4]


def test_squash_takes_the_whole_picture() -> None:
    levels = np.repeat(np.array([[0] * 4 + [200] * 4], dtype=np.uint8), 4, axis=0)

    squashed = pixels_of(Image.fromarray(levels), 1, 4, "squash")[0, 0]
    assert squashed[0] < 30
    assert squashed[3] > 170


def test_a_picture_of_the_wanted_size_is_not_resampled() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)

    assert np.array_equal(pixels_of(Image.fromarray(levels), 1, 8, "crop")[0], levels)


def test_a_picture_that_ends_early_is_an_error() -> None:
    file = io.BytesIO()
    Image.effect_noise((32, 32), 90).save(file, "PNG")

    with pytest.raises(OSError, match="truncated"):
        pixels_of(Image.open(io.BytesIO(file.getvalue()[:400])), 1, None, "crop")
