"""Schedule, guidance and posterior of the diffusion sampler."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from distillhub.ops.diffusion import Schedule, diffuse, guide, posterior, variational_bound

SHAPE = (6, 4, 8, 8)
PUBLISHED = [0, 20, 41, 61, 82, 102, 122, 143, 163, 183, 204]  # dsco, spaced timesteps
LAST = [958, 979, 999]


def draws(count: int, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def test_dsco_check_03_spaced_timesteps_are_the_published_ones():
    found = Schedule.linear(50).timesteps.tolist()

    assert found[:11] == PUBLISHED
    assert found[-3:] == LAST
    assert found == np.linspace(0, 999, 50).round().astype(int).tolist()


def test_dsco_check_04_guidance_leaves_the_fourth_channel_and_a_scale_of_one_changes_nothing():
    conditional, unconditional = draws(2)

    guided = guide(conditional, unconditional, 4.0, 3)

    expected = unconditional[:, :3] + 4 * (conditional[:, :3] - unconditional[:, :3])
    assert torch.equal(guided[:, :3], expected)
    assert torch.equal(guided[:, 3], conditional[:, 3])
    assert torch.equal(guide(conditional, unconditional, 1.0, 3), conditional)


def test_the_schedule_ends_nearly_in_noise_and_begins_nearly_clean():
    schedule = Schedule.linear(50)

    assert schedule.abar[0].item() == pytest.approx(1 - 1e-4)
    assert schedule.abar[49].item() == pytest.approx(4.0e-5, rel=0.02)  # DDPM: 4e-5 at T = 1000
    assert schedule.steps == 50


def test_one_step_of_all_thousand_is_that_of_ddpm():
    schedule = Schedule.linear(1000)

    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(schedule.beta, beta)


@pytest.mark.parametrize("steps", [1, 0, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=r"2 \.\. 1000"):
        Schedule.linear(steps)


def test_the_true_noise_gives_back_the_image_at_every_level():
    schedule = Schedule.linear(10)
    x0, noise = draws(2)

    for index in range(10):
        z = diffuse(x0, noise, index, schedule)
        found = posterior(z, noise, None, index, schedule)
        assert torch.allclose(found.x0, x0, atol=2e-4 / math.sqrt(schedule.abar[index].item()))


def test_diffused_images_have_the_variance_of_the_level():
    schedule = Schedule.linear(50)
    x0, noise = torch.zeros(1, 1, 64, 64), draws(1, (1, 1, 64, 64))[0]

    z = diffuse(x0, noise, 25, schedule)

    wanted = math.sqrt(1 - schedule.abar[25].item())
    assert torch.allclose(z, wanted * noise)


@pytest.mark.parametrize(
    ("v", "bound"), [(-1.0, "posterior_variance"), (1.0, "beta"), (None, "posterior_variance")]
)
def test_the_variance_reaches_its_bounds(v, bound):
    schedule = Schedule.linear(50)
    z, eps = draws(2)

    sigma = posterior(z, eps, None if v is None else torch.full_like(z, v), 7, schedule).sigma

    expected = getattr(schedule, bound)[7].sqrt().float()
    assert torch.allclose(sigma, expected.expand_as(sigma))


def test_published_deviations_are_met():
    # dsco.md, section 3: smallest and largest deviation over v, at i = 2, 10 and 49.
    schedule = Schedule.linear(50)
    for index, low, high in [(2, 0.067, 0.122), (10, 0.260, 0.283), (49, 0.574, 0.574)]:
        assert schedule.posterior_variance[index].sqrt().item() == pytest.approx(low, abs=6e-4)
        assert schedule.beta[index].sqrt().item() == pytest.approx(high, abs=6e-4)


def test_the_bound_vanishes_for_a_perfect_model_and_grows_with_a_wrong_variance():
    schedule = Schedule.linear(1000)
    x0, noise = draws(2)
    x0 = x0.clamp(-1, 1)
    index = torch.tensor([5, 100, 200, 300, 400, 500])
    z = torch.cat(
        [
            diffuse(a, b, int(i), schedule)
            for a, b, i in zip(x0.split(1), noise.split(1), index, strict=True)
        ]
    )

    right = variational_bound(x0, z, noise, torch.full_like(z, -1.0), index, schedule)
    wrong = variational_bound(x0, z, noise, torch.full_like(z, 1.0), index, schedule)

    assert right.abs().max() < 1e-3
    assert (wrong > right).all()


def test_only_the_variance_gets_a_gradient_from_the_bound():
    schedule = Schedule.linear(1000)
    x0, z, eps, v = draws(4)
    eps.requires_grad_()
    v.requires_grad_()

    variational_bound(x0, z, eps, v, torch.arange(6) * 100, schedule).sum().backward()

    assert eps.grad is None
    assert v.grad is not None
    assert v.grad.abs().sum() > 0


def test_the_first_step_of_the_bound_is_a_likelihood_of_256_values():
    # A model that is sure of the right grey value: nearly no bits. One that is one off: many.
    schedule = Schedule.linear(1000)
    x0 = torch.full((1, 1, 4, 4), 2 * 100 / 255 - 1)
    index = torch.zeros(1, dtype=torch.int64)
    z, v = diffuse(x0, torch.zeros_like(x0), 0, schedule), torch.full_like(x0, -1.0)

    exact = variational_bound(x0, z, torch.zeros_like(x0), v, index, schedule)
    off = variational_bound(x0 + 8 / 255, z, torch.zeros_like(x0), v, index, schedule)

    sigma = schedule.posterior_variance[0].sqrt().item()
    inside = math.erf(1 / 255 / sigma / math.sqrt(2))
    assert exact.item() == pytest.approx(-math.log2(inside), abs=2e-3)
    assert off.item() > exact.item()
