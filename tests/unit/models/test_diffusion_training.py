"""Training of small generators."""

import itertools

import pytest
import torch

from distillhub.errors import DivergedError
from distillhub.models.diffusion_files import fresh
from distillhub.models.diffusion_training import TrainedGenerator, train_generator, training_loss
from distillhub.models.specs import GeneratorTrainSpec
from distillhub.ops.diffusion import Schedule
from distillhub.units import derive_seed
from tests.fakes import stored, tiny_data

CPU = torch.device("cpu")
DATA = tiny_data()
TINY = {"arch": "dit-w16-d2-h2-p2", "steps": 6, "batch": 6}
VAE = {"channels": 2, "widths": (8, 16), "steps": 4, "batch": 6}


def trained(spec: GeneratorTrainSpec, *, state=None, data=DATA) -> TrainedGenerator:
    run = train_generator(spec, data, device=CPU, state=state)
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def weights(result: TrainedGenerator) -> list[torch.Tensor]:
    parts = [result.transformer, *([result.vae] if result.vae is not None else [])]
    return [tensor for part in parts for tensor in part.state_dict().values()]


@pytest.mark.parametrize(
    "more", [{}, {"vae": VAE}, {"variance": "fixed", "augment": "flip"}], ids=["", "vae", "fixed"]
)
def test_a_cut_training_ends_with_the_same_weights(more):
    spec = GeneratorTrainSpec.model_validate({**TINY, **more})
    expected = trained(spec)
    total = spec.steps + (spec.vae.steps if spec.vae else 0)

    for cut in range(1, total, 3):
        *_, report = itertools.islice(train_generator(spec, DATA, device=CPU), cut)
        assert (report.done, report.total) == (cut, total)
        resumed = trained(spec, state=stored(report.snapshot()))

        pairs = zip(weights(resumed), weights(expected), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert resumed.scaling == expected.scaling
        assert resumed.losses == expected.losses


def test_the_seed_decides_and_the_global_generator_does_not():
    spec = GeneratorTrainSpec.model_validate(TINY)
    before = torch.get_rng_state()

    first, second = trained(spec), trained(spec)
    other = trained(spec.model_copy(update={"seed": 1}))

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    assert not torch.equal(first.transformer.proj_out_2.bias, other.transformer.proj_out_2.bias)


def test_the_loss_falls():
    spec = GeneratorTrainSpec.model_validate({**TINY, "steps": 60, "batch": 18, "warmup": 0.0})

    losses = [
        report.metrics["loss"] for report in train_generator(spec, tiny_data(side=4), device=CPU)
    ]

    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_an_untrained_transformer_predicts_no_noise():
    # Zero output: the squared error is that of the noise, whose variance is 1.
    spec = GeneratorTrainSpec.model_validate({**TINY, "variance": "fixed"})
    net = fresh(spec, (1, 8, 8), 3, seed=0)
    noise = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    loss = training_loss(
        net,
        torch.zeros_like(noise),
        torch.zeros(40, dtype=torch.int64),
        index=torch.full((40,), 500),
        noise=noise,
        schedule=Schedule.linear(1000),
        learned_variance=False,
    )

    assert torch.allclose(loss, noise.square().mean(dim=(1, 2, 3)), atol=1e-5)


def label_table(transformer) -> torch.Tensor:
    return transformer.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight


@pytest.mark.parametrize(("share", "moved"), [(0.0, [1, 1, 1, 0]), (1.0, [0, 0, 0, 1])])
def test_images_without_a_label_train_the_untold_one_alone(share, moved):
    spec = GeneratorTrainSpec.model_validate({**TINY, "label_dropout": share})
    begin = label_table(fresh(spec, (1, 8, 8), 3, derive_seed(spec.seed, "init")))

    end = label_table(trained(spec).transformer)

    assert [int(not torch.equal(a, b)) for a, b in zip(begin, end, strict=True)] == moved


def test_latents_of_an_autoencoder_have_unit_deviation():
    spec = GeneratorTrainSpec.model_validate({**TINY, "vae": {**VAE, "steps": 10}})

    result = trained(spec)

    images = DATA.images(range(len(DATA)))
    latents = result.vae.encode(2 * images - 1).latent_dist.mean * result.scaling
    assert latents.std().item() == pytest.approx(1, rel=0.05)
    assert set(result.losses) == {"loss", "vae_loss"}


def test_the_average_forgets_the_random_start():
    last, mean = (
        trained(GeneratorTrainSpec.model_validate({**TINY, "ema": ema})) for ema in (0.0, 0.9)
    )

    distance = [
        (a - b).abs().max().item() for a, b in zip(weights(last), weights(mean), strict=True)
    ]
    assert max(distance) > 0
    assert max(distance) < 0.05


def test_a_loss_that_is_no_number_is_told_with_its_step():
    spec = GeneratorTrainSpec.model_validate({**TINY, "lr": 1e9, "warmup": 0.0, "steps": 40})

    with pytest.raises(DivergedError, match=r"the loss became (nan|inf)"):
        trained(spec)


def test_names_of_other_networks_are_refused():
    with pytest.raises(ValueError, match="no diffusion transformer"):
        GeneratorTrainSpec(arch="convnet3")
    with pytest.raises(ValueError, match="no multiples of 8"):
        GeneratorTrainSpec.model_validate({**TINY, "vae": {"widths": (12, 16)}})
