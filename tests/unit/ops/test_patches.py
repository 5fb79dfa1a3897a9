"""Crops: their boxes, cutting, choosing, tiling and shuffling. Numbers are of the paper's notes."""

import pytest
import torch
from torch.nn import functional

from distillhub.ops.patches import (
    cut,
    draw_whole_boxes,
    lowest,
    pad_centred,
    shuffle_patches,
    spans,
    tile,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- boxes


def test_boxes_lie_inside_the_image_and_cover_the_drawn_share() -> None:
    boxes = draw_whole_boxes(2000, 32, 32, generator=seeded(), scale=(0.25, 0.5), ratio=(1.0, 1.0))
    top, left, tall, wide = boxes.unbind(1)

    assert torch.equal(tall, wide)
    assert int(tall.min()) == 16  # sqrt(0.25) of 32
    assert int(tall.max()) == 23  # sqrt(0.5) of 32, rounded
    assert int(top.min()) == int(left.min()) == 0
    assert int((top + tall).max()) == int((left + wide).max()) == 32


def test_a_share_of_one_is_the_whole_square() -> None:
    boxes = draw_whole_boxes(5, 7, 7, generator=seeded(), scale=(1.0, 1.0), ratio=(1.0, 1.0))

    assert boxes.tolist() == [[0, 0, 7, 7]] * 5


def test_corners_are_spread_evenly_over_all_places() -> None:
    boxes = draw_whole_boxes(4000, 4, 4, generator=seeded(), scale=(0.25, 0.25), ratio=(1.0, 1.0))

    for corner in (boxes[:, 0], boxes[:, 1]):
        counts = torch.bincount(corner, minlength=3)  # sides of 2 in 4 pixels: 0, 1, 2
        assert len(counts) == 3
        assert int(counts.min()) > 1200  # 1333, standard deviation 30


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(4, 20, [0, 7, 4, 5]), (20, 4, [7, 0, 5, 4]), (10, 10, [0, 0, 10, 10])],
)
def test_where_no_draw_fits_the_largest_central_box_is_taken(
    height: int, width: int, box: list[int]
) -> None:
    drawn = draw_whole_boxes(2, height, width, generator=seeded(), scale=(3.0, 3.0))

    assert drawn.tolist() == [box] * 2


def test_the_ratio_of_the_sides_stays_in_its_range() -> None:
    boxes = draw_whole_boxes(500, 200, 200, generator=seeded(), scale=(0.1, 0.3))
    ratio = boxes[:, 3] / boxes[:, 2]

    assert 0.73 < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 1.36


# ---- cutting


@pytest.mark.parametrize("size", [(5, 5), (16, 12), (3, 20)])
def test_a_cut_is_the_antialiased_resize_of_its_box(size: tuple[int, int]) -> None:
    images = torch.rand(6, 3, 17, 14, generator=seeded())
    boxes = draw_whole_boxes(6, 17, 14, generator=seeded(1))

    found = cut(images, boxes, size)

    for image, (top, left, tall, wide), one in zip(images, boxes.tolist(), found, strict=True):
        part = image[None, :, top : top + tall, left : left + wide]
        wanted = functional.interpolate(
            part, size, mode="bilinear", antialias=True, align_corners=False
        )
        assert torch.allclose(one, wanted[0], atol=2e-6)


def test_a_box_of_the_whole_image_leaves_every_bit() -> None:
    images = torch.rand(2, 1, 9, 6, generator=seeded())

    assert torch.equal(cut(images, torch.tensor([[0, 0, 9, 6]] * 2), (9, 6)), images)


@pytest.mark.parametrize("box", [[0, 0, 9, 4], [-1, 0, 4, 4], [0, 5, 4, 4], [0, 0, 0, 4]])
def test_a_box_that_leaves_its_image_is_refused(box: list[int]) -> None:
    with pytest.raises(ValueError, match="leaves its image of 8 x 8 pixels"):
        cut(torch.rand(1, 1, 8, 8), torch.tensor([box]), (4, 4))


def test_as_many_boxes_as_images_are_needed() -> None:
    with pytest.raises(ValueError, match="do not fit images"):
        cut(torch.rand(2, 1, 8, 8), torch.tensor([[0, 0, 4, 4]]), (4, 4))


def test_padding_is_zero_and_the_odd_pixel_goes_below_and_right() -> None:
    padded = pad_centred(torch.ones(1, 1, 2, 3), (5, 6))

    expected = torch.zeros(5, 6)
    expected[1:3, 1:4] = 1
    assert torch.equal(padded[0, 0], expected)
    with pytest.raises(ValueError, match="do not fit into 2 x 2"):
        pad_centred(torch.ones(1, 1, 3, 2), (2, 2))


# ---- choosing


def test_a7_01_one_crop_per_image_the_lowest_losses_first() -> None:
    losses = torch.tensor([[0.5, 0.1], [0.3, 0.2], [0.05, 0.9]])

    best = lowest(losses, 2)

    assert best.image.tolist() == [2, 0]
    assert best.crop.tolist() == [0, 1]
    assert best.loss.tolist() == pytest.approx([0.05, 0.1])


def test_several_crops_of_an_image_count_where_that_is_allowed() -> None:
    losses = torch.tensor([[0.5, 0.1], [0.3, 0.2], [0.05, 0.9]])

    best = lowest(losses, 4, one_per_image=False)

    pairs = list(zip(best.image.tolist(), best.crop.tolist(), strict=True))
    assert pairs == [(2, 0), (0, 1), (1, 1), (1, 0)]


def test_equal_losses_go_to_the_lower_image_and_crop() -> None:
    best = lowest(torch.ones(5, 3), 3)

    assert best.image.tolist() == [0, 1, 2]
    assert best.crop.tolist() == [0, 0, 0]


def test_more_crops_than_there_are_and_losses_without_value_are_refused() -> None:
    with pytest.raises(ValueError, match="3 crops are asked for"):
        lowest(torch.rand(2, 4), 3)
    with pytest.raises(ValueError, match="not all finite"):
        lowest(torch.tensor([[0.0, torch.nan]]), 1)


# ---- tiling


@pytest.mark.parametrize(
    ("side", "factor", "parts"),
    [(8, 2, [4, 4]), (7, 2, [4, 3]), (32, 3, [11, 11, 10]), (5, 1, [5])],
)
def test_a7_05_parts_add_up_and_the_first_are_longer(
    side: int, factor: int, parts: list[int]
) -> None:
    assert spans(side, factor) == parts


def test_a_side_has_no_more_parts_than_pixels() -> None:
    with pytest.raises(ValueError, match="2 pixels cannot be cut into 3 parts"):
        spans(2, 3)


def test_a7_05_tiles_leave_no_gap_where_the_side_does_not_divide() -> None:
    patches = torch.arange(1.0, 10.0).view(1, 9, 1, 1, 1).expand(1, 9, 1, 2, 3)

    collage = tile(patches, (8, 10))[0, 0]

    tall, wide = torch.tensor([3, 3, 2]), torch.tensor([4, 3, 3])
    numbers = torch.arange(1.0, 10.0).view(3, 3)
    expected = numbers.repeat_interleave(tall, dim=0).repeat_interleave(wide, dim=1)
    assert torch.equal(collage, expected)


def test_a_patch_that_is_a_pixel_short_repeats_its_own() -> None:
    patches = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 4, 1, 2, 2)

    collage = tile(patches, (5, 4))[0, 0]

    assert collage[:3, :2].tolist() == [[1, 2], [1, 2], [3, 4]]
    assert collage[3:, 2:].tolist() == [[1, 2], [3, 4]]


def test_patches_must_fill_a_square() -> None:
    with pytest.raises(ValueError, match="3 patches do not fill a square"):
        tile(torch.rand(1, 3, 1, 2, 2), (4, 4))


# ---- shuffling


@pytest.mark.parametrize("factor", [2, 3])
def test_a7_06_shuffling_permutes_the_pixels_of_each_image(factor: int) -> None:
    images = torch.rand(4, 3, 7, 8, generator=seeded())

    shuffled = shuffle_patches(images, factor, generator=seeded(1))

    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(2).sort(dim=2).values, images.flatten(2).sort(dim=2).values)


def test_a7_06_shuffling_moves_whole_parts() -> None:
    parts = torch.arange(4.0).view(1, 1, 2, 2)
    images = parts.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand(200, 1, 8, 8)

    shuffled = shuffle_patches(images, 2, generator=seeded())

    seen = {tuple(image[0, ::4, ::4].flatten().tolist()) for image in shuffled}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    corners = shuffled[:, :, ::4, ::4].repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert torch.equal(shuffled, corners)


def test_a7_06_one_part_is_the_image_itself_and_draws_nothing() -> None:
    images, generator = torch.rand(2, 3, 8, 8), seeded()
    before = generator.get_state()

    assert shuffle_patches(images, 1, generator=generator) is images
    assert torch.equal(generator.get_state(), before)
