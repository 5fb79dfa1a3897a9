"""How well frozen networks recognise crops as their class: the score of RDED and of EDC's start."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from distillhub.data.real import RealData
from distillhub.errors import PipelineError
from distillhub.models.classifier import Classifier
from distillhub.ops.patches import cut, pad_centred
from distillhub.ops.pixels import resize

CPU_PIXELS = 64 * 32 * 32
ACCELERATOR_PIXELS = 256 * 224 * 224
"""Per forward pass."""


def fed(pixels: int, device: torch.device) -> int:
    """Images of so many pixels that go through a network at a time."""
    return max(1, (CPU_PIXELS if device.type == "cpu" else ACCELERATOR_PIXELS) // pixels)


@torch.no_grad()
def nats(nets: Sequence[Classifier], images: Tensor, label: int, *, pad: bool = True) -> Tensor:
    """Cross-entropy of a class under the mean logits of networks, [n], on their device.

    Args:
        nets: Frozen; each normalises by itself.
        images: [n, C, h, w] in [0, 1], not larger than what the networks take.
        label: The class.
        pad: Whether smaller ones are padded with each network's mean colour; else enlarged.
    """
    logits = []
    for net in nets:
        size = net.input_shape[1:]
        if pad:
            seen = pad_centred(net.normalize(images), size)
        else:
            seen = net.normalize(resize(images, size))
        logits.append(net.normalized(seen).float())
    mean = torch.stack(logits).mean(dim=0)
    targets = torch.full((len(images),), label, device=mean.device)
    return functional.cross_entropy(mean, targets, reduction="none")


def scored(
    nets: Sequence[Classifier],
    data: RealData,
    rows: Tensor,
    boxes: Tensor,
    label: int,
    size: tuple[int, int],
    device: torch.device,
    *,
    pad: bool = True,
) -> Tensor:
    """The score of every box of every image; an image is read once for all of its boxes.

    Args:
        nets: Frozen, on the device.
        data: Where the images are.
        rows: [R].
        boxes: [R, m, 4] int64.
        label: The class.
        size: What a box is resized to.
        device: Where to work.
        pad: As in `nats`.

    Returns:
        [R, m] on the CPU; lower is clearer.

    Raises:
        PipelineError: If the networks give no finite figure.
    """
    found = []
    crops = boxes.shape[1]
    together = max(1, fed(data.height * data.width, device) // crops)
    for images, here in _read(data, rows, boxes, together, device):
        cuts = [cut(images, here[:, crop], size) for crop in range(crops)]
        losses = nats(nets, torch.cat(cuts), label, pad=pad)
        found.append(losses.view(crops, -1).t().cpu())
    losses = torch.cat(found)
    if not bool(losses.isfinite().all()):
        raise PipelineError(
            f"an observer gives no finite score to an image of class {label}",
            where="synthesize",
            mend="train the observer again, with a lower learning rate",
        )
    return losses


def _read(
    data: RealData, rows: Tensor, boxes: Tensor, together: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    pairs: Iterable[tuple[Tensor, Tensor]] = zip(
        torch.split(rows, together), torch.split(boxes, together), strict=True
    )
    for part, here in pairs:
        yield data.images(part).to(device), here
