"""What DsCo costs: FLOPs of each part, and one call of it to be timed.

Source: Liu et al., Dataset Concentration (arXiv 2603.27987); the counts follow from the layers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from distillhub.methods._base import CostPart, LatentShape
from distillhub.methods._nopt import CHUNK, NoptSpec, da_target, passes
from distillhub.ops.diffusion import Schedule
from distillhub.ops.nopt import NoiseSearch, Objective, Target
from distillhub.ops.projector import Projector, projector_flops


class Flops(NamedTuple):
    """Of one class, 2 per multiply-add."""

    generator: float
    nopt: float
    targets: float
    decode: float
    encode: float
    template: float


def class_flops(
    spec: NoptSpec,
    latent: LatentShape,
    *,
    n: int,
    real: int,
    steps: int,
    rows: int,
    generator: float,
    decode: float,
    encode: float,
    pooled: bool = True,
) -> Flops:
    """The work of one class.

    Args:
        spec: Settings.
        latent: (c, h, w).
        n: Samples.
        real: Real images of the class.
        steps: Denoising steps.
        rows: Per sample and step: 2 with guidance, 1 without.
        generator: Of one row forward.
        decode: Of one image.
        encode: Of one image.
        pooled: With the mean folded into the projector's last layer where the mode allows it.
    """
    da = spec.mode == "da"
    layers = spec.projector.widths, spec.projector.groups
    each = projector_flops(latent, *layers, pooled=pooled and da)
    used = spec.real_images(real)
    return Flops(
        generator=steps * n * rows * generator,
        nopt=(steps - 1) * spec.iterations * n * 2 * each,
        targets=(steps - 1) * diffused(spec, used, n) * each if da else 0.0,
        decode=n * decode,
        encode=used * encode if da else 0.0,
        template=0.0 if da else steps * spec.template_size * (rows * generator + each),
    )


def diffused(spec: NoptSpec, real: int, n: int) -> int:
    """Diffused latents in the target of a class with n samples."""
    copies, more, rest = passes(real, spec.target_copies, n)
    return real * (copies + more) + rest


def cost_parts(
    spec: NoptSpec,
    objective: Callable[[Projector], Objective],
    *,
    counts: Sequence[int],
    together: int,
    n: int,
    steps: int,
    rows: int,
) -> tuple[CostPart, ...]:
    """The work of all classes by parts; `rows` as in `class_flops`."""
    classes = len(counts)
    calls, batch = -(-classes // together), min(together, classes)
    da = spec.mode == "da"
    layers = spec.projector.widths, spec.projector.groups

    def nopt_flops(latent: LatentShape) -> float:
        return batch * n * 2 * projector_flops(latent, *layers, pooled=da)

    def target_flops(latent: LatentShape) -> float:
        return CHUNK * projector_flops(latent, *layers, pooled=True)

    def draw(latent: LatentShape, device: torch.device) -> Projector:
        owners = batch if spec.per_class else 1
        generators = [torch.Generator().manual_seed(owner) for owner in range(owners)]
        return Projector.draw(latent, *layers, generators, device)

    def nopt_probe(latent: LatentShape, device: torch.device) -> Callable[[], object]:
        projector = draw(latent, device)
        search = NoiseSearch(
            objective(projector),
            (batch, n, *latent),
            lr=spec.lr,
            momentum=spec.momentum,
            device=device,
            graph=spec.cuda_graph,
        )
        noise = torch.Generator().manual_seed(0)
        z = torch.randn((batch, n, *latent), generator=noise).to(device)
        zeros = torch.zeros(batch, spec.projector.widths[-1], device=device)
        pivots = zeros[..., None].expand(-1, -1, n) if da else None
        target = Target(zeros, torch.ones_like(zeros), pivots)
        search.begin(z, torch.ones_like(z), z, torch.zeros_like(z), target)
        return lambda: search.run(1)

    def target_probe(latent: LatentShape, device: torch.device) -> Callable[[], object]:
        alone = spec.model_copy(update={"target_copies": 1})
        projector = Projector.draw(latent, *layers, [torch.Generator().manual_seed(0)], device)
        noise = torch.Generator(device).manual_seed(0)
        latents = torch.randn((CHUNK, *latent), generator=noise, device=device)
        schedule = Schedule.linear(steps)
        return lambda: da_target(alone, latents, projector, steps - 1, schedule, 1, noise)

    parts = [
        CostPart("generator", calls * steps, batch * n * rows, network="generator"),
        CostPart(
            "nopt",
            calls * (steps - 1) * spec.iterations,
            batch * n,
            flops=nopt_flops,
            probe=nopt_probe,
        ),
        CostPart("decode", calls, batch * n, network="decoder"),
    ]
    if da:
        used = [spec.real_images(count) for count in counts]
        total = sum(diffused(spec, count, n) for count in used)
        parts += [
            CostPart(
                "targets",
                -(-(steps - 1) * total // CHUNK),
                CHUNK,
                flops=target_flops,
                probe=target_probe,
            ),
            CostPart("encode", classes, -(-sum(used) // classes), network="encoder", shared=True),
        ]
    else:
        parts.append(
            CostPart(
                "template",
                classes * steps,
                spec.template_size * rows,
                network="generator",
                shared=True,
            )
        )
    return tuple(parts)
