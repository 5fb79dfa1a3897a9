"""DsCo with its noise optimised class by class as published, and as the pipeline runs it.

Both make the same images from the same generator, real latents, projectors and random numbers. The
plain loop is in `benchmarks/plain_nopt.py`. Times are of whole samplings, split into their parts;
the floor is what the parts' FLOPs take at the rate of a large matrix product on the same device.

    python -m benchmarks.nopt [--threads 1] [--repeats 3]
    python -m benchmarks.nopt --real [--ipc 10 50 100] [--together 10]

`--real` needs a GPU: DiT-XL/2 and the autoencoder of Stable Diffusion with random weights, 1300
real latents per class, 50 steps of 200 iterations. Nothing is downloaded.
"""

import argparse
import contextlib
import functools
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import plain_nopt
from distillhub.data.real import RealData
from distillhub.methods import dsco as dsco_module
from distillhub.methods._nopt import CHUNK, Sampling, Targets
from distillhub.methods._nopt_cost import class_flops
from distillhub.methods.dsco import DsCo
from distillhub.models.diffusion import Diffusion, build_transformer
from distillhub.models.dit_arch import parse_dit
from distillhub.models.tensorfile import write_tensors
from distillhub.ops.diffusion import Posterior, Schedule, posterior
from distillhub.ops.latin import jittered_strata, start_noise
from distillhub.units import Target, WorkUnit, derive_seed

RESULTS = Path(__file__).parent / "results"
XL = "dit-w1152-d28-h16-p2"
DECODE, ENCODE = 622e9, 273e9
"""FLOPs of the autoencoder of Stable Diffusion for one image of 256 pixels."""
STD = 0.8
"""Of the real latents."""
IMAGENET = 1000
PAPER_HOURS = {10: 42, 50: 76}
"""Preparation and generation for ImageNet-1k on an RTX 2080 Ti; the paper's table 12."""
PARTS = ("generator", "nopt", "targets", "decode")


class Case(NamedTuple):
    """What is made."""

    name: str
    arch: str
    latent: tuple[int, int, int]
    classes: int
    ipc: int
    real: int
    """Latents per class; 5 times as many are a multiple of the IPC."""
    method: DsCo


TOYS = (
    Case(
        "8 x 8 pixels, projector 64-512",
        "dit-w128-d4-h4-p2",
        (1, 8, 8),
        10,
        3,
        99,
        DsCo(
            steps=6, cfg=2.0, nopt={"iterations": 20, "projector": {"widths": (64, 128, 256, 512)}}
        ),
    ),
    Case(
        "32 x 32 x 4 latents, published projector",
        "dit-w64-d2-h2-p2",
        (4, 32, 32),
        2,
        10,
        20,
        DsCo(steps=3, nopt={"iterations": 10}),
    ),
)


class Bench:
    """A workbench over noise: the time does not depend on the images."""

    def __init__(self, case: Case, diffusion: Diffusion, folder: Path) -> None:
        self.case, self._diffusion, self._folder = case, diffusion, folder
        self.device, self.dtype = diffusion.device, torch.float32
        labels = torch.arange(case.classes).repeat_interleave(case.real)
        names = [f"class {label}" for label in range(case.classes)]
        pixels = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)  # never looked at
        self.data = RealData.in_memory(pixels, labels, names)

    def generator(self, *names: str | int) -> torch.Generator:
        """From the names alone."""
        return torch.Generator().manual_seed(derive_seed(*names))

    def diffusion(self) -> Diffusion:
        """The generator."""
        return self._diffusion

    def network(self, role: str) -> object:
        """There is none."""
        raise KeyError(role)

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        """Random latents in place of encoded images."""
        del build
        label = key["label"]
        place = self._folder / f"{name}-{label}"
        if not place.exists():
            latents = torch.randn(
                (self.case.real, *self.case.latent), generator=self.generator("real", str(label))
            )
            write_tensors(place / "content.safetensors", {"latents": STD * latents}, {})
        return place


class Normal(Diffusion):
    """A transformer of random weights whose answer is replaced by that for normal latents.

    Left to itself it would lead the samples far away from the real latents, to where the
    optimisation diverges. Its time is spent all the same.
    """

    def predict(
        self,
        z: Tensor,
        labels: Tensor,
        index: int,
        schedule: Schedule,
        *,
        cfg: float,
        cfg_channels: int,
    ) -> Posterior:
        """What is true if latents are normal with the deviation `STD`."""
        super().predict(z, labels, index, schedule, cfg=cfg, cfg_channels=cfg_channels)
        abar = schedule.abar[index].item()
        eps = z * (1 - abar) ** 0.5 / (abar * STD**2 + 1 - abar)
        return posterior(z, eps, torch.zeros_like(z), index, schedule)


class Clock:
    """Wall and CPU seconds of named parts."""

    def __init__(self, device: torch.device) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self._device = device

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Count the block as a part."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._wait()
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += time.process_time() - cpu

    @contextlib.contextmanager
    def over(self, owner: object, **names: str) -> Iterator[None]:
        """Count the calls of `owner`'s functions: attribute -> part."""
        before = {attribute: getattr(owner, attribute) for attribute in names}
        for attribute, part in names.items():
            setattr(owner, attribute, self._wrapped(before[attribute], part))
        try:
            yield
        finally:
            for attribute, function in before.items():
                setattr(owner, attribute, function)

    def _wrapped(self, function: Callable[..., object], part: str) -> Callable[..., object]:
        @functools.wraps(function)
        def call(*given: object, **named: object) -> object:
            with self.time(part):
                return function(*given, **named)

        return call

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def run_ours(case: Case, bench: Bench) -> tuple[Tensor, Clock]:
    """The method as the pipeline runs it."""
    channels, height, width = bench.diffusion().image_shape
    target = Target(case.classes, case.ipc, channels, height, width)
    units = [WorkUnit(group.name, group.slots, 0) for group in case.method.plan(target)]
    clock = Clock(bench.device)
    images = []
    with contextlib.ExitStack() as timed:
        timed.enter_context(clock.over(bench.diffusion(), predict="generator", decode="decode"))
        timed.enter_context(clock.over(Targets, at="targets"))
        timed.enter_context(clock.over(dsco_module, _run="nopt"))
        with clock.time("all"):
            for start in range(0, len(units), case.method.together):
                part = units[start : start + case.method.together]
                run = case.method.synthesize(part, bench)  # type: ignore[arg-type]
                while True:
                    try:
                        next(run)
                    except StopIteration as end:
                        images.append(end.value.images)
                        break
    return torch.cat(images), clock


def run_plain(case: Case, bench: Bench) -> tuple[Tensor, Clock]:
    """The published loop on the same generator, latents, projectors and random numbers."""
    diffusion, spec = bench.diffusion(), case.method.nopt
    schedule = Schedule.linear(case.method.steps)
    settings = plain_nopt.Settings(spec.iterations, spec.lr, spec.momentum, spec.lambda_align)
    widths, groups = spec.projector.widths, spec.projector.groups
    clock = Clock(bench.device)
    images = []
    with contextlib.ExitStack() as timed:
        timed.enter_context(clock.over(diffusion, predict="generator", decode="decode"))
        timed.enter_context(clock.over(plain_nopt, plain_search="nopt"))
        timed.enter_context(clock.over(plain_nopt, plain_targets="targets"))
        with clock.time("all"):
            for label in range(case.classes):
                sampling = Sampling(diffusion.predict, schedule, {})  # type: ignore[arg-type]
                targets = Targets(spec, [label], case.ipc, bench, sampling)  # type: ignore[arg-type]
                list(targets.prepare())
                latents = targets.kept[0]["latents"]
                own = targets.projectors[0]
                parameters = [p for pair in zip(own.weights, own.biases, strict=True) for p in pair]
                net: nn.Module = plain_nopt.plain_projector(
                    case.latent[0], widths, groups, parameters
                ).to(bench.device)

                def noise_of(
                    index: int, label: int = label, latents: Tensor = latents
                ) -> tuple[Tensor, Sequence[Tensor]]:
                    return _noises(case, bench, label, index, latents)

                def predict(z: Tensor, index: int, label: int = label) -> Posterior:
                    labels = torch.full((len(z),), diffusion.labels[label])
                    method = case.method
                    return diffusion.predict(
                        z, labels, index, schedule, cfg=method.cfg, cfg_channels=method.cfg_channels
                    )

                first = bench.generator("init", label)
                z = start_noise(case.method.start, case.ipc, case.latent, first).to(bench.device)
                done = plain_nopt.plain_class(
                    net, predict, latents, z, noise_of, schedule, settings
                )
                images.append(diffusion.decode(done))
    return torch.cat(images), clock


def _noises(
    case: Case, bench: Bench, label: int, index: int, latents: Tensor
) -> tuple[Tensor, Sequence[Tensor]]:
    """First noise of the samples of a step, and the noises of the copies of the real latents."""
    shape = (case.ipc, *case.latent)
    eps = torch.randn(shape, generator=bench.generator("noise", label, index)).to(bench.device)
    seed = bench.generator("targets", label, index).initial_seed()
    generator = torch.Generator(bench.device).manual_seed(seed)
    copies = case.method.nopt.target_copies
    parts = [
        jittered_strata(copies, len(part), case.latent, generator)
        for part in torch.split(latents, CHUNK)
    ]
    return eps, list(torch.cat(parts, dim=1))


def rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOPs per second of a large matrix product."""
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        clock = Clock(device)
        with clock.time("product"):
            a @ a
        best = max(best, 2 * side**3 / clock.wall["product"])
    return best


def floor(case: Case, device: torch.device) -> tuple[float, float]:
    """TFLOP of the case, and the seconds that they take at the rate of matrix products."""
    arch = parse_dit(case.arch)
    c, side, _ = case.latent
    work = class_flops(
        case.method.nopt,
        case.latent,
        n=case.ipc,
        real=case.real,
        steps=case.method.steps,
        rows=1 if case.method.cfg == 1 else 2,
        generator=arch.flops(c, 2 * c, side),
        decode=DECODE if case.arch == XL else 0.0,
        encode=0.0,
    )
    cuda = device.type == "cuda"
    size = 8192 if cuda else 1024
    exact = rate(device, torch.float32, size)
    narrow = rate(device, torch.bfloat16, size) if cuda else exact
    own = work.nopt + work.targets + work.decode
    total = case.classes * (work.generator + own) / 1e12
    return total, case.classes * (work.generator / narrow + own / exact)


def compare(case: Case, bench: Bench, repeats: int, *, plain: bool = True) -> dict[str, object]:
    """Median seconds of both, in turns; the first round is warm-up where there are more."""
    rounds = []
    peaks: dict[str, int] = {}
    for _ in range(repeats + (repeats > 1)):
        made = []
        for name, run in (("distillhub", run_ours), ("plain", run_plain)):
            if name == "distillhub" or plain:
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                made.append((name, *run(case, bench)))
                if bench.device.type == "cuda":
                    peaks[name] = torch.cuda.max_memory_allocated()
        rounds.append(made)
    images = case.classes * case.ipc
    result: dict[str, object] = {"case": case.name, "classes": case.classes, "ipc": case.ipc}
    medians: dict[tuple[str, str], float] = {}
    for place, (name, _, _) in enumerate(rounds[0]):
        clocks = [made[place][2] for made in rounds[repeats > 1 :]]
        for kind in ("wall", "cpu"):
            medians[name, kind] = statistics.median(getattr(c, kind)["all"] for c in clocks)
        whole = statistics.median(clock.wall["all"] for clock in clocks)
        result[name] = {
            "seconds_per_image": whole / images,
            "cpu_seconds_per_image": medians[name, "cpu"] / images,
            "share": {
                p: statistics.median(c.wall[p] / c.wall["all"] for c in clocks) for p in PARTS
            },
            "nopt_cpu_seconds": statistics.median(clock.cpu["nopt"] for clock in clocks),
            "targets_cpu_seconds": statistics.median(clock.cpu["targets"] for clock in clocks),
            "peak_bytes": peaks.get(name),
            "imagenet_hours": whole / case.classes * IMAGENET / 3600,
        }
    if plain:
        ours, theirs = rounds[-1][0][1], rounds[-1][1][1]
        result |= {
            f"speedup_{kind}": medians["plain", kind] / medians["distillhub", kind]
            for kind in ("wall", "cpu")
        }
        result["largest_pixel_difference"] = (ours - theirs).abs().max().item()
        result["mean_pixel_difference"] = (ours - theirs).abs().mean().item()
    tera, seconds = floor(case, bench.device)
    return result | {"tflop": tera, "floor_seconds_per_image": seconds / images}


def toy(case: Case) -> Diffusion:
    """A small random transformer on the latents themselves."""
    c, height, width = case.latent
    net = build_transformer(
        case.arch, num_classes=case.classes, channels=c, height=height, width=width, seed=0
    )
    return Normal(net, None, image_shape=case.latent, labels=range(case.classes))


def real() -> Diffusion:
    """DiT-XL/2 with the autoencoder of Stable Diffusion, random weights, on the GPU."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = (128, 256, 512, 512)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        sample_size=256,
    )
    net = build_transformer(XL, num_classes=IMAGENET, channels=4, height=32, width=32, seed=0)
    return Normal(
        net,
        vae,
        image_shape=(3, 256, 256),
        labels=range(IMAGENET),
        scaling=0.18215,
        device=torch.device("cuda"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write `results/nopt.json` and `results/nopt.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="DiT-XL/2 on a GPU")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--together", type=int, default=10, help="classes per call, of ours")
    parser.add_argument("--plain-ipc", type=int, nargs="*", default=[10], help="also run plainly")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cases = TOYS
    if options.real:
        method = DsCo(together=options.together)
        cases = tuple(
            Case(f"DiT-XL/2, IPC {ipc}", XL, (4, 32, 32), options.together, ipc, 1300, method)
            for ipc in options.ipc
        )
    found = []
    shared = real() if options.real else None
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(case, shared or toy(case), Path(folder))
            plain = not options.real or case.ipc in options.plain_ipc
            found.append(compare(case, bench, 1 if options.real else options.repeats, plain=plain))
        print(json.dumps(found[-1], indent=1), flush=True)
    gpu = torch.cuda.get_device_name() if options.real else None
    facts = {
        "device": gpu or f"CPU ({torch.backends.cpu.get_cpu_capability()})",
        "threads": options.threads,
        "torch": str(torch.__version__),
        "load_average": os.getloadavg()[0],
        "cases": found,
    }
    path = RESULTS / "nopt.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept["real" if options.real else "toy"] = facts
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "nopt.md").write_text(_markdown(kept), encoding="utf-8")


def _markdown(kept: dict[str, dict[str, object]]) -> str:
    lines = ["# NOpt: ours and the published loop\n"]
    for kind, facts in kept.items():
        cases = facts["cases"]
        assert isinstance(cases, list)
        flag = " --real" if kind == "real" else ""
        lines += [
            f"`python -m benchmarks.nopt{flag}` on {facts['device']}, "
            f"{facts['threads']} thread(s), torch {facts['torch']}; load average "
            f"{facts['load_average']:.1f}. Shares are of the wall clock: generator, NOpt, targets, "
            "decoding.\n",
            "| case | loop | s/image | CPU s/image | floor s/image | shares | peak GB | "
            "ImageNet-1k h | ours is faster by (wall, CPU) |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for case in cases:
            for name in ("plain", "distillhub"):
                if name not in case:
                    continue
                run = case[name]
                shares = " / ".join(f"{100 * run['share'][part]:.0f}" for part in PARTS)
                peak = "" if run["peak_bytes"] is None else f"{run['peak_bytes'] / 1e9:.1f}"
                real_size = kind == "real"
                hours = f"{run['imagenet_hours']:.1f}" if real_size else ""
                if real_size and case["ipc"] in PAPER_HOURS:
                    hours += f" (paper: {PAPER_HOURS[case['ipc']]})"
                gain = ""
                if name == "distillhub" and "speedup_wall" in case:
                    gain = f"{case['speedup_wall']:.1f}x, {case['speedup_cpu']:.1f}x"
                lines.append(
                    f"| {case['case']}, {case['classes']} classes of {case['ipc']} | {name} | "
                    f"{run['seconds_per_image']:.4f} | {run['cpu_seconds_per_image']:.4f} | "
                    f"{case['floor_seconds_per_image']:.4f} | {shares} % | {peak} | {hours} | "
                    f"{gain} |"
                )
        lines.append("")
        lines += [
            f"{case['case']}: the images differ by at most {case['largest_pixel_difference']:.1e}, "
            f"{case['mean_pixel_difference']:.1e} on average.\n"
            for case in cases
            if "largest_pixel_difference" in case
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
