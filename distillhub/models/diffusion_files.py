"""A generator on disk: `generator.json`, and `generator.safetensors` where it was trained here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from distillhub.digests import digest_of
from distillhub.errors import DataError, VerificationError
from distillhub.models.checkpoints import (
    Checkpoint,
    find_checkpoint,
    open_transformer,
    open_vae,
)
from distillhub.models.diffusion import Diffusion, build_transformer
from distillhub.models.specs import DiffusionSpec, GeneratorSpec, GeneratorTrainSpec, VaeTrainSpec
from distillhub.models.tensorfile import file_digest, fill, read_tensors, write_bytes, write_tensors
from distillhub.spec import Spec

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

STEM = "generator"


class GeneratorRecord(Spec):
    """What a generator is; JSON beside its weights."""

    spec: GeneratorSpec
    """How it came about."""
    image_shape: tuple[int, int, int]
    labels: tuple[int, ...]
    """The transformer's label of each class of the data set."""
    scaling: float
    license: str | None = None
    """None: trained here, on the data set alone."""
    steps: int | None = None
    losses: dict[str, float] = Field(default_factory=dict)
    """The last ones of a training."""
    sha256: str | None = None
    """Of the safetensors file; None for a published checkpoint."""
    transformer: Checkpoint | None = None
    """The files of a published checkpoint."""
    vae: Checkpoint | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What makes the generator unlike others: digests of its weights and how they are used."""
        parts = [self.sha256 or "", *(c.sha256 for c in (self.transformer, self.vae) if c)]
        return {"weights": digest_of(parts), "scaling": self.scaling, "labels": list(self.labels)}


def build_vae(spec: VaeTrainSpec, channels: int) -> "AutoencoderKL":
    """A fresh autoencoder of images; its weights are drawn from the global generator."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(spec.widths)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=spec.widths,
        layers_per_block=1,
        latent_channels=spec.channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def latent_shape(
    spec: GeneratorTrainSpec, image_shape: tuple[int, int, int]
) -> tuple[int, int, int]:
    """(c, h, w) of the latents of images (C, H, W).

    Raises:
        ValueError: If the autoencoder cannot halve the sides so often.
    """
    if spec.vae is None:
        return image_shape
    factor = 2 ** (len(spec.vae.widths) - 1)
    _, height, width = image_shape
    if height % factor or width % factor:
        raise ValueError(f"an autoencoder by {factor} does not divide {height} x {width} pixels")
    return spec.vae.channels, height // factor, width // factor


def fresh(
    spec: GeneratorTrainSpec, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> "DiTTransformer2DModel":
    """The transformer of a spec before its training."""
    channels, height, width = latent_shape(spec, image_shape)
    return build_transformer(
        spec.arch,
        num_classes=num_classes,
        channels=channels,
        height=height,
        width=width,
        seed=seed,
        learned_variance=spec.variance == "learned",
    )


def save_trained(
    folder: Path,
    spec: GeneratorTrainSpec,
    transformer: "DiTTransformer2DModel",
    vae: "AutoencoderKL | None",
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    scaling: float,
    losses: Mapping[str, float],
) -> GeneratorRecord:
    """Write weights and record; the same weights give the same bytes.

    Raises:
        StorageError: If the folder cannot be written.
    """
    tensors: dict[str, Tensor] = _named("transformer", transformer.state_dict())
    if vae is not None:
        tensors |= _named("vae", vae.state_dict())
    digest = write_tensors(folder / f"{STEM}.safetensors", tensors, {"arch": spec.arch})
    record = GeneratorRecord(
        spec=spec,
        image_shape=image_shape,
        labels=tuple(range(num_classes)),
        scaling=scaling,
        steps=spec.steps,
        losses=dict(losses),
        sha256=digest,
    )
    write_record(folder, record)
    return record


def write_record(folder: Path, record: GeneratorRecord) -> None:
    """Write `generator.json`.

    Raises:
        StorageError: If the folder cannot be written.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(folder / f"{STEM}.json", f"{text}\n".encode())


def read_record(folder: Path) -> GeneratorRecord:
    """The record of a generator; its weights are not read.

    Raises:
        DataError: If there is none, or it is not one of ours.
    """
    path = folder / f"{STEM}.json"
    try:
        return GeneratorRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            mend="give the recipe a generator: block and run the models stage",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"not the record of a generator: {key}: {first['msg']}",
            where=str(path),
            mend="run the models stage again",
        ) from error


def load(folder: Path, *, weights: Path, device: torch.device) -> Diffusion:
    """The generator of a build, frozen, on the device.

    Args:
        folder: Output of the models stage.
        weights: Where `resolve` keeps copies of local checkpoints.
        device: Where it works.

    Raises:
        DataError: If a file is missing or unreadable.
        VerificationError: If the weights are not those of the record.
        PipelineError: If a published checkpoint cannot be had.
    """
    record = read_record(folder)
    transformer, vae = _trained(folder, record) if record.sha256 else _published(record, weights)
    try:
        return Diffusion(
            transformer,
            vae,
            image_shape=record.image_shape,
            labels=record.labels,
            scaling=record.scaling,
            identity=record.identity,
            license=record.license,
            device=device,
        )
    except ValueError as error:
        raise DataError(
            str(error),
            where="generator",
            mend="set dataset.size and the autoencoder to what the transformer was made for",
        ) from error


def _trained(folder: Path, record: GeneratorRecord) -> "tuple[Any, AutoencoderKL | None]":
    path = folder / f"{STEM}.safetensors"
    found = file_digest(path)
    if found != record.sha256:
        raise VerificationError(
            f"the weights have sha256 {found}, the record says {record.sha256}",
            where=str(path),
            mend="train the generator again",
        )
    spec = record.spec
    if not isinstance(spec, GeneratorTrainSpec):
        raise DataError("a published checkpoint has no weights file here", where=str(path))
    tensors, _ = read_tensors(path)
    transformer = fresh(spec, record.image_shape, len(record.labels), seed=0)
    fill(transformer, _part("transformer", tensors), where=str(path))
    if spec.vae is None:
        return transformer, None
    vae = build_vae(spec.vae, record.image_shape[0])
    fill(vae, _part("vae", tensors), where=str(path))
    return transformer, vae


def _published(record: GeneratorRecord, weights: Path) -> "tuple[Any, AutoencoderKL | None]":
    spec = record.spec
    if not isinstance(spec, DiffusionSpec) or record.transformer is None:
        raise DataError(
            "the record names no weights", where=STEM, mend="run the models stage again"
        )
    transformer = open_transformer(find_checkpoint(record.transformer, weights))
    vae = None if record.vae is None else open_vae(find_checkpoint(record.vae, weights))
    return transformer, vae


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
