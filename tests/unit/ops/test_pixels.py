import pytest
import torch

from distillhub.ops.pixels import denormalize, normalize, resize

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)


def random_images(side: int = 6) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_the_mean_color_is_zero_once_normalized():
    images = torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2)

    assert normalize(images, MEAN, STD).abs().max() == 0


def test_denormalize_undoes_normalize():
    images = random_images()

    torch.testing.assert_close(denormalize(normalize(images, MEAN, STD), MEAN, STD), images)


def test_the_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"1 values do not fit images of shape \(2, 3, 6, 6\)"):
        normalize(random_images(), (0.5,), (0.5,))


def test_resize_to_the_same_size_is_the_same_object():
    images = random_images()

    assert resize(images, 6) is images


def test_doubling_a_ramp_interpolates_at_half_pixels():
    ramp = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)

    assert resize(ramp, (1, 4)).flatten().tolist() == [0, 0.25, 0.75, 1]


def test_halving_with_antialias_sees_all_pixels():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 3] = 1.0

    assert resize(images, 4).mean().item() == pytest.approx(images.mean().item(), rel=1e-5)


def test_crop_keeps_the_center_of_the_longer_side():
    images = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 2, 6)

    assert resize(images, 2, how="crop")[0, 0, 0].tolist() == [2, 3]


def test_a_constant_image_stays_constant():
    grey = torch.full((1, 3, 9, 7), 0.3)

    torch.testing.assert_close(resize(grey, (5, 4), how="crop"), torch.full((1, 3, 5, 4), 0.3))
