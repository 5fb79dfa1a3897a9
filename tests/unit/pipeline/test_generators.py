"""Sizes of a recipe's generator, for plans, without its weights."""

from pathlib import Path

import pytest

from distillhub.models.specs import DiffusionSpec, GeneratorTrainSpec, VaeTrainSpec
from distillhub.pipeline.generators import generator_sizes
from distillhub.units import Target


def test_a_published_generator_is_known_without_a_download():
    sizes = generator_sizes(
        DiffusionSpec(transformer="facebook/DiT-XL-2-256"), Target(1000, 10, 3, 256, 256), Path()
    )

    assert sizes is not None
    assert sizes.latent == (4, 32, 32)
    assert sizes.flops == pytest.approx(237.3e9, rel=2e-3)  # dsco.md, section 9


def test_an_unknown_one_is_not():
    assert (
        generator_sizes(DiffusionSpec(transformer="some/dit"), Target(2, 1, 3, 8, 8), Path())
        is None
    )


def test_an_autoencoder_makes_the_latents_smaller():
    target = Target(10, 1, 3, 32, 32)
    pixels = GeneratorTrainSpec(arch="dit-w16-d2-h2-p2")
    latents = GeneratorTrainSpec(arch="dit-w16-d2-h2-p2", vae=VaeTrainSpec(widths=(8, 8, 8)))

    small, large = (generator_sizes(spec, target, Path()) for spec in (latents, pixels))

    assert small is not None
    assert large is not None
    assert (small.latent, large.latent) == ((4, 8, 8), (3, 32, 32))
    assert small.flops < large.flops / 10
