"""Sets as other people save them, small, for the tests of `import`."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import RandomSampler

from tests.made_up import shapes_folder


def arrays(n=6, channels=3, side=8, classes=3, seed=0):
    """Images in [0, 1] [n, C, side, side] and class numbers [n], all classes in turn."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, side, side, generator=draw)
    return images, torch.arange(n) % classes


def save(content, path: Path) -> Path:
    torch.save(content, path)  # noqa: TID251 - the file of somebody else
    return path


def label_folder(
    folder: Path,
    labels: torch.Tensor,
    *,
    classes=3,
    looks=2,
    batch=4,
    seed=None,
    side=24,
    mix=True,
) -> list[torch.Tensor]:
    """FKD batches as SRe2L writes them; the highest logit is the class. Returns rows per look."""
    draw = np.random.default_rng(7)
    generator = torch.Generator().manual_seed(0 if seed is None else seed)
    sampler = RandomSampler(range(len(labels)), generator=generator)
    orders = []
    for look in range(looks):
        order = torch.arange(len(labels)) if seed is None else torch.tensor(list(sampler))
        orders.append(order)
        place = folder / f"epoch_{look}"
        place.mkdir(parents=True)
        for number, rows in enumerate(order.split(batch)):
            start = draw.integers(0, side // 2, (len(rows), 2))
            size = draw.integers(side // 4, side // 2, (len(rows), 2))
            crop = torch.tensor(np.concatenate([start, size], axis=1) / side).float()
            flips = torch.tensor(draw.random(len(rows)) < 0.5)
            logits = torch.tensor(draw.normal(size=(len(rows), classes))).half()
            logits[torch.arange(len(rows)), labels[rows]] += 9
            mixed: list[object] = [None, None, None]
            if mix:
                partner = torch.tensor(draw.permutation(len(rows)))
                mixed = [partner, np.float64(0.5), [np.int64(side) for side in (1, 2, 5, 6)]]
            save([crop, flips, *mixed, logits], place / f"batch_{number}.tar")
    return orders


def pictures(folder: Path, per_class=4) -> Path:
    return shapes_folder(folder, per_class=per_class)
