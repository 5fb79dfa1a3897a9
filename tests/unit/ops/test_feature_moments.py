"""Moments of feature maps against a slow reading of edc.md section 4, in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import distillhub.ops.feature_moments as module
from distillhub.ops.feature_moments import (
    ClassSums,
    FeatureMoments,
    class_sums,
    feature_moments,
    image_moments,
    patch_count,
    pooled_moments,
)

SHAPES = [
    ((3, 2, 8, 8), 4),  # whole cells
    ((2, 3, 8, 12), 4),
    ((2, 3, 7, 5), 4),  # resized up to 8 x 8
    ((2, 3, 14, 14), 16),
    ((4, 5, 2, 2), 4),  # one cell
    ((4, 5, 1, 1), 4),
    ((1, 1, 3, 3), 1),
    ((2, 1, 4, 4), 2),
]


def maps_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1


def slow(maps: Tensor, side: int) -> FeatureMoments:
    """One reduction per statistic, one cell after the other."""
    h, w = maps.shape[2:]
    rows, columns = -(-h // side), -(-w // side)
    grid = maps
    if (rows * side, columns * side) != (h, w):
        grid = functional.interpolate(maps, size=(rows * side, columns * side), mode="bilinear")
    cells = [
        grid[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
        for i in range(rows)
        for j in range(columns)
    ]
    return FeatureMoments(
        maps.mean((0, 2, 3)),
        maps.var((0, 2, 3), correction=0),
        torch.stack([cell.mean() for cell in cells]),
        torch.stack([cell.var(correction=0) for cell in cells]),
    )


def assert_same(found: FeatureMoments, wanted: FeatureMoments, atol: float = 1e-11) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize(("shape", "side"), SHAPES)
def test_moments_are_those_of_the_slow_reference(shape, side):
    maps = maps_of(shape)

    assert_same(feature_moments(maps, side), slow(maps, side))


@pytest.mark.parametrize(("shape", "side"), SHAPES)
def test_gradients_are_those_of_the_slow_reference(shape, side):
    maps = maps_of(shape).requires_grad_()
    weights = [maps_of(part.shape, seed) for seed, part in enumerate(slow(maps, side), 1)]

    def gradient(moments: FeatureMoments) -> Tensor:
        loss = sum(
            (part.square() * weight).sum() for part, weight in zip(moments, weights, strict=True)
        )
        return torch.autograd.grad(loss, maps)[0]

    torch.testing.assert_close(
        gradient(feature_moments(maps, side)), gradient(slow(maps, side)), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize(
    ("shape", "side"), [((2, 2, 4, 4), 2), ((2, 2, 3, 5), 2), ((3, 2, 1, 1), 4)]
)
def test_gradients_are_those_of_finite_differences(shape, side):
    maps = maps_of(shape).requires_grad_()

    assert torch.autograd.gradcheck(lambda x: tuple(feature_moments(x, side)), maps)
    assert torch.autograd.gradcheck(lambda x: tuple(feature_moments(x, None)[:2]), maps)


@pytest.mark.parametrize("part", range(4))
def test_each_moment_has_its_gradient_alone(part):
    maps = maps_of((2, 3, 7, 5)).requires_grad_()

    ours = torch.autograd.grad(feature_moments(maps, 4)[part].square().sum(), maps)[0]

    theirs = torch.autograd.grad(slow(maps, 4)[part].square().sum(), maps)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_without_a_patch_side_there_are_channel_moments_alone():
    maps = maps_of((2, 3, 6, 6))

    found = feature_moments(maps, None)

    assert (found.patch_mean, found.patch_var) == (None, None)
    torch.testing.assert_close(found.mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(found.var, maps.var((0, 2, 3), correction=0))


def test_14_05_the_mean_over_equal_patches_is_the_mean_of_all_activations():
    maps = maps_of((3, 5, 8, 12))

    found = feature_moments(maps, 4)

    torch.testing.assert_close(found.patch_mean.mean(), maps.mean())


@pytest.mark.parametrize(("h", "w", "side", "patches"), [(8, 8, 4, 4), (7, 9, 4, 6), (1, 1, 16, 1)])
def test_14_05_there_are_ceil_h_by_ceil_w_patches(h, w, side, patches):
    found = feature_moments(maps_of((2, 3, h, w)), side)

    assert patch_count(h, w, side) == patches
    assert len(found.patch_mean) == len(found.patch_var) == patches


@pytest.mark.parametrize(("side", "statistics"), [(None, 2), (4, 4)])
def test_maps_summed_up_in_pieces_have_the_moments_of_the_whole(side, statistics, monkeypatch):
    maps = maps_of((5, 3, 7, 8))
    wanted = slow(maps, 4)
    monkeypatch.setattr(module, "PIECE_BYTES", 2 * maps[0].numel() * 8)  # two images

    found = feature_moments(maps, side)

    assert_same(FeatureMoments(*found[:statistics]), FeatureMoments(*wanted[:statistics]))


@pytest.mark.parametrize(("side", "statistics"), [(None, 2), (4, 4)])
@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 4, 7, 5), (3, 4, 1, 1), (3, 1, 8, 8)])
def test_maps_in_channels_last_order_are_measured_as_they_lie(shape, side, statistics):
    maps = maps_of(shape)
    last = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    maps.requires_grad_()

    found = FeatureMoments(*feature_moments(last, side)[:statistics])

    assert_same(found, FeatureMoments(*slow(maps, 4)[:statistics]))
    gradients = [
        torch.autograd.grad(sum(part.square().sum() for part in moments[:statistics]), x)[0]
        for moments, x in ((found, last), (slow(maps, 4), maps))
    ]
    torch.testing.assert_close(*gradients)
    assert gradients[0].stride() == last.stride()


def test_maps_that_do_not_lie_in_one_piece_are_measured():
    maps = maps_of((3, 4, 8, 16))[..., ::2].requires_grad_()

    found = feature_moments(maps, 4)

    assert_same(found, slow(maps, 4))
    gradients = [
        torch.autograd.grad(sum(part.square().sum() for part in moments), maps)[0]
        for moments in (found, slow(maps, 4))
    ]
    torch.testing.assert_close(*gradients)


def test_half_precision_maps_are_summed_up_in_float32():
    maps = (maps_of((4, 2, 32, 32)) + 20).to(torch.bfloat16).requires_grad_()

    found = feature_moments(maps, 16)

    assert {part.dtype for part in found} == {torch.float32}
    assert_same(found, FeatureMoments(*(p.float() for p in slow(maps.double(), 16))), atol=1e-3)
    (gradient,) = torch.autograd.grad(found.patch_var.sum(), maps)
    assert gradient.dtype == torch.bfloat16


def test_float32_moments_keep_five_digits_where_the_mean_is_ten_deviations():
    maps = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(1)) + 10

    found = feature_moments(maps, 4)

    for ours, theirs in zip(found, slow(maps.double(), 4), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)


def test_the_moments_of_images_are_those_of_batches_of_one():
    maps = maps_of((3, 2, 7, 5))

    found = image_moments(maps, 4)

    for image in range(3):
        alone = feature_moments(maps[image : image + 1], 4)
        assert_same(FeatureMoments(*(part[image] for part in found)), alone)


@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (3, 2, 7, 5)])
def test_pooled_moments_of_images_are_those_of_the_batch(shape):
    maps = maps_of(shape)

    assert_same(pooled_moments(image_moments(maps, 4)), feature_moments(maps, 4))


def test_class_sums_are_those_of_a_loop_over_images():
    labels = torch.tensor([2, 0, 2, 2, 0])
    mean, var = maps_of((5, 3, 1, 1)).flatten(1), maps_of((5, 3, 1, 1), 1).flatten(1).abs()
    sums = ClassSums.zeros(4, 3)

    class_sums(mean[:2], var[:2], labels[:2], into=sums)
    class_sums(mean[2:], var[2:], labels[2:], into=sums)

    for label in range(4):
        rows = [row for row in range(5) if labels[row] == label]
        assert sums.images[label] == len(rows)
        if rows:
            torch.testing.assert_close(sums.means()[label], mean[rows].mean(0))
            torch.testing.assert_close(sums.within()[label], var[rows].mean(0))
            between = mean[rows].var(0, correction=0)
            torch.testing.assert_close(sums.between()[label], between)


def test_variances_within_and_between_images_are_the_variance_of_all_pixels_of_a_class():
    maps, labels = maps_of((6, 2, 4, 4)), torch.tensor([0, 1, 1, 0, 1, 1])
    moments = image_moments(maps, None)
    sums = ClassSums.zeros(2, 2)

    class_sums(moments.mean, moments.var, labels, into=sums)

    for label in range(2):
        pixels = maps[labels == label].transpose(0, 1).flatten(1)
        total = sums.within()[label] + sums.between()[label]
        torch.testing.assert_close(total, pixels.var(1, correction=0))


def test_a_class_without_images_has_zeros_and_no_nan():
    sums = ClassSums.zeros(2, 3)

    assert torch.equal(sums.means() + sums.within() + sums.between(), torch.zeros(2, 3).double())


@pytest.mark.parametrize("maps", [torch.zeros(3, 4, 4), torch.zeros(0, 2, 4, 4)])
def test_other_maps_are_refused(maps):
    with pytest.raises(ValueError, match=r"maps \[b, c, h, w\] are needed"):
        feature_moments(maps, 4)


def test_a_patch_without_a_side_is_refused():
    with pytest.raises(ValueError, match="at least 1 pixel, not 0"):
        feature_moments(torch.zeros(1, 1, 4, 4), 0)
