"""Drawing the views of the images of a set.

The views of an image depend on the seed, its row and the number of images alone. The first K views
are the same however many are drawn, and leaving out flips, operations or mixing changes no crop.

With `batch` images share views, as where whole batches are augmented and labelled at once: every
view of the set has batches of its own, drawn from all images.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from distillhub.ops import randaugment
from distillhub.ops.formation import corners
from distillhub.records.soft_labels import Views
from distillhub.relabel.spec import ViewSpec
from distillhub.units import derive_seed

TRIES = 10
"""Draws of a crop before the largest central one is taken, as in torchvision."""
MAGNITUDE = 9
OPERATIONS = 2
CHUNK = 1024
"""Images whose random numbers are held at a time."""
NUMBERS = (2 * TRIES, 2, 1, 2 * OPERATIONS, 4)
"""Uniform numbers of a view: tries of a crop, its corner, flip, operations, mixing."""


def draw_views(
    spec: ViewSpec,
    images: int,
    *,
    count: int,
    height: int,
    width: int,
    seed: int,
    formation: int = 1,
) -> Views:
    """Draw `count` views of every image, or of each of its formation^2 sub-images.

    Args:
        spec: What to draw.
        images: N.
        count: K.
        height: Of a stored image, in pixels.
        width: Of a stored image, in pixels.
        seed: Of the draw.
        formation: Sub-images per side; crops stay inside a sub-image.

    Returns:
        Views with K * formation^2 entries, sub-image major.
    """
    size = (height, width) if spec.size is None else (spec.size, spec.size)
    batches = None if spec.batch is None else _batches(images, spec.batch, count, seed)
    parts = [
        _draw(
            spec,
            range(start, min(start + CHUNK, images)),
            images,
            count,
            height,
            width,
            size,
            seed,
            formation,
            batches,
        )
        for start in range(0, images, CHUNK)
    ]
    return Views(
        torch.cat([part.crop for part in parts]),
        torch.cat([part.flip for part in parts]),
        torch.cat([p.ops for p in parts if p.ops is not None]) if spec.randaugment else None,
        torch.cat([p.partner for p in parts if p.partner is not None]) if spec.cutmix else None,
        torch.cat([p.box for p in parts if p.box is not None]) if spec.cutmix else None,
        size,
        formation,
    )


def whole_sub_images(images: int, *, height: int, width: int, formation: int) -> Views:
    """One view per sub-image: all of it, enlarged to the size of the stored image."""
    subs = formation**2
    crop = corners(height, width, formation)[None].expand(images, subs, 4).int()
    flip = torch.zeros(images, subs, dtype=torch.bool)
    return Views(crop.contiguous(), flip, None, None, None, (height, width), formation)


def _draw(
    spec: ViewSpec,
    rows: range,
    images: int,
    count: int,
    height: int,
    width: int,
    size: tuple[int, int],
    seed: int,
    formation: int,
    batches: "_Batches | None",
) -> Views:
    subs = formation**2
    drawn = torch.empty(len(rows), count, subs, sum(NUMBERS), dtype=torch.float64)
    for place, row in enumerate(rows):
        generator = torch.Generator().manual_seed(derive_seed("views", seed, row))
        drawn[place] = torch.rand(
            count, subs, sum(NUMBERS), generator=generator, dtype=torch.float64
        )
    drawn = drawn.transpose(1, 2).flatten(1, 2)  # sub-image major: [n, E, numbers]
    tries, corner, flip, ops, mix = torch.split_with_sizes(drawn, NUMBERS, dim=2)
    partner = (mix[..., 0] * images).int()
    if batches is not None:
        shared = batches.drawn(rows).repeat(1, subs, 1)
        tries, corner, flip, _, mix = torch.split_with_sizes(shared, NUMBERS, dim=2)
        partner = batches.partner[:, rows.start : rows.stop].T.repeat(1, subs)

    inside = corners(height, width, formation).repeat_interleave(count, dim=0)  # [E, 4]
    crop = _crops(spec, tries.reshape(*tries.shape[:2], TRIES, 2), corner, inside)
    return Views(
        crop,
        (flip[..., 0] < 0.5) & spec.flip,
        _operations(ops) if spec.randaugment else None,
        partner if spec.cutmix else None,
        _boxes(mix[..., 1:], size) if spec.cutmix else None,
        size,
        formation,
    )


class _Batches(NamedTuple):
    """Which images share a view, and what they share."""

    place: Tensor
    """[K, N] int64: batch of an image in a view."""
    partner: Tensor
    """[K, N] int32: another image of the same batch, or the image itself."""
    numbers: Tensor
    """[K, batches, sum(NUMBERS)] float64."""

    def drawn(self, rows: range) -> Tensor:
        """The numbers of some images, [n, K, sum(NUMBERS)]."""
        place = self.place[:, rows.start : rows.stop]
        return torch.stack([own[at] for own, at in zip(self.numbers, place, strict=True)], dim=1)


def _batches(images: int, size: int, count: int, seed: int) -> _Batches:
    """Draw the batches of every view; the last one of a view may be smaller."""
    place = torch.empty(count, images, dtype=torch.int64)
    partner = torch.empty(count, images, dtype=torch.int32)
    numbers = torch.empty(count, -(-images // size), sum(NUMBERS), dtype=torch.float64)
    batch = torch.arange(images) // size
    for view in range(count):
        generator = torch.Generator().manual_seed(derive_seed("view batches", seed, view))
        order = torch.randperm(images, generator=generator)
        keys = torch.rand(images, generator=generator, dtype=torch.float64)
        permuted = (batch + keys).argsort()  # inside the batches
        place[view, order] = batch
        partner[view, order] = order[permuted].int()
        numbers[view] = torch.rand(numbers.shape[1:], generator=generator, dtype=torch.float64)
    return _Batches(place, partner, numbers)


def _crops(spec: ViewSpec, tries: Tensor, corner: Tensor, inside: Tensor) -> Tensor:
    """Random resized crops, [n, E, 4] int32.

    Source: torchvision.transforms.RandomResizedCrop.get_params.

    Args:
        spec: Gives scale and ratio.
        tries: [n, E, TRIES, 2] uniform numbers.
        corner: [n, E, 2] uniform numbers.
        inside: [E, 4]: top, left, height, width of what is cropped.
    """
    top, left, height, width = inside.unbind(1)
    share = spec.scale[0] + (spec.scale[1] - spec.scale[0]) * tries[..., 0]
    low, high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    ratio = (low + (high - low) * tries[..., 1]).exp()
    area = share * (height * width)[:, None]
    tall = (area / ratio).sqrt().round().long()  # [n, E, TRIES]
    wide = (area * ratio).sqrt().round().long()
    fits = (tall > 0) & (tall <= height[:, None]) & (wide > 0) & (wide <= width[:, None])
    first = fits.int().argmax(2, keepdim=True)
    tall, wide = tall.gather(2, first).squeeze(2), wide.gather(2, first).squeeze(2)

    most_tall = torch.minimum(height, (width / spec.ratio[0]).round().long()).clamp_min(1)
    most_wide = torch.minimum(width, (height * spec.ratio[1]).round().long()).clamp_min(1)
    found = fits.any(2)
    tall, wide = torch.where(found, tall, most_tall), torch.where(found, wide, most_wide)
    y = (corner[..., 0] * (height - tall + 1)).long()
    x = (corner[..., 1] * (width - wide + 1)).long()
    y = torch.where(found, y, (height - tall) // 2) + top
    x = torch.where(found, x, (width - wide) // 2) + left
    return torch.stack([y, x, tall, wide], dim=2).int()


def _operations(numbers: Tensor) -> Tensor:
    """RandAugment with magnitude 9; [n, E, 4] uint8 from [n, E, 4] uniform numbers."""
    pairs = numbers.reshape(*numbers.shape[:2], OPERATIONS, 2)
    operation = (pairs[..., 0] * len(randaugment.NAMES)).long()
    signed = torch.zeros(len(randaugment.NAMES), dtype=torch.bool)
    signed[list(randaugment.SIGNED)] = True
    negative = signed[operation] & (pairs[..., 1] < 0.5)
    level = randaugment.level(torch.full_like(operation, MAGNITUDE), negative)
    return torch.stack([operation.to(torch.uint8), level], dim=3).flatten(2)


def _boxes(numbers: Tensor, size: tuple[int, int]) -> Tensor:
    """CutMix boxes, [n, E, 4] int32, from uniform numbers [n, E, 3]; cut at the border.

    The share that is pasted is drawn from Beta(1, 1), the center uniformly.

    Source: Yun et al., CutMix (ICCV 2019), Eq. (2); `rand_bbox` of the authors' code.
    """
    side = (1 - numbers[..., 0]).sqrt()
    ends = []
    for axis, length in enumerate(size):
        half = (length * side).long() // 2
        center = (numbers[..., 1 + axis] * length).long()
        ends.append(((center - half).clamp(0, length), (center + half).clamp(0, length)))
    (top, bottom), (left, right) = ends
    box = torch.stack([top, left, bottom, right], dim=2).int()
    empty = (bottom <= top) | (right <= left)
    return box.masked_fill(empty[..., None], 0)
