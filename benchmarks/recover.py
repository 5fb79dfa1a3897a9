"""Seconds per synthesis step and the cost of statistics: EDC as the pipeline runs it, and plainly.

The plain loop is in `benchmarks/plain_recover.py`: hooks that take and compare every statistic by
itself. Both get the same observers, targets, looks and first images, take their steps in turns, and
must find the same losses and images. Both collect their targets from the same augmented images,
once into one file per observer, once into one file per layer and class.

    python -m benchmarks.recover [--threads 1] [--rounds 2] [--images 512] [--cases cifar10 ...]

The images are noise of a different brightness per class, the observers have random weights and
running statistics of these images: neither changes the time.
"""

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import plain_recover
from distillhub.data.real import RealData
from distillhub.methods._recover_observers import guiding
from distillhub.methods.edc import EDC
from distillhub.models.classifier import Classifier
from distillhub.models.statistics import ObserverStatistics, shown_batches
from distillhub.models.zoo import build
from distillhub.ops.pixels import denormalize, normalize
from distillhub.ops.progress import Progress, State
from distillhub.ops.recovering import draw_look
from distillhub.pipeline.checkpoint import pin_threads
from distillhub.pipeline.growing import grown
from distillhub.units import Target, WorkUnit, derive_seed

RESULTS = Path(__file__).parent / "results"
STRICT = 2
"""Steps after which every observer alone must agree; later, deep networks with random weights make
rounding large, by a factor of ten every step or two, so that it is shown and not judged."""
LOSS, PIXEL = 1e-5, 1e-4
"""How far losses (relative) and images (on average, of pixels in [0, 1]) may lie apart then."""
DRIFT = 1e-3
"""How far both may lie apart at the end of a longer run over ConvNets, which are not so deep."""
TABLE = 1e-3
"""How far class tables may lie apart, in norms: the half precision of the file."""


class Case(NamedTuple):
    """A data set and its observers."""

    name: str
    shape: tuple[int, int, int]
    archs: tuple[str, ...]
    classes: int = 10
    ipc: int = 10


CASES = (
    Case(
        "cifar10",
        (3, 32, 32),
        (
            "resnet18",
            "convnet3",
            "mobilenetv2-0.5",
            "wrn16-2",
            "shufflenetv2-0.5",
            "convnet1",
            "convnet2",
            "convnet3-w32",
        ),
    ),
    Case(
        "fashion_mnist",
        (1, 28, 28),
        ("convnet3-w32-bn", "convnet2-w32-bn", "convnet3-w32", "convnet2-w32"),
    ),
)


class Bench:
    """A workbench over noise; what it grows lies in `folder`."""

    def __init__(self, case: Case, images: int, folder: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(images) % case.classes
        noise = torch.rand(images, *case.shape, generator=generator) * 155
        pixels = noise + (labels * 100 // case.classes).view(-1, 1, 1, 1)
        channels = case.shape[0]
        self.data = RealData.in_memory(
            pixels.to(torch.uint8),
            labels,
            [f"class {label}" for label in range(case.classes)],
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
        )
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.folder = folder
        self.networks = {
            f"observer-{number}": self._observer(arch, case, number)
            for number, arch in enumerate(case.archs)
        }

    def _observer(self, arch: str, case: Case, seed: int) -> Classifier:
        channels, height, width = case.shape
        net = build(
            arch,
            num_classes=case.classes,
            channels=channels,
            height=height,
            width=width,
            mean=self.data.mean,
            std=self.data.std,
            seed=seed,
        )
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            net.train()(self.data.images(range(64)))
        return net.freeze()

    def generator(self, *names: str | int) -> torch.Generator:
        """From the names alone."""
        return torch.Generator().manual_seed(derive_seed(*names))

    def network(self, role: str) -> Classifier:
        """An observer."""
        return self.networks[role]

    def observers(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.networks)

    def weights(self, role: str) -> str:
        """A name in place of a digest."""
        return role

    def grown(
        self,
        name: str,
        key: dict[str, object],
        grow: Callable[[State | None], Generator[Progress, None, Callable[[Path], None]]],
        state: State | None,
    ) -> Generator[Progress, None, Path]:
        """As a pipeline grows it."""
        return grown(self.folder, f"{name}-{key['observer']}", grow, state)


class Clock:
    """Seconds on the wall and of all threads, from the moment it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall, CPU; the latter is steadier on a busy machine."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


class Step(NamedTuple):
    """One step of a run."""

    loss: float
    wall: float
    cpu: float


def steps_of(run: Iterator[float]) -> Iterator[Step]:
    """The steps with their times."""
    while True:
        clock = Clock()
        loss = next(run, None)
        if loss is None:
            return
        yield Step(loss, *clock.read())


def ours(method: EDC, bench: Bench, case: Case, made: list[Tensor]) -> Iterator[float]:
    """The losses of the method as the pipeline runs it; its images go to `made`."""
    target = Target(case.classes, case.ipc, *case.shape)
    units = [WorkUnit(group.name, group.slots, 0) for group in method.plan(target)]
    run = method.synthesize(units, bench)  # type: ignore[arg-type]
    while True:
        try:
            yield next(run).metrics["loss"]
        except StopIteration as end:
            made.append(end.value.images)
            return


def plain(
    method: EDC, bench: Bench, case: Case, start: Tensor, made: list[Tensor]
) -> Iterator[float]:
    """The losses of the plain loop, on the same observers, targets, looks and first images."""
    mean, std = bench.data.mean, bench.data.std
    x = normalize(start, mean, std)
    ends = (torch.full((1, case.shape[0], 1, 1), end) for end in (0.0, 1.0))
    low, high = (normalize(end, mean, std) for end in ends)
    observers = [  # copies: the hooks of one loop must not see the passes of the other
        (copy.deepcopy(bench.network(role)), kept(bench, role).layers) for role in bench.observers()
    ]
    crop = method.augment.crop
    flat = method.losses.flatness

    def look_at(t: int) -> Callable[[Tensor], Tensor]:
        generator = bench.generator("look", 0, t)
        return draw_look(case.shape[1:], generator=generator, scale=crop).at

    settings = plain_recover.Settings(
        method.iterations,
        method.lr,
        method.match.alpha,
        method.match.momentum,
        method.losses.stat,
        method.match.first_multiplier,
        flat.weight,
        flat.beta,
        flat.tau,
        method.taps.patch_side,
    )
    labels = torch.arange(case.classes).repeat_interleave(case.ipc)
    yield from plain_recover.recover(observers, x, labels, (low, high), look_at, settings)
    made.append(denormalize(x.detach(), mean, std).clamp(0, 1))


def kept(bench: Bench, role: str) -> ObserverStatistics:
    """The targets of an observer, from its file."""
    return ObserverStatistics.load(bench.folder / f"statistics-{role}" / "statistics.safetensors")


def compare_steps(case: Case, bench: Bench, rounds: int) -> dict[str, object]:
    """Median seconds per observer of both; every observer's first step is warm-up."""
    count = len(case.archs)
    method = EDC(iterations=count * (rounds + 1))
    started: list[Tensor] = []
    list(ours(method.model_copy(update={"iterations": 0}), bench, case, started))
    images: list[Tensor] = []
    runs = (
        steps_of(ours(method, bench, case, images)),
        steps_of(plain(method, bench, case, started[0], images)),
    )
    pairs = list(zip(*runs, strict=True))
    per_observer = {}
    for number, arch in enumerate(case.archs):
        own = pairs[count + number :: count]
        per_observer[arch] = {
            f"{name}_{clock}": statistics.median(getattr(pair[which], clock) for pair in own)
            for which, name in enumerate(("distillhub", "plain"))
            for clock in ("wall", "cpu")
        }
    totals = {
        key: sum(times[key] for times in per_observer.values()) / count
        for key in ("distillhub_wall", "plain_wall", "distillhub_cpu", "plain_cpu")
    }
    loss = max(abs(a.loss - b.loss) / abs(b.loss) for a, b in pairs)
    pixel = (images[0] - images[1]).abs()
    short = len(pairs) <= STRICT
    if short or all(arch.startswith("convnet") for arch in case.archs):
        assert loss < (LOSS if short else DRIFT), loss
        assert pixel.mean() < (PIXEL if short else DRIFT), pixel.mean()
    return {
        "steps": len(pairs),
        "seconds_per_step": totals,
        "speedup_wall": totals["plain_wall"] / totals["distillhub_wall"],
        "speedup_cpu": totals["plain_cpu"] / totals["distillhub_cpu"],
        "observers": per_observer,
        "largest_relative_loss_difference": loss,
        "mean_pixel_difference": pixel.mean().item(),
        "largest_pixel_difference": pixel.max().item(),
    }


def agreement(case: Case, arch: str) -> dict[str, object]:
    """Two steps of one observer alone, on few images; both must find the same."""
    own = case._replace(archs=(arch,), ipc=2)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(own, 64, Path(scratch) / "distillhub")
        compare_statistics(bench, Path(scratch) / "plain")
        found = compare_steps(own, bench, 1)
    kept = ("steps", "largest_relative_loss_difference", "mean_pixel_difference")
    return {key: found[key] for key in kept}


def collect_ours(bench: Bench) -> tuple[float, float]:
    """Collect the targets of all observers, one file each; wall and CPU seconds."""
    method = EDC()
    clock = Clock()
    run = guiding(
        bench.observers(),
        bench,  # type: ignore[arg-type]
        method.taps,
        method.statistics,
        matched=True,
        by_class=True,
        state=None,
    )
    for _ in run:
        pass
    return clock.read()


def collect_plainly(bench: Bench, folder: Path) -> tuple[float, float]:
    """The same, image by image, one file per layer and class; wall and CPU seconds."""
    method = EDC()
    clock = Clock()
    for role in bench.observers():
        collector = plain_recover.Collector(bench.network(role), method.taps.patch_side)
        for images, labels in shown_batches(bench.data, method.statistics):
            collector.add(images, labels)
        collector.save(folder / role)
    return clock.read()


def compare_statistics(bench: Bench, folder: Path) -> dict[str, object]:
    """Seconds, files and bytes of both; they must be the same statistics."""
    times = {"distillhub": collect_ours(bench), "plain": collect_plainly(bench, folder)}
    files = {
        "distillhub": list(bench.folder.rglob("*.safetensors")),
        "plain": list(folder.rglob("*.npz")),
    }
    apart = max(difference(bench, role, folder / role) for role in bench.observers())
    assert apart < TABLE, apart
    result: dict[str, object] = {"images": len(bench.data), "largest_relative_difference": apart}
    for name in ("distillhub", "plain"):
        stats = [path.stat() for path in files[name]]
        result[name] = {
            "seconds_wall": times[name][0],
            "seconds_cpu": times[name][1],
            "files": len(stats),
            "bytes": sum(stat.st_size for stat in stats),
            "bytes_on_disk": sum(512 * stat.st_blocks for stat in stats),
        }
    return result


def difference(bench: Bench, role: str, folder: Path) -> float:
    """Largest relative distance, in Euclidean norms, of the target tables of an observer."""
    apart = []
    for path, layer in kept(bench, role).layers.items():
        places = [folder / path / f"class{label}" for label in range(bench.data.num_classes)]
        for moments, files in ((layer.classes, places), (layer.overall, [folder / path])):
            if layer.kind == "bn" and moments is layer.overall:
                continue  # nothing to collect
            stored = [np.load(place / "running.npz") for place in files]
            for name in stored[0].files:
                wanted = torch.from_numpy(np.stack([each[name] for each in stored]))
                found = getattr(moments, name).view_as(wanted)
                apart.append(float((found - wanted).norm() / wanted.norm()))
    return max(apart)


def page(result: dict[str, Any], cases: dict[str, dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = [
        "# Recovering: ours and hooks as published",
        "",
        f"`python -m benchmarks.recover` on CPU ({result['cpu']}), {result['threads']} thread(s), "
        f"torch {result['torch']}; load average {result['load_average']:.1f}. EDC with its "
        "defaults, 100 images per batch: seconds of CPU per step, medians.",
        "",
        "| case | observer | plain | distillhub | faster by |",
        "|---|---|---|---|---|",
    ]
    for name, case in cases.items():
        steps = case["steps"]
        rows = {**steps["observers"], "**mean**": steps["seconds_per_step"]}
        for arch, times in rows.items():
            a, b = times["plain_cpu"], times["distillhub_cpu"]
            lines.append(f"| {name} | {arch} | {a:.3f} | {b:.3f} | {a / b:.2f}x |")
    for name, case in cases.items():
        steps, alone = case["steps"], list(case["alone"].values())
        loss = max(each["largest_relative_loss_difference"] for each in alone)
        pixel = max(each["mean_pixel_difference"] for each in alone)
        lines += [
            "",
            f"{name}: each observer alone, after {STRICT} steps: the losses differ by at most "
            f"{loss:.1e} of their value, the images by {pixel:.1e} on average, of pixels in "
            f"[0, 1]. All in turn, over {steps['steps']} steps: "
            f"{steps['largest_relative_loss_difference']:.1e} and "
            f"{steps['mean_pixel_difference']:.1e}.",
        ]
    lines += [
        "",
        "Statistics of all observers of a case:",
        "",
        "| case | images | how | seconds of CPU | files | MB | MB on disk |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in cases.items():
        for how in ("plain", "distillhub"):
            row = case["statistics"][how]
            lines.append(
                f"| {name} | {case['statistics']['images']} | {how} | {row['seconds_cpu']:.1f} | "  # type: ignore[index]
                f"{row['files']} | {row['bytes'] / 1e6:.2f} | {row['bytes_on_disk'] / 1e6:.2f} |"  # type: ignore[index]
            )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write `benchmarks/results/recover.json` and `recover.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="measured steps per observer")
    parser.add_argument("--images", type=int, default=512, help="real images of the statistics")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--archs", nargs="*", help="only these observers")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    os.environ["DISTILLHUB_THREADS"] = str(options.threads)
    pin_threads()  # as in a stage, for both
    cases = {}
    for case in CASES:
        if case.name in options.cases:
            archs = tuple(a for a in case.archs if a in (options.archs or case.archs))
            with tempfile.TemporaryDirectory() as scratch:
                own = case._replace(archs=archs)
                bench = Bench(own, options.images, Path(scratch) / "distillhub")
                cases[case.name] = {
                    "statistics": compare_statistics(bench, Path(scratch) / "plain"),
                    "steps": compare_steps(own, bench, options.rounds),
                    "alone": {arch: agreement(own, arch) for arch in archs},
                }
    result = {
        "threads": options.threads,
        "torch": str(torch.__version__),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0],  # beyond the threads, only the CPU seconds mean much
        "cases": cases,
    }
    options.results.mkdir(exist_ok=True, parents=True)
    text = json.dumps(result, indent=2) + "\n"
    (options.results / "recover.json").write_text(text, encoding="utf-8")
    (options.results / "recover.md").write_text(page(result, cases), encoding="utf-8")
    print(page(result, cases))


if __name__ == "__main__":
    main()
