import torch

from distillhub.ops.crops import flip, resized_crop, shift


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
