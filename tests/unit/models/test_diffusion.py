"""The generator: latents, predictions, guidance, memory."""

import pytest
import torch
from torch import Tensor, nn

from distillhub.errors import PipelineError
from distillhub.models.diffusion import Diffusion, build_generator, build_transformer
from distillhub.models.diffusion_files import build_vae
from distillhub.models.dit_arch import DitArch, check_side, parse_dit
from distillhub.models.specs import VaeTrainSpec
from distillhub.models.zoo import seeded
from distillhub.ops.diffusion import Schedule

ARCH = "dit-w16-d2-h2-p2"
SCHEDULE = Schedule.linear(50)
LABELS = torch.tensor([0, 1, 2, 0])


def tiny(channels: int = 4, **options) -> Diffusion:
    return build_generator(ARCH, 3, channels, 8, 8, seed=1, **options)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vae(channels: int = 1, latents: int = 4) -> nn.Module:
    with seeded(0):
        return build_vae(VaeTrainSpec(channels=latents, widths=(8, 16)), channels)


def latent_generator(
    *, channels: int = 1, vae_channels: int | None = None, side: int = 16
) -> Diffusion:
    net = build_transformer(
        ARCH, num_classes=3, channels=4, height=side // 2, width=side // 2, seed=0
    )
    autoencoder = vae(vae_channels or channels)
    return Diffusion(
        net, autoencoder, image_shape=(channels, side, side), labels=range(3), scaling=0.5
    )


def test_dsco_check_02_mean_and_log_variance_are_those_of_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        variance_type="learned_range",
        prediction_type="epsilon",
        clip_sample=False,
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(50)
    generator, z = tiny(), noise(4, 4, 8, 8)

    means, variances = [], []  # pairs of ours and theirs
    for index in reversed(range(50)):
        tau = int(SCHEDULE.timesteps[index])
        found = generator.predict(z, LABELS, index, SCHEDULE, cfg=1, cfg_channels=3)
        output = generator._call(z, LABELS, tau)
        stepped = scheduler.step(output, tau, z, generator=torch.Generator().manual_seed(index))
        if index == 0:
            means.append((found.mean, stepped.prev_sample))
            break
        drawn = noise(*z.shape, seed=index)
        log_variance = scheduler._get_variance(tau, predicted_variance=output[:, 4:])
        means.append((found.mean, stepped.prev_sample - (0.5 * log_variance).exp() * drawn))
        variances.append((2 * found.sigma.log(), log_variance))
        z = found.mean + found.sigma * drawn

    for pairs in (means, variances):
        a, b = (torch.stack(side).double() for side in zip(*pairs, strict=True))
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_dsco_check_04_guidance_is_of_three_channels_and_leaves_the_variance():
    generator, z = tiny(), noise(4, 4, 8, 8)

    def at(cfg: float, channels: int = 3):
        return generator.predict(z, LABELS, 20, SCHEDULE, cfg=cfg, cfg_channels=channels)

    plain, guided = at(1.0), at(4.0)
    null = torch.full_like(LABELS, generator.null_label)
    free = generator.predict(z, null, 20, SCHEDULE, cfg=1, cfg_channels=3)

    expected = free.eps[:, :3] + 4 * (plain.eps[:, :3] - free.eps[:, :3])
    assert torch.allclose(guided.eps[:, :3], expected, atol=1e-5)
    assert torch.allclose(guided.eps[:, 3], plain.eps[:, 3], atol=1e-6)
    assert torch.allclose(guided.sigma, plain.sigma, rtol=1e-5)
    assert not torch.allclose(guided.eps[:, :3], plain.eps[:, :3], atol=1e-2)
    assert torch.equal(at(4.0, 99).eps, at(4.0, 4).eps)


def test_pixels_come_back_from_latents():
    generator = tiny(channels=1)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    latents = generator.encode(images)

    assert torch.equal(latents, 2 * images - 1)
    assert torch.allclose(generator.decode(latents), images, atol=1e-6)
    assert generator.decode(latents * 9).max() == 1
    assert generator.decode(latents * 9).min() == 0


def test_an_autoencoder_draws_from_its_posterior_with_the_generator_given():
    generator = latent_generator()
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    mode = generator.encode(images)
    first, second = (
        generator.encode(images, torch.Generator().manual_seed(seed)) for seed in (1, 1)
    )
    third = generator.encode(images, torch.Generator().manual_seed(2))

    assert mode.shape == (5, 4, 8, 8)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    law = generator._vae.encode(2 * images - 1).latent_dist
    drawn = (first / 0.5 - law.mean) / law.std
    assert torch.allclose(mode, 0.5 * law.mean, atol=1e-6)
    assert torch.allclose(
        drawn, torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1)), atol=1e-3
    )
    assert generator.decode(first).shape == (5, 1, 16, 16)


def test_grey_images_go_through_an_autoencoder_of_colours():
    generator = latent_generator(channels=1, vae_channels=3)
    images = torch.rand(2, 1, 16, 16)

    assert generator.decode(generator.encode(images)).shape == (2, 1, 16, 16)


def test_a_fixed_variance_is_that_of_the_posterior():
    generator = tiny(learned_variance=False)

    found = generator.predict(noise(4, 4, 8, 8), LABELS, 20, SCHEDULE, cfg=2, cfg_channels=3)

    expected = SCHEDULE.posterior_variance[20].sqrt().float()
    assert torch.allclose(found.sigma, expected.expand(4, 4, 8, 8))


def test_smaller_parts_give_the_same_and_memory_errors_halve_them():
    whole, split = tiny(), tiny()
    z = noise(4, 4, 8, 8)
    expected = whole.predict(z, LABELS, 20, SCHEDULE, cfg=4, cfg_channels=3)
    call, rows = split._call, []

    def short_of_memory(z: Tensor, labels: Tensor, tau: int) -> Tensor:
        rows.append(len(z))
        if len(z) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return call(z, labels, tau)

    split._call = short_of_memory  # type: ignore[method-assign]

    found = split.predict(z, LABELS, 20, SCHEDULE, cfg=4, cfg_channels=3)

    assert rows == [8, 4, 2, 2, 2, 2]
    assert torch.allclose(found.mean, expected.mean, atol=1e-5)


def test_one_sample_that_does_not_fit_is_a_clear_error():
    generator = tiny()

    def full(z: Tensor, labels: Tensor, tau: int) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    generator._call = full  # type: ignore[method-assign]

    with pytest.raises(PipelineError, match="one image alone does not fit"):
        generator.predict(noise(4, 4, 8, 8), LABELS, 20, SCHEDULE, cfg=4, cfg_channels=3)


def test_no_gradient_is_kept():
    generator = tiny()
    z = noise(4, 4, 8, 8).requires_grad_()

    found = generator.predict(z, LABELS, 20, SCHEDULE, cfg=4, cfg_channels=3)

    assert not any(part.requires_grad for part in found)


def test_the_same_seed_builds_the_same_generator_and_leaves_the_global_one():
    before = torch.get_rng_state()

    first, second, other = (
        build_generator(ARCH, 3, 1, 8, 8, seed=seed)._transformer for seed in (1, 1, 2)
    )

    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.proj_out_2.weight, other.proj_out_2.weight)


def test_what_does_not_fit_together_is_refused():
    net = build_transformer(ARCH, num_classes=3, channels=4, height=8, width=8, seed=0)
    with pytest.raises(ValueError, match=r"latents are \(4, 8, 8\).*into \(4, 16, 16\)"):
        Diffusion(net, vae(), image_shape=(1, 32, 32), labels=range(3))
    with pytest.raises(ValueError, match=r"into \(3, 8, 8\)"):
        Diffusion(net, vae(latents=3), image_shape=(1, 16, 16), labels=range(3))
    with pytest.raises(ValueError, match=r"without an autoencoder images are \(1, 8, 8\)"):
        Diffusion(net, None, image_shape=(1, 8, 8), labels=range(3))
    with pytest.raises(ValueError, match=r"label 3 is not one of 0 \.\. 2"):
        Diffusion(net, None, image_shape=(4, 8, 8), labels=[0, 3])
    with pytest.raises(ValueError, match="wanted"):
        tiny(channels=1).encode(torch.rand(1, 1, 9, 9))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dit-xl", "width, depth, heads and patch"),
        ("dit-w30-d2-h4-p2", "no even multiple"),
        ("dit-w16-d0-h2-p2", "size of 0"),
        ("convnet3", "width, depth, heads and patch"),
    ],
)
def test_names_that_are_no_transformer_are_refused(name, why):
    with pytest.raises(ValueError, match=why):
        parse_dit(name)


@pytest.mark.parametrize(("height", "width", "why"), [(8, 6, "square"), (9, 9, "does not divide")])
def test_images_without_whole_patches_are_refused(height, width, why):
    with pytest.raises(ValueError, match=why):
        check_side(parse_dit(ARCH), height, width)


def test_flops_are_the_published_ones_of_dit_xl_2():
    # dsco.md, section 9: 237.3 GFLOP per forward pass at 32 x 32 x 4 latents.
    assert DitArch(1152, 28, 16, 2).flops(4, 8, 32) == pytest.approx(237.3e9, rel=2e-3)
