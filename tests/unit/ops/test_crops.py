import pytest
import torch

from distillhub.ops.crops import Boxes, cut_boxes, draw_boxes, flip, resized_crop, shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int = 16, side: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=generator(9))


def test_a_shift_of_zero_changes_nothing():
    images = random_images()

    assert torch.equal(shift(images, 0, generator=generator()), images)


def test_every_shifted_image_is_a_window_of_the_padded_one():
    images = random_images(4)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1).flatten(2, 3)  # [4, 3, 25, 8, 8]

    moved = shift(images, 2, generator=generator())

    found = (windows == moved.unsqueeze(2)).all(dim=(1, 3, 4))  # [4, 25]
    assert found.any(1).all()


def test_images_of_a_batch_move_differently():
    one = random_images(1).expand(32, -1, -1, -1)

    moved = shift(one, 2, generator=generator())

    assert len({tuple(image.flatten().tolist()) for image in moved}) > 8


def test_a_flip_is_the_image_or_its_mirror():
    images = random_images()

    flipped = flip(images, generator=generator())

    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0 < same.sum() < len(images)


def test_a_crop_of_the_whole_image_is_the_image():
    images = random_images()

    cropped = resized_crop(images, generator=generator(), scale=(1, 1), ratio=(1, 1))

    torch.testing.assert_close(cropped, images)  # bilinear weights of 0 and 1, up to rounding


def test_crops_stay_inside_the_image():
    row = torch.linspace(0, 1, 8).expand(64, 1, 8, 8)

    cropped = resized_crop(row, generator=generator(), scale=(0.1, 0.5))

    assert cropped.min() >= 0
    assert cropped.max() <= 1
    assert (cropped[..., 1:] > cropped[..., :-1]).float().mean() > 0.8  # a magnified ramp rises


def test_the_same_generator_gives_the_same_crops():
    images = random_images()

    first = resized_crop(images, generator=generator(3))

    assert torch.equal(first, resized_crop(images, generator=generator(3)))


def boxes(height=40, width=40, **kw):
    return draw_boxes(2000, height, width, generator=generator(), **{"scale": (0.5, 1.0), **kw})


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 50)])
def test_boxes_lie_inside_and_keep_area_and_ratio(height, width):
    top, left, tall, wide = boxes(height, width)

    assert min(top.min(), left.min()) >= 0
    assert (top + tall).max() <= height + 1e-4
    assert (left + wide).max() <= width + 1e-4
    assert (tall * wide / (height * width)).min() >= 0.5 - 1e-5
    assert (wide / tall).min() >= 3 / 4 - 1e-5
    assert (wide / tall).max() <= 4 / 3 + 1e-5


def test_boxes_have_the_sizes_of_torchvision():
    from torchvision.transforms import RandomResizedCrop

    image = torch.zeros(3, 400, 400)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        theirs = [
            RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)
        ]
    ours = boxes(400, 400)

    areas = torch.tensor([h * w for _, _, h, w in theirs]).float() / 400**2
    assert (ours.height * ours.width / 400**2).mean().item() == pytest.approx(
        areas.mean().item(), abs=0.01
    )
    assert ours.top.mean().item() == pytest.approx(sum(t for t, *_ in theirs) / 2000, abs=2)


def test_a_ratio_that_never_fits_gives_the_largest_central_box():
    top, left, tall, wide = boxes(10, 100, scale=(1.0, 1.0))

    assert (tall[0].item(), wide[0].item()) == pytest.approx((10, 40 / 3))
    assert (top[0].item(), left[0].item()) == pytest.approx((0, (100 - 40 / 3) / 2))


def test_a_cut_box_shows_the_pixels_inside_it():
    image = torch.arange(36.0).view(1, 1, 6, 6)
    two = torch.tensor([2.0])

    cut = cut_boxes(image, Boxes(two / 2, two, 2 * two, 2 * two), (4, 4))

    assert cut[0, 0].allclose(image[0, 0, 1:5, 2:6], atol=1e-4)
