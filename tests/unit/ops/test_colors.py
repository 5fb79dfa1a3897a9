"""Colours change image by image, as the operations are meant."""

import pytest
import torch

from distillhub.ops.colors import EIGENVALUES, EIGENVECTORS, GREY, jitter, lighting


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=6, channels=3):
    return torch.rand(count, channels, 5, 4, generator=generator(9))


@pytest.mark.parametrize("change", [jitter, lighting])
def test_equal_images_of_a_batch_change_differently(change):
    same = images(1).expand(6, 3, 5, 4)

    changed = change(same, 0.4, generator=generator())

    assert len({tuple(image.flatten().tolist()) for image in changed}) == 6


@pytest.mark.parametrize("change", [jitter, lighting])
def test_an_image_changes_alike_whatever_stands_beside_it(change):
    first = images()
    second = torch.cat([first[:1], 1 - first[1:]])

    together = [change(batch, 0.4, generator=generator())[0] for batch in (first, second)]

    assert together[0].equal(together[1])


@pytest.mark.parametrize("change", [jitter, lighting])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_strength_changes_nothing(change, channels):
    before = images(channels=channels)

    assert change(before, 0.0, generator=generator()).allclose(before, atol=1e-6)


def test_a_grey_picture_stays_grey_under_jitter():
    grey = images(channels=1).expand(6, 3, 5, 4)

    changed = jitter(grey, 0.4, generator=generator())

    assert changed[:, 0].allclose(changed[:, 2], atol=1e-6)


def test_a_flat_grey_image_is_only_made_brighter_or_darker():
    flat = torch.full((200, 3, 4, 4), 0.5)

    factors = jitter(flat, 0.4, generator=generator())[:, 0, 0, 0] / 0.5

    assert factors.min() >= 0.6 - 1e-5
    assert factors.max() <= 1.4 + 1e-5
    assert factors.mean() == pytest.approx(1, abs=0.05)  # 200 draws, sd 0.23
    assert factors.std() == pytest.approx(0.4 / 3**0.5, abs=0.03)


def test_saturation_keeps_the_grey_of_an_image(monkeypatch):
    before = images(1)
    # the first draw of factors is brightness, contrast, saturation; the first two are switched off
    monkeypatch.setattr(
        torch,
        "rand",
        lambda *size, generator: (
            torch.tensor([0.5, 0.5, 1.0]).view(3, 1, 1, 1, 1)
            if len(size) == 5
            else torch.zeros(size)
        ),
    )

    changed = jitter(before, 0.4, generator=generator())

    weights = torch.tensor(GREY).view(3, 1, 1)
    grey = (before[0] * weights).sum(0)
    assert (changed[0] * weights).sum(0).allclose(grey, atol=1e-6)
    assert changed[0].allclose(grey + 1.4 * (before[0] - grey), atol=1e-6)


def test_lighting_shifts_all_pixels_of_an_image_by_one_colour():
    before = images()

    shift = lighting(before, 0.1, generator=generator()) - before

    assert shift.flatten(2).std(2).max() < 1e-6


def test_the_shift_is_the_principal_colours_times_their_draws():
    alpha = 0.1 * torch.randn(6, 3, generator=generator())
    by_hand = [
        [sum(EIGENVECTORS[c][k] * float(a[k]) * EIGENVALUES[k] for k in range(3)) for c in range(3)]
        for a in alpha
    ]

    shift = (lighting(images(), 0.1, generator=generator()) - images())[:, :, 0, 0]

    assert shift.allclose(torch.tensor(by_hand), atol=1e-6)


def test_the_principal_colours_are_orthonormal():
    basis = torch.tensor(EIGENVECTORS)

    assert (basis.T @ basis).allclose(torch.eye(3), atol=2e-3)  # given with four digits
