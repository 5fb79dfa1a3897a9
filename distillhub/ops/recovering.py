"""What a recover loop computes beside network passes: looks at a batch, distances, regularisers."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distillhub.ops.crops import draw_boxes
from distillhub.ops.losses import kl_divergence


class Look(NamedTuple):
    """A crop, its enlargement, a mirroring and a roll: a linear map of rows and one of columns.

    As matrix products its backward pass adds in a fixed order on every device.
    """

    rows: Tensor
    """[1, H, H] for a whole batch, or [n, H, H]."""
    columns: Tensor
    """[1, W, W] or [n, W, W]."""

    def to(self, device: torch.device) -> "Look":
        """The same on another device."""
        return Look(self.rows.to(device), self.columns.to(device))

    def at(self, x: Tensor) -> Tensor:
        """The look at images [n, C, H, W]."""
        rows, columns = self
        if len(rows) == 1:
            return rows[0] @ (x @ columns[0].T)
        return rows[:, None] @ x @ columns[:, None].mT


def draw_look(
    size: tuple[int, int],
    *,
    generator: torch.Generator,
    scale: tuple[float, float] | None,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
    roll: int = 0,
    images: int = 1,
) -> Look:
    """Draw torchvision's RandomResizedCrop (whole pixels, bilinear), then a flip, then a roll.

    Args:
        size: Height and width of the images, pixels.
        generator: On the CPU.
        scale: Share of the image's area that the crop covers; None: no crop.
        ratio: Width / height of the crop.
        flip: Mirror with probability 1/2.
        roll: Largest shift down and to the right, pixels; one for all images.
        images: 1 for a look that a batch shares, else one look each.
    """
    height, width = size
    rows, columns = (torch.eye(side).expand(images, -1, -1) for side in size)
    if scale is not None:
        boxes = draw_boxes(images, *size, generator=generator, scale=scale, ratio=ratio)
        rows = _cut(boxes.height, height, generator)
        columns = _cut(boxes.width, width, generator)
    if flip:
        mirrored = torch.rand(images, generator=generator) < 0.5
        columns = torch.where(mirrored.view(-1, 1, 1), columns.flip(1), columns)
    if roll:
        down, right = torch.randint(roll + 1, (2,), generator=generator).tolist()
        rows, columns = rows.roll(down, 1), columns.roll(right, 1)
    return Look(rows, columns)


def _cut(lengths: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The map of crops of about these lengths, [n], at uniform places."""
    lengths = lengths.round().clamp(1, side)
    places = torch.rand(len(lengths), generator=generator) * (side - lengths + 1)
    return resampling(places.floor(), lengths, side)


def resampling(starts: Tensor, lengths: Tensor, side: int) -> Tensor:
    """Bilinear enlargement of pieces of a line to the whole line; half-pixel centres.

    Args:
        starts: [n], first pixel.
        lengths: [n], pixels.
        side: Pixels of the line.

    Returns:
        [n, side, side]: row i holds the weights of output pixel i.
    """
    pixels = torch.arange(side, dtype=torch.float32)
    starts, lengths = starts.view(-1, 1), lengths.view(-1, 1)
    centres = ((pixels + 0.5) * lengths / side - 0.5).clamp_min(0).minimum(lengths - 1)
    return (1 - (centres + starts)[..., None].sub(pixels).abs()).clamp_min(0)


def smallest_crop(
    step: int, steps: int, *, end: float, mode: Literal["cosine", "linear", "step"], until: float
) -> float:
    """CDA's lower end of the crop's area at a step: from 1 down to `end`.

    Args:
        step: 0 .. steps - 1.
        steps: T, in all.
        end: What it is from the milestone on.
        mode: The way down.
        until: The milestone M, a share of T.

    Source: Yin and Shen, Dataset Distillation via Curriculum Data Synthesis in Large Data Era (TMLR
    2024), section 3, and the authors' code.
    """
    if step >= until * steps:
        return end
    share = step / (until * steps)
    if mode == "cosine":
        return end + (1 - end) * (1 + math.cos(math.pi * share)) / 2
    return 1.0 if mode == "step" else end + (1 - end) * (1 - share)


def piece_norms(differences: Tensor, lengths: Tensor) -> Tensor:
    """Euclidean norms, not squared, of the pieces of vectors; a norm of 0 has gradient 0.

    Args:
        differences: [R, S] float32.
        lengths: [M] int64 on the same device, adding up to S.

    Returns:
        [R, M].
    """
    count = len(differences)
    squares = torch.segment_reduce(
        differences.square().flatten(), "sum", lengths=lengths.repeat(count), unsafe=True
    ).view(count, -1)
    positive = squares > 0
    return squares.where(positive, 1.0).sqrt().where(positive, 0.0)


def flatness(
    logits: Tensor,
    average_logits: Tensor,
    *,
    tau: float,
    direction: Literal["ema_teacher", "paper"] = "ema_teacher",
    reduction: Literal["batchmean", "mean"] = "batchmean",
) -> Tensor:
    """How far the logits are from those of the images' moving average.

    Args:
        logits: [n, K].
        average_logits: [n, K]; a constant.
        tau: Temperature of both softmaxes; there is no factor tau squared.
        direction: `ema_teacher`: KL(average || images), the authors' code; `paper`: the other way.
        reduction: `mean` divides by K, too.

    Returns:
        Scalar in nats, 0 when they agree.

    Source: Shao et al., Elucidating the Design Space of Dataset Condensation (NeurIPS 2024), Eq. 7.
    """
    average_logits = average_logits.detach()
    if direction == "paper":
        divergence = kl_divergence(average_logits, logits, temperature=tau)
    else:
        divergence = kl_divergence(logits, average_logits, temperature=tau)
    return divergence / logits.shape[1] if reduction == "mean" else divergence


def densification(x: Tensor, labels: Tensor, *, tau: float, side: int = 32) -> Tensor:
    """Flatten the spectrum of the images of each class: sum of KL(softmax(e / tau) || softmax(e)).

    e are the eigenvalues of Z Z^T, the rows of Z the pooled images of a class; the first softmax is
    a constant. A class with one image adds 0.

    Args:
        x: Looks at images, [n, C, H, W].
        labels: [n] int64.
        tau: Temperature of the goal.
        side: Height and width after adaptive average pooling.

    Returns:
        Scalar in nats.

    Source: Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and
    Statistical Matching (CVPR 2024), data densification, and the authors' code.
    """
    fits = x.shape[-2:] == (side, side)
    pooled = (x if fits else functional.adaptive_avg_pool2d(x, side)).flatten(1).float()  # [n, d]
    places: dict[int, list[Tensor]] = {}
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().flatten()
        places.setdefault(len(rows), []).append(rows)
    total = pooled.new_zeros(())
    for size, rows in places.items():
        if size > 1:  # one eigenvalue has softmax 1
            z = pooled[torch.stack(rows)]  # [classes, size, d]
            spectrum = torch.linalg.eigvalsh(z @ z.mT)
            goal = functional.log_softmax(spectrum.detach() / tau, dim=1)
            total = total + functional.kl_div(
                functional.log_softmax(spectrum, dim=1), goal, reduction="sum", log_target=True
            )
    return total


def total_variation(x: Tensor) -> Tensor:
    """Norms of the differences of neighbours across, down and along both diagonals, added up.

    Args:
        x: [n, C, H, W].

    Source: the image prior of SRe2L's code, from Yin et al., Dreaming to Distill (CVPR 2020).
    """
    across = x[..., :-1] - x[..., 1:]
    down = x[..., :-1, :] - x[..., 1:, :]
    falling = x[..., :-1, :-1] - x[..., 1:, 1:]
    rising = x[..., 1:, :-1] - x[..., :-1, 1:]
    parts = (across, down, falling, rising)
    return torch.stack([torch.linalg.vector_norm(part) for part in parts]).sum()


def image_norm(x: Tensor) -> Tensor:
    """Mean Euclidean norm of images [n, C, H, W]."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.mean()
