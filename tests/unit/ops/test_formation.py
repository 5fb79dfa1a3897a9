"""Mosaics: taken apart, joined, and what interpolation does to them."""

import pytest
import torch
from torch.nn import functional

from distillhub.ops.formation import expand, join, pack, repeat_labels, split


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_idm_check_03_shape_and_label_order_agree() -> None:
    mosaics = torch.stack([torch.full((1, 4, 6), float(label)) for label in (3, 1)])

    full = expand(mosaics, 2)

    assert full.shape == (8, 1, 4, 6)
    assert repeat_labels(torch.tensor([3, 1]), 2).tolist() == full[:, 0, 0, 0].int().tolist()


def test_idm_check_03_a_constant_image_stays_constant() -> None:
    assert torch.equal(expand(torch.full((2, 3, 8, 8), 0.3), 2), torch.full((8, 3, 8, 8), 0.3))


def test_idm_check_03_a_tiled_image_gives_its_tile_four_times() -> None:
    small = noise(1, 2, 3, 3)
    tiled = small.repeat(1, 1, 2, 2)

    full = expand(tiled, 2)

    doubled = functional.interpolate(small, size=(6, 6), mode="bilinear", align_corners=False)
    assert torch.allclose(full, doubled.expand(4, -1, -1, -1), atol=1e-12)


def test_idm_check_03_the_gradient_is_the_adjoint() -> None:
    u = noise(2, 1, 4, 4).requires_grad_()
    v = noise(8, 1, 4, 4, seed=1)
    other = noise(2, 1, 4, 4, seed=2)

    (transposed,) = torch.autograd.grad((expand(u, 2) * v).sum(), u)

    assert torch.allclose((expand(other, 2) * v).sum(), (other * transposed).sum(), atol=1e-10)


def test_idm_check_04_shrinking_by_two_is_two_by_two_pooling() -> None:
    images = noise(4, 3, 6, 8)

    mosaic = pack(images, 2)

    assert torch.allclose(split(mosaic, 2)[0], functional.avg_pool2d(images, 2), atol=1e-12)


def test_sub_images_are_taken_row_by_row() -> None:
    mosaic = torch.arange(16.0).view(1, 1, 4, 4)

    corners = split(mosaic, 2)[0, :, 0, 0, 0]

    assert corners.tolist() == [0, 2, 8, 10]


def test_join_undoes_split() -> None:
    mosaics = noise(2, 5, 3, 6, 9)

    assert torch.equal(join(split(mosaics, 3), 3), mosaics)


def test_formation_one_changes_nothing() -> None:
    images = noise(2, 1, 5, 5)

    assert torch.equal(expand(images, 1), images)
    assert torch.equal(pack(images, 1), images)


@pytest.mark.parametrize(("height", "width"), [(5, 4), (4, 5)])
def test_sides_that_do_not_divide_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="cannot be cut into 2 x 2"):
        expand(torch.zeros(1, 1, height, width), 2)


def test_a_wrong_number_of_sub_images_is_refused() -> None:
    with pytest.raises(ValueError, match="3 sub-images"):
        join(torch.zeros(3, 1, 2, 2), 2)
