"""A made-up folder of pictures by class, for tests that need one's own images."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def shapes_folder(root: Path, *, per_class: int = 40, side: int = 24, seed: int = 0) -> Path:
    """Circles, squares and triangles in any color and place: `root`/<class>/<number>.png."""
    rng = np.random.default_rng(seed)
    for name in ("circle", "square", "triangle"):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            back, front = rng.integers(0, 90, 3), rng.integers(140, 256, 3)
            image = Image.new("RGB", (side, side), tuple(back.tolist()))
            radius = int(rng.integers(side // 5, side // 3))
            x, y = (int(v) for v in rng.integers(radius + 1, side - radius - 1, 2))
            draw, fill = ImageDraw.Draw(image), tuple(front.tolist())
            if name == "circle":
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
            elif name == "square":
                draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=fill)
            else:
                draw.polygon(
                    [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill
                )
            image.save(folder / f"{number:03d}.png")
    return root
