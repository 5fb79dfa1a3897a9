import pytest
import torch
from torch.nn import functional as F

from distillhub.ops.views import ViewBatch, crop_resize, paste, render
from tests import fake_sets


def noise(n=6, channels=3, height=13, width=9):
    return torch.rand(n, channels, height, width, generator=fake_sets.generator())


@pytest.mark.parametrize("size", [(13, 9), (5, 7), (32, 16), (1, 1)])
def test_crop_and_resize_equal_interpolate_on_the_crop(size):
    images = noise()
    crop = torch.tensor(
        [[0, 0, 13, 9], [3, 2, 5, 4], [12, 8, 1, 1], [0, 0, 1, 9], [6, 1, 7, 8], [2, 0, 2, 3]]
    )

    ours = crop_resize(images, crop, size)

    for row, (top, left, tall, wide) in enumerate(crop.tolist()):
        cut = images[row : row + 1, :, top : top + tall, left : left + wide]
        theirs = F.interpolate(cut, size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours[row : row + 1], theirs, rtol=0, atol=2e-5)


def test_nothing_outside_the_crop_leaks_in():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 2:6, 2:6] = 0.5
    crop = torch.tensor([[2, 2, 4, 4]])

    shown = crop_resize(images, crop, (16, 16))

    torch.testing.assert_close(shown, torch.full((1, 1, 16, 16), 0.5), rtol=0, atol=1e-6)


def test_the_whole_image_at_its_own_size_is_itself():
    images = noise()
    crop = torch.tensor([[0, 0, 13, 9]]).expand(6, 4)

    torch.testing.assert_close(crop_resize(images, crop, (13, 9)), images, rtol=0, atol=1e-5)


def test_an_image_of_one_pixel_can_be_shown():
    images = torch.full((1, 1, 1, 1), 0.25)

    shown = crop_resize(images, torch.tensor([[0, 0, 1, 1]]), (3, 3))

    assert torch.equal(shown, torch.full((1, 1, 3, 3), 0.25))


def test_flip_comes_after_the_crop():
    images = torch.arange(4.0).reshape(1, 1, 1, 4) / 4
    views = ViewBatch(torch.tensor([[0, 0, 1, 2]]), torch.tensor([True]))

    shown = render(images, views, size=(1, 2))

    torch.testing.assert_close(shown, torch.tensor([[[[0.25, 0.0]]]]), rtol=0, atol=1e-6)


def test_a_view_does_not_depend_on_its_batch():
    images = noise(n=8, height=12, width=10)
    geometry = fake_sets.views(8, 1, ops=True)
    first = torch.zeros(8, dtype=torch.int64)
    rows = torch.arange(8)

    together = render(images, geometry.batch(rows, first), size=(7, 7))

    for row in range(8):
        one = rows[row : row + 1]
        alone = render(images[one], geometry.batch(one, first[:1]), size=(7, 7))
        assert torch.equal(alone[0], together[row])


def test_views_keep_the_range_of_the_images():
    images = noise(n=16, height=12, width=10)
    geometry = fake_sets.views(16, 1, ops=True)

    shown = render(
        images, geometry.batch(torch.arange(16), torch.zeros(16, dtype=torch.int64)), size=(24, 24)
    )

    assert shown.min() >= 0
    assert shown.max() <= 1


def test_paste_fills_the_box_and_nothing_else():
    box = torch.tensor([[1, 0, 3, 2], [0, 0, 0, 0]])

    mixed = paste(torch.zeros(2, 1, 4, 3), torch.ones(2, 1, 4, 3), box)

    expected = torch.zeros(4, 3)
    expected[1:3, 0:2] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert not mixed[1].any()


def test_more_views_than_images_are_refused():
    views = ViewBatch(torch.tensor([[0, 0, 2, 2]] * 2), torch.tensor([False, False]))

    with pytest.raises(ValueError, match="2 views for 1 images"):
        render(torch.zeros(1, 1, 4, 4), views, size=(4, 4))
