"""DSA against the operators of the authors: ranges, fill value, kinds of draw, gradients."""

import math

import pytest
import torch
from torch import Tensor

from distillhub.ops.augment import FAMILIES, DsaParams, apply_dsa, draw_dsa, dsa, families

IDENTITY = {
    "color": [0.0, 1.0, 1.0],
    "crop": [0.0, 0.0],
    "flip": [0.0],
    "scale": [1.0, 1.0],
    "rotate": [0.0],
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(
    n: int = 3, channels: int = 3, side: int = 12, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.randn(n, channels, side, side, generator=generator(7), dtype=dtype)


def draw(family: str, *values: float) -> DsaParams:
    return DsaParams(family, torch.tensor([values]))


@pytest.mark.parametrize("family", FAMILIES)
def test_classic_check_02_a_siamese_draw_treats_two_batches_as_it_treats_their_union(
    family: str,
) -> None:
    a, b = images(5), images(2) + 1

    together = dsa(torch.cat([a, b]), family, generator(3), siamese=True)

    apart = [dsa(batch, family, generator(3), siamese=True) for batch in (a, b)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("family", FAMILIES)
def test_classic_check_02_a_siamese_draw_does_not_depend_on_the_batch_size(family: str) -> None:
    small, large = (draw_dsa(family, images(n).shape, generator(3)) for n in (1, 50))

    assert torch.equal(small.values, large.values)


@pytest.mark.parametrize("family", sorted(IDENTITY))
def test_classic_check_03_identity_points_return_the_images(family: str) -> None:
    x = images()

    seen = apply_dsa(x, draw(family, *IDENTITY[family]))

    torch.testing.assert_close(seen, x, rtol=0, atol=1e-5)  # rounding of mean + (x - mean)


@pytest.mark.parametrize(("up", "left"), [(1, -1), (-1, 1), (1, 1)])
def test_classic_check_04_crop_and_its_inverse_return_the_interior(up: int, left: int) -> None:
    x = images()

    back = apply_dsa(apply_dsa(x, draw("crop", up, left)), draw("crop", -up, -left))

    assert torch.equal(back[..., 1:-1, 1:-1], x[..., 1:-1, 1:-1])


def test_classic_check_04_a_crop_fills_vacated_borders_with_zero() -> None:
    x = images()

    moved = apply_dsa(x, draw("crop", 2, -3))

    assert torch.equal(moved[..., :-2, 3:], x[..., 2:, :-3])
    assert moved[..., -2:, :].abs().max() == 0
    assert moved[..., :3].abs().max() == 0


@pytest.mark.parametrize("side", [12, 28, 32])
def test_classic_check_05_a_hole_away_from_the_border_covers_a_quarter(side: int) -> None:
    x = torch.ones(1, 1, side, side)

    seen = apply_dsa(x, draw("cutout", side // 2, side // 4))

    assert seen.mean() == 0.75


def test_classic_check_05_no_hole_covers_more_than_a_quarter() -> None:
    x = torch.ones(500, 1, 12, 12)

    kept = dsa(x, "cutout", generator(), siamese=False).mean(dim=(1, 2, 3))

    assert kept.min() == 0.75
    assert kept.max() == 1 - 9 / 144  # a corner as centre: 3 x 3 of the 6 x 6 hole lie inside


@pytest.mark.parametrize("family", ["scale", "rotate"])
@pytest.mark.parametrize("siamese", [True, False])
def test_positions_are_not_rounded_by_half_precision(family: str, siamese: bool) -> None:
    x = images(2, 32, 32)
    params = draw_dsa(family, x.shape, generator(2), images=1 if siamese else 2)

    with torch.autocast("cpu", torch.bfloat16):
        seen = apply_dsa(x, params)

    assert torch.equal(seen, apply_dsa(x, params))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("siamese", [True, False])
def test_classic_check_06_gradients_agree_with_finite_differences(
    family: str, siamese: bool
) -> None:
    x = images(2, 3, 5, torch.float64).requires_grad_()
    params = draw_dsa(family, x.shape, generator(2), images=1 if siamese else 2)

    assert torch.autograd.gradcheck(lambda pixels: apply_dsa(pixels, params), (x,))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_draw_per_image_equals_each_image_alone(family: str) -> None:
    x = images(6)
    params = draw_dsa(family, x.shape, generator(5), images=6)

    together = apply_dsa(x, params)

    alone = [apply_dsa(x[i : i + 1], DsaParams(family, params.values[i : i + 1])) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("family", "low", "high"),
    [
        ("color", [-0.5, 0.0, 0.5], [0.5, 2.0, 1.5]),
        ("crop", [-4, -4], [4, 4]),  # int(32 * 0.125 + 0.5)
        ("cutout", [0, 0], [32, 32]),  # an even hole has side + 1 centres
        ("flip", [0], [1]),
        ("scale", [1 / 1.2, 1 / 1.2], [1.2, 1.2]),
        ("rotate", [-math.pi / 12], [math.pi / 12]),
    ],
)
def test_draws_fill_the_published_ranges(family: str, low: list[float], high: list[float]) -> None:
    values = draw_dsa(family, (3, 32, 32), generator(), images=20_000).values

    span = torch.tensor(high) - torch.tensor(low)
    torch.testing.assert_close(
        values.amin(0), torch.tensor(low).float(), rtol=0, atol=1e-3 * span.max()
    )
    torch.testing.assert_close(
        values.amax(0), torch.tensor(high).float(), rtol=0, atol=1e-3 * span.max()
    )
    middle = (torch.tensor(high) + torch.tensor(low)) / 2
    torch.testing.assert_close(values.mean(0), middle.float(), rtol=0, atol=0.02 * span.max())


def test_crop_reaches_four_pixels_at_28_as_at_32() -> None:
    values = draw_dsa("crop", (1, 28, 28), generator(), images=1000).values

    assert values.amax() == 4


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x = torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)  # channel mean 2.5

    seen = apply_dsa(x, draw("color", 0.5, 2.0, 0.5))

    # 1.5 4.5 -> mean 3: 0 6 -> mean 3: 1.5 4.5
    assert seen.flatten().tolist() == [1.5, 4.5]


def test_saturation_leaves_a_single_channel_alone() -> None:
    x = images(channels=1)

    assert torch.equal(
        apply_dsa(x, draw("color", 0.0, 0.0, 1.0)), apply_dsa(x, draw("color", 0.0, 1.7, 1.0))
    )


def test_a_scale_above_one_shrinks_the_object() -> None:
    x = torch.ones(1, 1, 12, 12)

    seen = apply_dsa(x, draw("scale", 2.0, 2.0))

    # at twice the distance from the centre the image ends after 3 of 6 pixels
    assert seen.sum() == pytest.approx(36)


def test_a_rotation_by_a_right_angle_is_that_of_rot90() -> None:
    x = images()

    seen = apply_dsa(x, draw("rotate", math.pi / 2))

    torch.testing.assert_close(seen, torch.rot90(x, 1, (2, 3)), rtol=0, atol=1e-5)


def test_a_batch_meets_one_family_drawn_uniformly() -> None:
    drawn = [draw_dsa("crop_flip_rotate", (1, 8, 8), generator(seed)).family for seed in range(600)]

    for family in ("crop", "flip", "rotate"):
        assert 160 < drawn.count(family) < 240  # 200 expected, standard deviation 11.5


def test_the_same_seed_gives_the_same_images() -> None:
    x = images()
    strategy = "_".join(FAMILIES)

    first, second = (dsa(x, strategy, generator(11), siamese=False) for _ in range(2))

    assert torch.equal(first, second)


def test_the_given_images_are_not_changed() -> None:
    for family in FAMILIES:
        x = images()

        dsa(x, family, generator(1), siamese=True)

        assert torch.equal(x, images())


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'color_noise' must join .* cutout"):
        families("color_noise")


def test_a_draw_for_another_number_of_images_is_refused() -> None:
    params = draw_dsa("flip", (1, 8, 8), generator(), images=4)

    with pytest.raises(
        ValueError, match=r"4 images does not fit a batch of shape \(3, 3, 12, 12\)"
    ):
        apply_dsa(images(3), params)
