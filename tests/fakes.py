"""A tiny data set in memory and a workbench over it, for tests of anything that makes images."""

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distillhub.data import codec
from distillhub.data.real import RealData
from distillhub.data.specs import ImageFormat
from distillhub.methods._base import Method, Student, StudentSpec
from distillhub.models.diffusion import Diffusion, build_generator
from distillhub.models.zoo import Classifier, build
from distillhub.ops.progress import Progress, State
from distillhub.pipeline.growing import grown
from distillhub.records.distilled import DistilledSet
from distillhub.records.images import EncodedImages
from distillhub.units import Target, WorkUnit, derive_seed


def tiny_data(
    *, classes: int = 3, per_class: int = 6, channels: int = 1, side: int = 8, seed: int = 0
) -> RealData:
    """Noise of a different brightness per class, rows of the classes interleaved."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes * per_class) % classes
    noise = torch.rand(len(labels), channels, side, side, generator=generator) * 127
    base = (labels * 128 // classes).view(-1, 1, 1, 1)
    names = [f"class {label}" for label in range(classes)]
    mean, std = (0.4,) * channels, (0.25,) * channels
    return RealData.in_memory((noise + base).to(torch.uint8), labels, names, mean=mean, std=std)


class TinyBench:
    """A workbench whose networks are fresh `convnet2-w4` and whose resources lie in `folder`.

    Without one they go when the workbench goes.
    """

    def __init__(self, data: RealData, *, seed: int = 0, folder: Path | None = None) -> None:
        self.data = data
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.seed = seed
        self.folder = folder or Path(tempfile.mkdtemp())
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.networks: dict[str, Classifier] = {}
        self.diffusions: list[Diffusion] = []
        self.drawn: list[tuple[str | int, ...]] = []
        """Names of all generators that were asked for, in order."""

    def network(self, role: str) -> Classifier:
        """The same network for the same role."""
        if role not in self.networks:
            self.networks[role] = build(
                "convnet2-w4",
                num_classes=self.data.num_classes,
                channels=self.data.channels,
                height=self.data.height,
                width=self.data.width,
                mean=self.data.mean,
                std=self.data.std,
                seed=derive_seed("network", role),
            ).freeze()
        return self.networks[role]

    def weights(self, role: str) -> str:
        """A digest of the network's weights."""
        digest = hashlib.sha256()
        for name, value in self.network(role).state_dict().items():
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def file(self, name: str) -> Path:
        """Where it lies."""
        return Path(name)

    def observers(self) -> tuple[str, ...]:
        """Two of them."""
        return ("observer-0", "observer-1")

    def diffusion(self) -> Diffusion:
        """An untrained transformer on the pixels; the same every time."""
        if not self.diffusions:
            data = self.data
            sizes = (data.num_classes, data.channels, data.height, data.width)
            self.diffusions.append(build_generator("dit-w16-d2-h2-p2", *sizes, seed=3))
        return self.diffusions[0]

    def generator(self, *names: str | int) -> torch.Generator:
        """From the seed and the names alone."""
        self.drawn.append(names)
        return torch.Generator().manual_seed(derive_seed(self.seed, *names))

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """Built once per name and key."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        place = self.folder / f"{name}-{digest[:16]}"
        if not place.exists():
            place.mkdir(parents=True)
            build(place)
        return place

    def grown(
        self,
        name: str,
        key: dict[str, object],
        grow: Callable[[State | None], Generator[Progress, None, Callable[[Path], None]]],
        state: State | None,
    ) -> Generator[Progress, None, Path]:
        """As a pipeline grows it, without the data in the key."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return (yield from grown(self.folder, f"{name}-{digest[:16]}", grow, state))

    def artifact(self, base: str) -> DistilledSet:
        """One image of noise per class."""
        data, generator = self.data, torch.Generator().manual_seed(derive_seed("base", base))
        shape = (data.num_classes, data.channels, data.height, data.width)
        files = codec.encode(torch.rand(shape, generator=generator), ImageFormat())
        labels = torch.arange(data.num_classes)
        return DistilledSet(EncodedImages.of(files), labels, data.class_names, None, None, {})

    def student(
        self, spec: StudentSpec, base: str, *, number: int = 0, state: State | None = None
    ) -> Generator[Progress, None, Student]:
        """An untrained network, at once."""
        yield from ()
        role = f"student of {base} {spec.seed + number}"
        return Student(role, "convnet2-w4", self.network(role))


def target_of(data: RealData, ipc: int) -> Target:
    """What a recipe with this data and `ipc` asks for."""
    return Target(data.num_classes, ipc, data.channels, data.height, data.width)


def units_of(method: Method, target: Target, *, seed: int = 0) -> list[WorkUnit]:
    """The plan of a method as work units with derived seeds."""
    return [
        WorkUnit(
            group.name, group.slots, derive_seed(seed, method.name, method.version, group.name)
        )
        for group in method.plan(target)
    ]


def stored(state: State) -> State:
    """A snapshot as it comes back from safetensors and JSON: contiguous copies."""
    scalars = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    return {**json.loads(json.dumps(scalars)), **tensors}


def made_by(
    method: Method,
    units: Sequence[WorkUnit],
    bench: TinyBench,
    *,
    reports: list[Progress] | None = None,
) -> Tensor:
    """The images of all units, `method.together` at a time, in the order of the slots."""
    images = []
    for start in range(0, len(units), method.together):
        run = method.synthesize(units[start : start + method.together], bench)
        while True:
            try:
                report = next(run)
            except StopIteration as end:
                images.append(end.value.images)
                break
            if reports is not None:
                reports.append(report)
    return torch.cat(images)
