"""The pictures of a card."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillhub.packaging.figures import (
    Panel,
    Point,
    Row,
    arms_plot,
    cell_scale,
    contact_sheet,
    layout,
    shown_classes,
    wrong_tiles,
)


def rows(classes: int = 2, side: int = 8, channels: int = 1) -> list[Row]:
    shape = (3, side, side, channels)
    generator = np.random.default_rng(0)
    return [
        Row(f"class {c}", generator.integers(0, 256, shape, dtype=np.uint8)) for c in range(classes)
    ]


PANEL = Panel(
    "digits-1, convnet3",
    (Point("syn_hard", 0.8, (0.7, 0.9), (0.75, 0.85)), Point("rnd_hard", 0.6, None, (0.6,))),
    0.95,
)


def test_pixels_of_small_images_are_enlarged_by_whole_numbers():
    assert [cell_scale(side, side) for side in (8, 16, 28, 32, 64)] == [9, 5, 3, 3, 2]


def test_large_images_shrink_to_128_pixels():
    assert cell_scale(224, 256) == 0.5


def test_every_pixel_of_a_small_image_is_a_square_on_the_sheet(tmp_path: Path):
    made = rows(1)
    contact_sheet(made, tmp_path / "sheet.png")
    plan = layout(made)

    with Image.open(tmp_path / "sheet.png") as sheet:
        margin = sheet.width - plan.size[0]
        left, top = plan.corner(0, 1)
        seen = np.asarray(sheet.convert("L"))[top : top + 72, margin + left : margin + left + 72]

    assert np.array_equal(seen, np.kron(made[0].images[1, :, :, 0], np.ones((9, 9), np.uint8)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_its_own_images(tmp_path: Path, channels: int):
    contact_sheet(rows(channels=channels), tmp_path / "sheet.png")

    assert list(wrong_tiles(rows(channels=channels), tmp_path / "sheet.png")) == []


def test_a_sheet_of_other_images_is_told_by_class_and_column(tmp_path: Path):
    contact_sheet(rows(), tmp_path / "sheet.png")
    other = rows()
    other[1].images[2, 0, 0] ^= 255

    assert list(wrong_tiles(other, tmp_path / "sheet.png")) == [("class 1", 2)]


def test_of_a_thousand_classes_twenty_are_shown_with_the_first_and_the_last():
    shown = shown_classes(1000)

    assert (len(shown), len(set(shown)), shown[0], shown[-1]) == (20, 20, 0, 999)


def test_equal_images_give_an_equal_sheet(tmp_path: Path):
    for name in ("a", "b"):
        contact_sheet(rows(), tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_equal_figures_give_an_equal_plot(tmp_path: Path):
    for name in ("a", "b"):
        arms_plot([PANEL], tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_plot_names_neither_software_nor_time(tmp_path: Path):
    arms_plot([PANEL], tmp_path / "plot.png")

    with Image.open(tmp_path / "plot.png") as picture:
        assert set(picture.info) <= {"dpi"}
