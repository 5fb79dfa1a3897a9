"""A generator that was trained here, on disk."""

import pytest
import torch

from distillhub.errors import DataError, VerificationError
from distillhub.models.diffusion_files import build_vae, fresh, load, save_trained
from distillhub.models.specs import GeneratorTrainSpec
from distillhub.models.zoo import seeded
from distillhub.ops.diffusion import Schedule

CPU = torch.device("cpu")


def saved(folder, *, vae: bool = False):
    spec = GeneratorTrainSpec.model_validate(
        {"arch": "dit-w16-d1-h2-p2", "vae": {"widths": (8, 8), "channels": 2} if vae else None}
    )
    net = fresh(spec, (1, 8, 8), 3, seed=7)
    with torch.no_grad():
        net.proj_out_2.weight.fill_(0.01)
    autoencoder = None
    if spec.vae is not None:
        with seeded(1):
            autoencoder = build_vae(spec.vae, 1)
    record = save_trained(
        folder,
        spec,
        net,
        autoencoder,
        image_shape=(1, 8, 8),
        num_classes=3,
        scaling=1.5 if vae else 1.0,
        losses={"loss": 0.1},
    )
    return net, autoencoder, record


@pytest.mark.parametrize("vae", [False, True])
def test_a_generator_comes_back_as_it_was(tmp_path, vae):
    net, autoencoder, record = saved(tmp_path, vae=vae)

    found = load(tmp_path, weights=tmp_path, device=CPU)

    theirs = found._transformer.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in net.state_dict().items())
    assert found.latent_shape == ((2, 4, 4) if vae else (1, 8, 8))
    assert found.labels == (0, 1, 2)
    assert found.license is None
    assert found.identity == record.identity
    if autoencoder is not None:
        images = torch.rand(2, 1, 8, 8)
        expected = 1.5 * autoencoder.encode(2 * images - 1).latent_dist.mean
        assert torch.allclose(found.encode(images), expected)
    step = found.predict(
        torch.zeros(1, *found.latent_shape),
        torch.tensor([1]),
        1,
        Schedule.linear(4),
        cfg=2,
        cfg_channels=3,
    )
    assert step.mean.isfinite().all()


def test_equal_weights_give_equal_bytes_and_identities(tmp_path):
    first, second = (saved(tmp_path / name)[2] for name in ("a", "b"))

    assert first == second
    names = ("generator.safetensors", "generator.json")
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names
    )


def test_other_weights_are_another_identity(tmp_path):
    plain, latent = (saved(tmp_path / str(vae), vae=vae)[2] for vae in (False, True))

    assert plain.identity != latent.identity


def test_tampered_weights_are_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "generator.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(VerificationError, match="the weights have sha256"):
        load(tmp_path, weights=tmp_path, device=CPU)


def test_missing_weights_are_told(tmp_path):
    saved(tmp_path)
    (tmp_path / "generator.safetensors").unlink()

    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path, weights=tmp_path, device=CPU)
