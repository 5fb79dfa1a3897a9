"""Published generators: local checkpoints, and what the Hub may answer."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from distillhub.errors import DataError, VerificationError
from distillhub.models import checkpoints, diffusion_files
from distillhub.models.diffusion import build_transformer
from distillhub.models.diffusion_files import GeneratorRecord, build_vae, write_record
from distillhub.models.specs import DiffusionSpec, VaeTrainSpec
from distillhub.models.zoo import seeded
from distillhub.ops.diffusion import Schedule

CPU = torch.device("cpu")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A local checkpoint in the layout of diffusers: transformer/ and vae/."""
    folder = tmp_path / "checkpoint"
    net = build_transformer(
        "dit-w16-d2-h2-p2", num_classes=5, channels=4, height=8, width=8, seed=0
    )
    net.save_pretrained(folder / "transformer")
    with seeded(0):
        build_vae(VaeTrainSpec(channels=4, widths=(8, 16)), 3).save_pretrained(folder / "vae")
    return folder


def described(folder: Path, part: str) -> checkpoints.Checkpoint:
    return checkpoints.describe(folder / part, str(folder), part, None)


def kept(pipeline: Path, store: Path) -> GeneratorRecord:
    """A record of the checkpoint whose files lie in `store`, as resolve puts them there."""
    found = {part: described(pipeline, part) for part in ("transformer", "vae")}
    for part, checkpoint in found.items():
        (pipeline / part).rename(store / checkpoint.sha256)
    return GeneratorRecord(
        spec=DiffusionSpec(transformer=str(pipeline), vae=str(pipeline)),
        image_shape=(3, 16, 16),
        labels=(4, 0),
        scaling=0.5,
        license="cc-by-nc-4.0",
        transformer=found["transformer"],
        vae=found["vae"],
    )


def test_a_local_checkpoint_samples(pipeline, tmp_path):
    (tmp_path / "store").mkdir()
    write_record(tmp_path, kept(pipeline, tmp_path / "store"))

    generator = diffusion_files.load(tmp_path, weights=tmp_path / "store", device=CPU)

    assert generator.latent_shape == (4, 8, 8)
    assert (generator.null_label, generator.labels) == (5, (4, 0))
    assert generator.license == "cc-by-nc-4.0"
    step = generator.predict(
        torch.zeros(2, 4, 8, 8),
        torch.tensor(generator.labels),
        3,
        Schedule.linear(10),
        cfg=4,
        cfg_channels=3,
    )
    assert generator.decode(step.mean).shape == (2, 3, 16, 16)


def test_files_that_changed_since_are_refused(pipeline, tmp_path):
    (tmp_path / "store").mkdir()
    record = kept(pipeline, tmp_path / "store")
    write_record(tmp_path, record)
    config = tmp_path / "store" / record.transformer.sha256 / "config.json"
    config.write_text(config.read_text() + " ")

    with pytest.raises(VerificationError, match=r"config\.json of the transformer"):
        diffusion_files.load(tmp_path, weights=tmp_path / "store", device=CPU)


def test_pickled_weights_are_never_opened(pipeline):
    weights = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))

    with pytest.raises(DataError, match="no safetensors weights"):
        described(pipeline, "transformer")


def test_weights_that_were_cut_short_are_told(pipeline):
    weights = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(DataError, match="not a whole DiTTransformer2DModel"):
        checkpoints.open_transformer(pipeline / "transformer")


def test_weights_that_lack_a_tensor_are_told(pipeline):
    from safetensors.torch import load_file, save_file

    weights = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["proj_out_2.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})

    with pytest.raises(DataError, match=r"the first is proj_out_2\.bias"):
        checkpoints.open_transformer(pipeline / "transformer")


def test_another_network_is_no_transformer(pipeline):
    with pytest.raises(DataError, match="no DiTTransformer2DModel"):
        checkpoints.open_transformer(pipeline / "vae")


def test_sizes_are_read_from_the_configuration_alone(pipeline):
    for weights in pipeline.rglob("*.safetensors"):
        weights.unlink()

    known = checkpoints.facts_of(pipeline / "transformer", "mit")

    assert (known.arch.width, known.arch.depth, known.arch.heads, known.arch.patch) == (16, 2, 2, 2)
    assert (known.classes, known.latent) == (5, (4, 8, 8))
    assert checkpoints.vae_facts_of(pipeline / "vae") == (4, 2)


@pytest.mark.parametrize("source", ["./checkpoint", "./checkpoint/transformer"])
def test_a_local_model_is_found_in_its_folder_or_the_one_above(pipeline, source):
    found = checkpoints.local_folder(source, "transformer", pipeline.parent)

    assert found == pipeline / "transformer"


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json.*subfolder vae"):
        checkpoints.local_folder(".", "vae", tmp_path)


class Answer:
    """What httpx hands to the Hub's errors."""

    status_code = 403
    headers: dict[str, str] = {}  # noqa: RUF012
    request = None


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (errors.GatedRepoError("403", response=Answer()), "gated"),
        (errors.RepositoryNotFoundError("404", response=Answer()), "no such repository"),
        (errors.RevisionNotFoundError("404", response=Answer()), "no revision 'v9'"),
        (errors.LocalEntryNotFoundError("offline and not in the cache"), "cannot be fetched"),
        (ConnectionError("no route to host"), "cannot be fetched"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_hubs_answers_become_clear_errors(monkeypatch, error, what):
    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)

    with pytest.raises(DataError, match=what) as told:
        checkpoints.fetch("someone/dit", "transformer", "v9")

    assert told.value.exit_code == 4
    assert told.value.faults[0].mend


def test_a_snapshot_of_the_hub_is_found_with_its_commit(monkeypatch, pipeline):
    asked = {}

    def download(source, *, revision, allow_patterns):
        asked.update(source=source, revision=revision, patterns=allow_patterns)
        return str(pipeline)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    folder, commit = checkpoints.fetch("someone/dit", "transformer", None)

    assert (folder, commit) == (pipeline / "transformer", "checkpoint")
    assert not any("bin" in pattern or pattern == "*" for pattern in asked["patterns"])


def test_the_license_stated_wins_over_the_known_one():
    assert checkpoints.license_of("facebook/DiT-XL-2-256", None) == "cc-by-nc-4.0"
    assert checkpoints.license_of("facebook/DiT-XL-2-256", "mit") == "mit"
    assert checkpoints.license_of("someone/dit", None) is None


def test_a_record_that_is_none_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        diffusion_files.read_record(tmp_path)
    (tmp_path / "generator.json").write_text(json.dumps({"labels": [0]}))
    with pytest.raises(DataError, match="not the record of a generator"):
        diffusion_files.read_record(tmp_path)
