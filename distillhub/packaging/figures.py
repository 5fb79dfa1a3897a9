"""The pictures of a card: a contact sheet of the images by class, and the arms with intervals.

Both give equal bytes for equal inputs and equal library versions; no software name or time goes
into the files.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_CLASSES = 20
"""Rows of a contact sheet; of more classes, evenly spaced ones are shown."""
MAX_COLUMNS = 10
CELL_PIXELS = 72
"""Shortest side of a cell: 8 x 8 images are enlarged 9 times."""
MAX_CELL_PIXELS = 128
GAP_PIXELS = 4
TEXT_PIXELS = 15
MAX_NAME = 24
"""Letters of a class name."""
INK = (32, 32, 32)
LEVELS = 4
"""Of 255: by how much a scaled image may differ between versions of Pillow."""


class Row(NamedTuple):
    """The images of one class."""

    name: str
    images: NDArray[np.uint8]
    """[n, H, W, C], C in {1, 3}."""


@dataclass(frozen=True)
class Point:
    """One arm of the plot; accuracies as fractions."""

    arm: str
    value: float
    interval: tuple[float, float] | None
    """None where there are too few runs for one."""
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Arms that may be compared: one protocol and one architecture."""

    title: str
    points: tuple[Point, ...]
    reference: float | None
    """Accuracy with all real images, drawn as a line."""


def shown_classes(num_classes: int) -> tuple[int, ...]:
    """Class indices of a contact sheet: all, or evenly spaced ones with the first and the last."""
    if num_classes <= MAX_CLASSES:
        return tuple(range(num_classes))
    last = num_classes - 1
    return tuple(round(i * last / (MAX_CLASSES - 1)) for i in range(MAX_CLASSES))


def cell_scale(height: int, width: int) -> float:
    """By how much images are enlarged: whole numbers up to 72 pixels, never past 128 pixels."""
    short, long = min(height, width), max(height, width)
    enlarged = -(-CELL_PIXELS // short)
    return enlarged if enlarged * long <= MAX_CELL_PIXELS else min(1.0, MAX_CELL_PIXELS / long)


def decoded(files: Sequence[bytes]) -> NDArray[np.uint8]:
    """Image files of one size as [n, H, W, C], C = 1 for grey ones.

    Raises:
        OSError: If a file is no image.
        ValueError: If sizes or channels differ.
    """
    found = []
    for file in files:
        with Image.open(io.BytesIO(file)) as picture:
            pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
        found.append(pixels[..., None] if pixels.ndim == 2 else pixels)
    return np.stack(found)


class Layout(NamedTuple):
    """Where the images of a contact sheet are, in pixels."""

    cell: tuple[int, int]
    """Width and height of an image."""
    columns: int
    lines: int
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of all images with their gaps."""
        return (
            self.columns * (self.cell[0] + GAP_PIXELS),
            GAP_PIXELS + self.lines * (self.cell[1] + GAP_PIXELS),
        )

    def corner(self, line: int, column: int) -> tuple[int, int]:
        """Left and top of an image, from the left of the first column."""
        return (
            column * (self.cell[0] + GAP_PIXELS),
            GAP_PIXELS + line * (self.cell[1] + GAP_PIXELS),
        )


def layout(rows: Sequence[Row]) -> Layout:
    """How large a contact sheet of these rows is."""
    _, height, width, _ = rows[0].images.shape
    scale = cell_scale(height, width)
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = max(min(len(row.images), MAX_COLUMNS) for row in rows)
    return Layout(cell, columns, len(rows), scale)


def contact_sheet(rows: Sequence[Row], path: Path) -> None:
    """Draw one line of images per class, with its name at the left, as PNG."""
    plan = layout(rows)
    font = ImageFont.load_default(TEXT_PIXELS)
    names = [_short(row.name) for row in rows]
    margin = 3 * GAP_PIXELS + int(max(font.getlength(name) for name in names))
    sheet = Image.new("RGB", (margin + plan.size[0], plan.size[1]), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for line, (name, row) in enumerate(zip(names, rows, strict=True)):
        middle = (margin - 2 * GAP_PIXELS, plan.corner(line, 0)[1] + plan.cell[1] // 2)
        draw.text(middle, name, fill=INK, font=font, anchor="rm")
        for column, pixels in enumerate(row.images[:MAX_COLUMNS]):
            left, top = plan.corner(line, column)
            sheet.paste(_tile(pixels, plan), (margin + left, top))
    sheet.save(path, format="PNG", optimize=False)


def wrong_tiles(rows: Sequence[Row], path: Path) -> Iterator[tuple[str, int]]:
    """Class and column of images that a contact sheet does not show as they are.

    The names at the left are not looked at: fonts differ between versions of Pillow.

    Raises:
        OSError: If the file is no image.
        ValueError: If it is too small.
    """
    plan = layout(rows)
    with Image.open(path) as opened:
        sheet = opened.convert("RGB")
    margin = sheet.width - plan.size[0]
    if margin < 0 or sheet.height != plan.size[1]:
        raise ValueError(f"{sheet.width} x {sheet.height} pixels do not show all images")
    for line, row in enumerate(rows):
        for column, pixels in enumerate(row.images[:MAX_COLUMNS]):
            left, top = plan.corner(line, column)
            box = (margin + left, top, margin + left + plan.cell[0], top + plan.cell[1])
            seen = np.asarray(sheet.crop(box), dtype=np.int16)
            meant = np.asarray(_tile(pixels, plan), dtype=np.int16)
            if np.abs(seen - meant).max() > LEVELS:
                yield row.name, column


def _tile(pixels: NDArray[np.uint8], plan: Layout) -> Image.Image:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    kind = Image.Resampling.NEAREST if plan.scale >= 1 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(plan.cell, kind)


def arms_plot(panels: Sequence[Panel], path: Path) -> None:
    """Draw accuracy per arm with 95 % intervals, and every run as a faint dot, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [max(2, len(panel.points)) for panel in panels]
    figure = Figure(figsize=(7.2, 0.75 + sum(0.42 * h + 0.75 for h in heights)), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[number, 0])
        lines = range(len(panel.points))
        for line, point in zip(lines, panel.points, strict=True):
            color = "#1b6ca8" if point.arm.startswith("syn") else "#b5651d"
            if not point.arm.startswith(("syn", "rnd")):
                color = "#666666"
            spread = None
            if point.interval:
                low, high = point.interval
                spread = [[100 * (point.value - low)], [100 * (high - point.value)]]
            runs = [100 * run for run in point.runs]
            axes.plot(runs, [line + 0.26] * len(runs), "o", color=color, alpha=0.4, ms=3.5, mew=0)
            axes.errorbar(
                100 * point.value,
                line,
                xerr=spread,
                fmt="o",
                color=color,
                ms=6,
                capsize=4,
                lw=1.8,
            )
            axes.annotate(
                f"{100 * point.value:.1f}",
                (100 * point.value, line),
                textcoords="offset points",
                xytext=(0, 8),
                ha="center",
                fontsize=8.5,
                color=color,
            )
        if panel.reference is not None:
            axes.axvline(100 * panel.reference, color="#666666", ls="--", lw=1)
            axes.annotate(
                f"all real images {100 * panel.reference:.1f}",
                (100 * panel.reference, 1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                xytext=(-4, -4),
                ha="right",
                va="top",
                fontsize=8.5,
                color="#666666",
            )
        axes.set_yticks(list(lines), [_arm_name(point.arm) for point in panel.points])
        axes.set_ylim(len(panel.points) - 0.5, -0.75)
        axes.margins(x=0.08)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.grid(axis="x", color="#dddddd", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if number == len(panels) - 1:
            axes.set_xlabel(
                "test top-1 of the last epoch, %  (mean, 95 % interval; small dots: runs)"
            )
    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": None})


def _arm_name(arm: str) -> str:
    images = {"syn": "distilled", "rnd": "random real", "full": "all real", "noise": "noise"}
    labels = {"hard": "hard labels", "soft": "soft labels"}
    first, _, rest = arm.partition("_")
    second, _, more = rest.partition("_")
    name = (
        f"{images.get(first, first)}, {labels.get(second, second)}"
        if second
        else images.get(first, first)
    )
    return f"{name} ({more})" if more else name


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
