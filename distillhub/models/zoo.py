"""From a name or a spec to a `Classifier`: own networks, timm, torchvision.

Fresh weights come from a seed alone and leave the global generators as they were. Existing weights
are files that can be pinned by their sha256: safetensors, or the checkpoints that torchvision
ships, which are read without executing code.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from distillhub.errors import DataError, RecipeError, VerificationError
from distillhub.models.architecture import Architecture, architectures, parse_arch
from distillhub.models.classifier import Classifier
from distillhub.models.network import Foreign, Network, head_name
from distillhub.models.specs import FileFacts, ModelSpec
from distillhub.models.tensorfile import file_digest, fill, read_tensors
from distillhub.spec import nearest

__all__ = [
    "Architecture",
    "Classifier",
    "WeightsFile",
    "architectures",
    "build",
    "find_weights",
    "parse_arch",
    "pretrained",
    "seeded",
]


IMAGENET_CLASSES = 1000


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global CPU generator starts from `seed`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build(
    arch: str,
    *,
    num_classes: int,
    channels: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """A network with fresh weights, on the CPU, in train mode.

    Args:
        arch: A name that `parse_arch` understands.
        num_classes: Logits.
        channels: 1 or 3.
        height: Of the images, pixels.
        width: Of the images, pixels.
        mean: Per channel, of images in [0, 1].
        std: Per channel.
        seed: All that the weights depend on.
        class_names: Of the logits, in order.

    Raises:
        ValueError: If the name is unknown, or the network does not fit the size.
    """
    net = _fresh(parse_arch(arch), num_classes, (channels, height, width), seed)
    return Classifier(
        net,
        arch=arch,
        input_shape=(channels, height, width),
        mean=mean,
        std=std,
        class_names=class_names,
    )


class WeightsFile(NamedTuple):
    """Existing weights on this machine, and what their library says of them."""

    path: Path
    mean: tuple[float, ...] | None = None
    """None: the file does not say."""
    std: tuple[float, ...] | None = None
    input_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    """Outputs."""


def find_weights(spec: ModelSpec, *, base: Path | None = None) -> WeightsFile:
    """The weights file of a spec, fetched into the library's cache where it is not there yet.

    Args:
        spec: `weights` ending in .safetensors is a file; else `default` or a tag of timm or
            torchvision.
        base: Folder that relative file names start from.

    Raises:
        RecipeError: If the name or the tag is unknown.
        DataError: If the file is missing, or must be fetched and cannot be.
    """
    arch = _understood(spec)
    if spec.weights.endswith(".safetensors"):
        path = Path(spec.weights) if base is None else base / spec.weights
        _, header = read_tensors(path)
        return _described(path, header)
    if arch.library == "timm":
        return _timm_weights(spec)
    if arch.library == "torchvision":
        return _torchvision_weights(spec)
    raise RecipeError(
        f"'{spec.arch}' is a network of our own and has no published weights '{spec.weights}'",
        where="weights",
        mend="name a .safetensors file, or train it: replace weights by steps",
    )


def pretrained(
    spec: ModelSpec,
    *,
    base: Path | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Sequence[int] | None = None,
) -> Classifier:
    """A network with existing weights, frozen, on the CPU.

    Size and normalisation are those that the weights come with; the arguments are for files that do
    not say.

    Args:
        spec: Which network and weights; its sha256, where given, is checked first.
        base: Folder that relative file names start from.
        input_shape: Channels, height and width in pixels.
        mean: Per channel, of images in [0, 1].
        std: Per channel.
        outputs: Logits to keep, in the order of the new classes; None: all. A teacher of 1000
            classes serves a subset so.

    Raises:
        RecipeError: If name and weights do not go together, or something that the file does not say
        is missing.
        DataError: If the file cannot be had, or does not fit the network.
        VerificationError: If the file is not the pinned one.
    """
    found = find_weights(spec, base=base)
    if spec.sha256 is not None and (digest := file_digest(found.path)) != spec.sha256:
        raise VerificationError(
            f"the weights of '{spec.arch}' have sha256 {digest}, the recipe pins {spec.sha256}",
            where=str(found.path),
            mend="fetch the pinned weights, or run resolve --update to accept these",
        )
    shape, mean, std = found.input_shape or input_shape, found.mean or mean, found.std or std
    if shape is None or mean is None or std is None:
        raise RecipeError(
            f"the weights of '{spec.arch}' say neither size nor normalisation",
            where=str(found.path),
            mend="use a file written by distillhub, or give input_shape, mean and std",
        )
    net = _filled(_understood(spec), shape, found.path)
    names = spec.class_names or found.class_names
    if names is not None and len(names) != net.head.out_features:
        raise RecipeError(
            f"{len(names)} class names, but '{spec.arch}' has {net.head.out_features} outputs here",
            where=str(found.path),
            mend="list the class of every output in order",
        )
    if outputs is not None:
        net.keep_outputs(outputs)
        names = None if names is None else tuple(names[output] for output in outputs)
    classifier = Classifier(
        net, arch=spec.arch, input_shape=shape, mean=mean, std=std, class_names=names
    )
    return classifier.freeze()


def _described(path: Path, header: Mapping[str, JsonValue]) -> WeightsFile:
    """What the header of a file of ours says; nothing for files of others."""
    if not header:
        return WeightsFile(path)
    facts = FileFacts.model_validate(header)
    shape = (facts.channels, facts.height, facts.width)
    return WeightsFile(
        path, facts.mean, facts.std, shape, facts.class_names, num_classes=facts.num_classes
    )


def _understood(spec: ModelSpec) -> Architecture:
    try:
        return parse_arch(spec.arch)
    except ValueError as error:
        raise RecipeError(str(error), where="arch") from error


def _fresh(arch: Architecture, num_classes: int, shape: tuple[int, int, int], seed: int) -> Network:
    with torch.device("cpu"), seeded(seed):
        if arch.make is not None:
            return arch.make(num_classes, *shape)
        return Foreign(_library_body(arch, num_classes, shape))


def _filled(arch: Architecture, shape: tuple[int, int, int], path: Path) -> Network:
    """A network with the weights of a file: one of ours, or one with the names of its library."""
    if path.suffix == ".safetensors":
        tensors, header = read_tensors(path)
    else:
        # Only torchvision's own checkpoints come here; weights_only keeps their code from running.
        tensors = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
        header = {}
    if arch.make is not None or header:
        net = _fresh(arch, _rows(tensors, "head.weight", path), shape, 0)
        fill(net, tensors, where=str(path))
        return net
    with seeded(0):
        body = _library_body(arch, IMAGENET_CLASSES, shape)
        rows = _rows(tensors, f"{head_name(body)}.weight", path)
        if rows != IMAGENET_CLASSES:
            body = _library_body(arch, rows, shape)
    fill(body, tensors, where=str(path))
    return Foreign(body)


def _rows(tensors: Mapping[str, Tensor], name: str, path: Path) -> int:
    if name not in tensors:
        raise DataError(
            f"it has no tensor '{name}'",
            where=str(path),
            mend="give the architecture that these weights were made for",
        )
    return tensors[name].shape[0]


def _library_body(arch: Architecture, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """A network of timm or torchvision with fresh weights from the global generator.

    Raises:
        ValueError: If the library has no such network, or it does not take images of this shape.
    """
    channels, height, width = shape
    name = arch.name.partition(":")[2]
    if arch.library == "timm":
        import timm

        if not timm.is_model(name):
            raise ValueError(f"timm has no network '{name}'; {_close(name, timm.list_models())}")
        body: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=channels)
        expected = getattr(getattr(body, "patch_embed", None), "img_size", None)
        if expected is not None and tuple(expected) != (height, width):
            body = timm.create_model(
                name, num_classes=num_classes, in_chans=channels, img_size=(height, width)
            )
        return body
    from torchvision import models

    if name not in models.list_models(models):
        raise ValueError(
            f"torchvision has no network '{name}'; {_close(name, models.list_models(models))}"
        )
    if channels != 3:
        raise ValueError(
            f"torchvision networks take 3 channels, not {channels}; timm has grey ones"
        )
    tower: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return tower


def _close(name: str, known: Sequence[str]) -> str:
    """The nearest known name; the libraries have too many to list."""
    return nearest(name, known).partition("known:")[0].strip() or "see the library's list of models"


def _timm_weights(spec: ModelSpec) -> WeightsFile:
    import timm
    from huggingface_hub import hf_hub_download

    name = spec.arch.partition(":")[2]
    known = timm.list_pretrained(f"{name}.*") + timm.list_pretrained(name)
    wanted = name if spec.weights == "default" else f"{name}.{spec.weights}"
    if not known or (spec.weights != "default" and wanted not in known):
        tags = [tag.partition(".")[2] for tag in known]
        raise RecipeError(
            f"timm has no weights '{spec.weights}' for '{name}'",
            where="weights",
            mend=nearest(spec.weights, ["default", *tags]) if tags else "name a .safetensors file",
        )
    config = timm.get_pretrained_cfg(wanted)
    if config.hf_hub_id is None:
        raise RecipeError(
            f"timm ships '{wanted}' not as safetensors", where="weights", mend="choose another tag"
        )
    with _fetching(f"timm weights '{wanted}'"):
        path = Path(
            hf_hub_download(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
        )
    shape = tuple(config.input_size)
    return WeightsFile(
        path, tuple(config.mean), tuple(config.std), shape, num_classes=config.num_classes
    )


def _torchvision_weights(spec: ModelSpec) -> WeightsFile:
    from torchvision import models

    name = spec.arch.partition(":")[2]
    if name not in models.list_models(models):
        raise RecipeError(
            f"torchvision has no network '{name}'",
            where="arch",
            mend=_close(name, models.list_models(models)),
        )
    known = models.get_model_weights(name)
    tag = "DEFAULT" if spec.weights == "default" else spec.weights
    if tag not in known.__members__:
        raise RecipeError(
            f"torchvision has no weights '{spec.weights}' for '{name}'",
            where="weights",
            mend=nearest(spec.weights, ["default", *(entry.name for entry in known)]),
        )
    entry = known[tag]
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _fetching(f"torchvision weights '{name}.{entry.name}'"):
            prefix = path.stem.rpartition("-")[2]  # torchvision puts a piece of the digest there
            torch.hub.download_url_to_file(entry.url, str(path), prefix, progress=False)
    looks = entry.transforms()
    side = looks.crop_size[0]
    names = tuple(entry.meta["categories"])
    shape = (3, side, side)
    return WeightsFile(path, tuple(looks.mean), tuple(looks.std), shape, names, len(names))


@contextmanager
def _fetching(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cannot be fetched: {str(error).splitlines()[0]}",
            where=what,
            mend="connect to the network once, put the file into the library's cache, "
            "or name a .safetensors file",
        ) from error
