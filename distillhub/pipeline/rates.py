"""How long steps take on this machine: timed where that is quick, else by their FLOPs.

A probe times one step of the real network, or of blocks of the same sizes, on random numbers; on a
CPU by the time of its main thread, so that other programs do not count. What was timed is kept for
a day beside the project's other scratch, so that the next plan is quicker. Networks for which two
images are more than `PROBE_FLOPS` are never tried: they take their FLOPs over the speed of this
machine, which is that of a few layers of their kind.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distillhub.errors import StorageError
from distillhub.evaluation.training import augment
from distillhub.models.dit_arch import DitArch
from distillhub.models.specs import VaeTrainSpec
from distillhub.models.zoo import Classifier, build
from distillhub.pipeline.checkpoint import threads
from distillhub.pipeline.files import write_json
from distillhub.pipeline.run import device_name
from distillhub.pipeline.standins import Blocks, Family, count_flops, standard

PROBE_FLOPS = {"cpu": 2e9, "cuda": 2e12}
"""Of a step that is tried: some hundredths of a second. Larger batches are cut to it and scaled."""
BUDGET = 3.0
"""Seconds of all probes of a plan together; what is left over then goes by its FLOPs."""
KEPT = 24 * 3600.0
"""Seconds that a rate is kept: a machine that was busy then need not be so now."""
TRIES, LONG = 3, 0.2
"""Calls that are timed, and the seconds after which no further one is."""
IMAGENET = {
    "resnet18": 3.63e9,
    "resnet34": 7.33e9,
    "resnet50": 8.18e9,
    "resnet101": 15.6e9,
    "mobilenet_v2": 0.60e9,
    "efficientnet_b0": 0.77e9,
    "densenet121": 5.67e9,
}
"""FLOPs of a 224-pixel image, 2 per multiply-add, as torchvision documents its networks."""


class Rate(NamedTuple):
    """How long a call takes here."""

    seconds: float
    basis: str


@dataclass
class Rates:
    """Rates of one device."""

    device: torch.device
    cache: Path | None = None
    """JSON file with what was timed before."""
    budget: float = BUDGET
    _known: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Name -> seconds, or FLOPs of an image, and when that was found out."""
    _fresh: bool = False

    def __post_init__(self) -> None:
        self._read()

    def network_flops(self, arch: str, shape: tuple[int, int, int], num_classes: int) -> float:
        """FLOPs of one image forward, 2 per multiply-add."""
        _, height, width = shape
        known = IMAGENET.get(arch.removeprefix("torchvision:").removeprefix("timm:"))
        if known is not None and ":" in arch:
            return known * height * width / 224**2
        name = f"flops {arch} {shape} {num_classes}"
        if name not in self._known:
            net = _network(arch, shape, num_classes).freeze()
            self._keep(name, count_flops(net, torch.zeros(1, *shape)))
        return self._known[name][0]

    def forward(self, arch: str, shape: tuple[int, int, int], num_classes: int, batch: int) -> Rate:
        """`batch` images through a network."""

        def prepare(rows: int) -> Callable[[], object]:
            net = _network(arch, shape, num_classes).to(self.device).freeze()
            images = self._noise((rows, *shape))
            return lambda: net(images)

        flops = self.network_flops(arch, shape, num_classes)
        name = f"forward {arch} {shape} {num_classes}"
        return self.scaled(name, batch, flops, prepare, grad=False)

    def pixels(self, arch: str, shape: tuple[int, int, int], num_classes: int, batch: int) -> Rate:
        """Gradients of `batch` images under a frozen network."""

        def prepare(rows: int) -> Callable[[], object]:
            net = _network(arch, shape, num_classes).to(self.device).freeze()
            images = self._noise((rows, *shape)).requires_grad_()
            return lambda: torch.autograd.grad(net(images).square().mean(), images)

        flops = 2 * self.network_flops(arch, shape, num_classes)
        return self.scaled(f"pixels {arch} {shape} {num_classes}", batch, flops, prepare)

    def training(
        self,
        arch: str,
        shape: tuple[int, int, int],
        num_classes: int,
        batch: int,
        how: str = "none",
    ) -> Rate:
        """A step of training with its optimizer; `how`: the augmentation of a protocol."""

        def prepare(rows: int) -> Callable[[], object]:
            net = _network(arch, shape, num_classes).to(self.device)
            optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
            images = self._noise((rows, *shape))
            labels = torch.zeros(rows, dtype=torch.int64, device=self.device)
            generator = torch.Generator().manual_seed(0)

            def step() -> None:
                seen = augment(images, how, generator)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(functional.cross_entropy(net.normalized(seen), labels))
                optimizer.step()

            return step

        flops = 3 * self.network_flops(arch, shape, num_classes)
        return self.scaled(f"train {arch} {shape} {num_classes} {how}", batch, flops, prepare)

    def transformer(
        self, arch: DitArch, latent: tuple[int, int, int], rows: int, flops: float, *, train: bool
    ) -> Rate:
        """`rows` latents through a diffusion transformer; back and to its optimizer if `train`.

        Args:
            arch: Its sizes.
            latent: (c, h, w).
            rows: Per call.
            flops: Of one row forward.
            train: Whether it is a step of its training.
        """

        def prepare(rows: int) -> Callable[[], object]:
            net = Blocks(arch, latent).to(self.device)
            z = self._noise((rows, *latent))
            if not train:
                return lambda: net(z)
            optimizer = torch.optim.AdamW(net.parameters(), fused=True)

            def step() -> None:
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(net(z).square().mean())
                optimizer.step()

            return step

        name = f"{'train' if train else 'forward'} dit {tuple(arch)} {latent}"
        each = 3 * flops if train else flops
        return self.scaled(name, rows, each, prepare, "transformer", grad=train)

    def scaled(
        self,
        name: str,
        rows: int,
        flops: float,
        prepare: Callable[[int], Callable[[], object]],
        family: Family = "convolution",
        *,
        grad: bool = True,
    ) -> Rate:
        """Seconds of one call on `rows` rows, timed on fewer where they are many.

        Args:
            name: All that the time depends on besides the machine and the rows.
            rows: Per call.
            flops: Of one row.
            prepare: Gives the call on so many rows.
            family: Whose speed stands in where the call is not tried.
            grad: Whether the call needs autograd.
        """
        cut = min(rows, int(PROBE_FLOPS[self.device.type] / max(flops, 1.0)))
        if cut < min(2, rows):
            return Rate(rows * flops / self.speed(family), self._by_speed(family))
        part = self.timed(f"{name} {cut}", cut * flops, lambda: prepare(cut), family, grad=grad)
        scale = "" if cut == rows else ", scaled"
        return Rate(part.seconds * rows / cut, part.basis + scale)

    def timed(
        self,
        name: str,
        flops: float,
        prepare: Callable[[], Callable[[], object]],
        family: Family = "convolution",
        *,
        grad: bool = True,
    ) -> Rate:
        """Seconds of one call.

        Args:
            name: All that the time depends on besides the machine.
            flops: Of the call.
            prepare: Gives the call.
            family: Whose speed stands in where the call is not tried.
            grad: Whether the call needs autograd.
        """
        if name in self._known:
            return Rate(self._known[name][0], "timed here")
        if flops > PROBE_FLOPS[self.device.type] or self.budget <= 0:
            return Rate(flops / self.speed(family), self._by_speed(family))
        with torch.set_grad_enabled(grad):
            self._keep(name, self._time(prepare()))
        return Rate(self._known[name][0], "timed here")

    def speed(self, family: Family) -> float:
        """FLOP/s of this machine on layers of a kind that are neither small nor large."""
        name = f"speed {family}"
        if name not in self._known:
            net, x = standard(family)
            flops = count_flops(net, x)
            net, x = net.to(self.device), x.to(self.device)
            with torch.inference_mode():
                self._keep(name, flops / self._time(lambda: net(x)))
        return self._known[name][0]

    def _by_speed(self, family: Family) -> str:
        return f"FLOPs at {self.speed(family) / 1e12:.2g} TFLOP/s"

    def save(self) -> None:
        """Keep what was timed; a project that cannot be written to is planned all the same."""
        if self.cache is None or not self._fresh:
            return
        content = {**_content(self.cache), self._machine: self._known}
        try:
            write_json(self.cache, content)
        except (OSError, StorageError):
            return

    def _read(self) -> None:
        kept = {} if self.cache is None else _content(self.cache).get(self._machine, {})
        now = time.time()
        self._known = {n: (v, at) for n, (v, at) in kept.items() if 0 <= now - at < KEPT}

    def _keep(self, name: str, value: float) -> None:
        self._known[name] = (value, time.time())
        self._fresh = True

    @property
    def _machine(self) -> str:
        return f"{device_name(self.device)}, {threads()} threads, torch {torch.__version__}"

    def _noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def _time(self, call: Callable[[], object]) -> float:
        """The shortest of some calls after one to warm up."""
        begin = self._clock()
        call()
        best = float("inf")
        for _ in range(TRIES):
            start = self._clock()
            call()
            best = min(best, self._clock() - start)
            if self._clock() - begin > LONG:
                break
        self.budget -= self._clock() - begin
        return best

    def _clock(self) -> float:
        """Seconds of this thread on a CPU, of the world where a GPU is waited for."""
        if self.device.type == "cpu":
            return time.thread_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def _network(arch: str, shape: tuple[int, int, int], num_classes: int) -> Classifier:
    c, h, w = shape
    half = (0.5,) * c
    return build(
        arch, num_classes=num_classes, channels=c, height=h, width=w, mean=half, std=half, seed=0
    )


def _content(cache: Path) -> dict[str, dict[str, tuple[float, float]]]:
    try:
        content: dict[str, dict[str, tuple[float, float]]] = json.loads(
            cache.read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return {}
    return content


def vae_flops(spec: VaeTrainSpec, shape: tuple[int, int, int]) -> tuple[float, float]:
    """FLOPs of encoding and decoding an image: the 3 x 3 convolutions of its residual blocks."""
    _, height, width = shape
    encode = decode = 0.0
    for level, channels in enumerate(spec.widths):
        pixels = height * width / 4**level
        conv = 2 * 9 * channels**2 * pixels
        encode += 2 * conv
        decode += 4 * conv
    middle = 2 * 9 * spec.widths[-1] ** 2 * height * width / 4 ** (len(spec.widths) - 1)
    return encode + 4 * middle, decode + 4 * middle
