"""Small made-up sets for the tests of records, relabelling and packaging."""

import io

import torch
from PIL import Image

from distillhub.records.soft_labels import SoftLabels, Views


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(n, channels=1, height=12, width=10, seed=0):
    """uint8 [n, C, H, W] noise."""
    shape = (n, channels, height, width)
    return torch.randint(0, 256, shape, generator=generator(seed), dtype=torch.uint8)


def png_files(images):
    files = []
    for image in images:
        array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def logits(n, entries, classes, seed=0):
    return torch.randn(n, entries, classes, generator=generator(seed)) * 3


def soft_labels(n, entries, classes=4, codec="float16", top_k=None, seed=0):
    return SoftLabels.encode(logits(n, entries, classes, seed), codec=codec, top_k=top_k)


def views(n, entries, *, height=12, width=10, size=None, ops=False, mix=False, seed=0):
    """Random geometry of images of height x width pixels."""
    draw = generator(seed)
    tall = torch.randint(3, height + 1, (n, entries), generator=draw)
    wide = torch.randint(3, width + 1, (n, entries), generator=draw)
    top = (torch.rand(n, entries, generator=draw) * (height - tall + 1)).long()
    left = (torch.rand(n, entries, generator=draw) * (width - wide + 1)).long()
    crop = torch.stack([top, left, tall, wide], dim=2).int()
    flip = torch.rand(n, entries, generator=draw) < 0.5
    size = size or (height, width)
    drawn_ops = partner = box = None
    if ops:
        number = torch.randint(0, 14, (n, entries, 2), generator=draw)
        level = torch.randint(0, 61, (n, entries, 2), generator=draw)
        drawn_ops = torch.stack([number, level], dim=3).flatten(2).to(torch.uint8)
    if mix:
        partner = torch.randint(0, n, (n, entries), generator=draw).int()
        start = torch.randint(0, 4, (n, entries, 2), generator=draw)
        extent = torch.randint(1, 5, (n, entries, 2), generator=draw)
        box = torch.cat([start, start + extent], dim=2).int()
        box[:, 0] = 0  # the first view of every image is not mixed
    return Views(crop, flip, drawn_ops, partner, box, size)
