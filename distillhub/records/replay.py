"""Views of stored images: one function for labelling them and for training on them."""

from collections.abc import Callable

import torch
from torch import Tensor

from distillhub.ops.views import ViewBatch, paste, render
from distillhub.records.soft_labels import Views


def replay(
    pixels: Callable[[Tensor], Tensor],
    views: Views | None,
    rows: Tensor,
    entries: Tensor,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Show images as their stored views say; a row of the result does not depend on its batch.

    Args:
        pixels: Gives uint8 [n, C, H, W] for [n] image rows.
        views: Geometry; None: the whole image.
        rows: [n] int64 image rows.
        entries: [n] int64 entry of each row.
        device: Where to render; None: where the pixels are.

    Returns:
        [n, C, h, w] float32 in [0, 1].
    """
    if views is None:
        return _unit(pixels(rows), device)
    shown = _unmixed(pixels, views, rows, entries, device)
    if views.box is None or views.partner is None:
        return shown
    box = views.box[rows, entries]
    mixed = box.any(1).nonzero().squeeze(1)
    if not len(mixed):
        return shown
    partners = views.partner[rows[mixed], entries[mixed]].long()
    pasted = _unmixed(pixels, views, partners, entries[mixed], device)
    where = mixed.to(shown.device)
    shown[where] = paste(shown[where], pasted, box[mixed].to(shown.device))
    return shown


def _unmixed(
    pixels: Callable[[Tensor], Tensor],
    views: Views,
    rows: Tensor,
    entries: Tensor,
    device: torch.device | None,
) -> Tensor:
    images = _unit(pixels(rows), device)
    batch = views.batch(rows, entries)
    ops = None if batch.ops is None else batch.ops.to(images.device)
    there = ViewBatch(batch.crop.to(images.device), batch.flip.to(images.device), ops)
    return render(images, there, size=views.size)


def _unit(pixels: Tensor, device: torch.device | None) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return (pixels if device is None else pixels.to(device)).float() / 255
