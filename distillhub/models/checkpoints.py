"""Published generators: diffusers checkpoints on the Hub or in a local folder, safetensors only."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distillhub.digests import digest_of, sha256_of
from distillhub.errors import DataError, VerificationError
from distillhub.models.dit_arch import DitArch
from distillhub.spec import Spec

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

CONFIG = "config.json"


class Known(NamedTuple):
    """Facts of a well-known checkpoint, for plans and checks without a download."""

    license: str
    arch: DitArch
    classes: int
    latent: tuple[int, int, int]
    """(c, h, w)."""


_XL2 = DitArch(width=1152, depth=28, heads=16, patch=2)
KNOWN = {
    "facebook/DiT-XL-2-256": Known("cc-by-nc-4.0", _XL2, 1000, (4, 32, 32)),
    "facebook/DiT-XL-2-512": Known("cc-by-nc-4.0", _XL2, 1000, (4, 64, 64)),
}


_SD_VAES = ("stabilityai/sd-vae-ft-mse", "stabilityai/sd-vae-ft-ema")
KNOWN_VAES = dict.fromkeys(_SD_VAES, (4, 8))
"""(channels of the latents, pixels per latent) of well-known autoencoders."""


def license_of(transformer: str, stated: str | None) -> str | None:
    """What a recipe says of its generator's license, else what is known of the checkpoint."""
    if stated is not None or transformer not in KNOWN:
        return stated
    return KNOWN[transformer].license


class Checkpoint(Spec):
    """The files of one model, by content."""

    source: str
    """Hub repository, or the name of a local folder."""
    part: str
    """`transformer` or `vae`."""
    revision: str | None = None
    """Commit on the Hub; None for a local folder."""
    files: dict[str, str]
    """Name -> sha256."""

    @property
    def sha256(self) -> str:
        """Over names and contents of all files."""
        return digest_of(self.files)


def is_local(source: str) -> bool:
    """Whether a source names a folder; a Hub repository begins with neither a dot nor a slash."""
    return source.startswith((".", "/", "~"))


def local_folder(source: str, part: str, base: Path) -> Path:
    """The folder of a local model, `source` itself or its subfolder `part`.

    Args:
        source: Seen from `base`.
        part: `transformer` or `vae`.
        base: Folder of the recipe.

    Raises:
        DataError: If neither holds a `config.json`.
    """
    return _inside((base / Path(source).expanduser()).resolve(), source, part)


def _inside(folder: Path, source: str, part: str) -> Path:
    for place in (folder / part, folder):
        if (place / CONFIG).is_file():
            return place
    raise DataError(
        f"there is no {CONFIG}, nor one in a subfolder {part}",
        where=source,
        mend=f"name a folder that save_pretrained wrote, or a Hub repository, with a {part}",
    )


def fetch(source: str, part: str, revision: str | None) -> tuple[Path, str]:
    """The folder of a model of the Hub, downloaded unless it is at hand, and its commit.

    Args:
        source: Repository.
        part: `transformer` or `vae`: the model stands in that subfolder, or at the top.
        revision: Branch, tag or commit; None: main.

    Raises:
        DataError: If it is missing or gated, or there is no network.
    """
    from huggingface_hub import snapshot_download

    wanted = (CONFIG, "*.safetensors", "*.safetensors.index.json")
    patterns = [*wanted, *(f"{part}/{name}" for name in wanted)]
    with _asking(source, part, revision):
        snapshot = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    return _inside(snapshot, source, part), snapshot.name


def describe(folder: Path, source: str, part: str, revision: str | None) -> Checkpoint:
    """The files of a model in `folder`.

    Raises:
        DataError: If there is no config or no safetensors file; pickled weights are never opened.
    """
    weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.safetensors.index.json"))
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"there is no {CONFIG} for a {part}",
            where=source,
            mend=f"name a repository or folder with a {part} of diffusers",
        )
    if not weights:
        raise DataError(
            f"there are no safetensors weights of the {part}; pickled ones are never opened",
            where=f"{source}, revision {revision or 'main'}",
            mend="name a revision that has them (the Hub's conversions stand under refs/pr/N), "
            "or a local folder written by save_pretrained",
        )
    files = {path.name: sha256_of(path) for path in [folder / CONFIG, *weights]}
    return Checkpoint(source=source, part=part, revision=revision, files=files)


def find_checkpoint(wanted: Checkpoint, kept: Path) -> Path:
    """The folder of a checkpoint, checked by content.

    Args:
        wanted: As the models stage found it.
        kept: Where copies of local checkpoints lie, by digest.

    Raises:
        DataError: If it cannot be had.
        VerificationError: If its files are not those of the record.
    """
    folder = kept / wanted.sha256
    if wanted.revision is not None:
        folder, _ = fetch(wanted.source, wanted.part, wanted.revision)
    found = describe(folder, wanted.source, wanted.part, wanted.revision)
    if found.files != wanted.files:
        names = sorted(
            name
            for name in wanted.files | found.files
            if wanted.files.get(name) != found.files.get(name)
        )
        raise VerificationError(
            f"{names[0]} of the {wanted.part} is not the file that the models stage took",
            where=str(folder),
            mend="bring the old files back, or build again",
        )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model.

    Raises:
        DataError: If it is no JSON object.
    """
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(folder / CONFIG)) from error
    if not isinstance(content, dict):
        raise DataError("not a JSON object", where=str(folder / CONFIG))
    return content


def facts_of(folder: Path, license_name: str) -> Known:
    """Sizes of a transformer from its configuration; the weights are not read.

    Args:
        folder: Of the transformer.
        license_name: Of its weights.

    Raises:
        DataError: If the configuration is not that of a diffusion transformer.
    """
    config = read_config(folder)
    try:
        heads, side = int(config["num_attention_heads"]), int(config["sample_size"])
        width = heads * int(config["attention_head_dim"])
        arch = DitArch(width, int(config["num_layers"]), heads, int(config["patch_size"]))
        latent = (int(config["in_channels"]), side, side)
        return Known(license_name, arch, int(config["num_embeds_ada_norm"]), latent)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the configuration of no DiTTransformer2DModel: {error}",
            where=str(folder / CONFIG),
            mend="name a checkpoint of a class-conditional diffusion transformer",
        ) from error


def vae_facts_of(folder: Path) -> tuple[int, int]:
    """Channels of the latents of an autoencoder, and pixels per latent, from its configuration.

    Raises:
        DataError: If the configuration is not that of an autoencoder.
    """
    config = read_config(folder)
    try:
        return int(config["latent_channels"]), 2 ** (len(config["block_out_channels"]) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the configuration of no AutoencoderKL: {error}",
            where=str(folder / CONFIG),
            mend="name an autoencoder of diffusers",
        ) from error


def open_transformer(folder: Path) -> "DiTTransformer2DModel":
    """The transformer of a folder, float32 on the CPU.

    Raises:
        DataError: If the files are not those of a whole `DiTTransformer2DModel`.
    """
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    facts_of(folder, "")
    return _opened(DiTTransformer2DModel, folder)


def open_vae(folder: Path) -> "AutoencoderKL":
    """The autoencoder of a folder, float32 on the CPU.

    Raises:
        DataError: If the files are not those of a whole `AutoencoderKL`.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return _opened(AutoencoderKL, folder)


def _opened(kind: Any, folder: Path) -> Any:
    try:
        model, notes = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise DataError(
            f"not a whole {kind.__name__}: {str(error).splitlines()[0]}",
            where=str(folder),
            mend="fetch or save the checkpoint again",
        ) from error
    lacking = sorted(notes["missing_keys"])
    if lacking:
        raise DataError(
            f"{len(lacking)} tensors are missing, the first is {lacking[0]}",
            where=str(folder),
            mend="fetch or save the checkpoint again",
        )
    return model


@contextmanager
def _asking(source: str, part: str, revision: str | None) -> Iterator[None]:
    """Answers of the Hub in our words."""
    from huggingface_hub import errors

    where = f"generator: {part} {source}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            "the checkpoint is gated, and you have no access to it",
            where=where,
            mend=f"accept its terms at https://huggingface.co/{source}, then `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"the repository has no revision '{revision}'", where=where, mend="name one that it has"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            "there is no such repository on the Hub, or you may not see it",
            where=where,
            mend="check the name; for a private one, `hf auth login`",
        ) from error
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot be fetched: {first}",
            where=where,
            mend="connect to the network once, or name a local folder",
        ) from error
