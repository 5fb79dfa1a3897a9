"""The plots of `continual.json` and `slim.json`: accuracy along a line, with 95 % intervals.

Equal bytes for equal inputs and equal library versions, as in `figures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillhub.records.report import Arm, Metric
from distillhub.records.uses import ContinualReport, SlimReport, Use

DISTILLED, RANDOM = "#1b6ca8", "#b5651d"


@dataclass(frozen=True)
class Line:
    """One curve; accuracies as fractions."""

    name: str
    color: str
    x: tuple[float, ...]
    values: tuple[Metric, ...]
    dashed: bool = False


def continual_plot(report: ContinualReport, path: Path) -> None:
    """Draw top-1 after every stage over the number of classes seen so far, as PNG."""
    seen = tuple(float(stage.seen) for stage in report.stages)
    lines = _lines(report, seen, [stage.top1 for stage in report.stages])
    title = f"{len(report.stages)} steps: {report.arch}, {report.protocol}"
    lines_plot(lines, path, title=title, xlabel="classes seen", ticks=seen)


def slim_plot(report: SlimReport, path: Path) -> None:
    """Draw top-1 over the pruning ratio, after and (dashed) before fine-tuning, as PNG."""
    ratios = tuple(100 * point.ratio for point in report.points)
    after = _lines(report, ratios, [point.top1 for point in report.points])
    before = _lines(report, ratios, [point.top1_pruned for point in report.points], dashed=True)
    title = f"network slimming: {report.arch}, {report.protocol}"
    lines_plot([*after, *before], path, title=title, xlabel="channels pruned, %", ticks=ratios)


def _lines(
    report: Use,
    x: tuple[float, ...],
    figures: Sequence[Mapping[Arm, Metric]],
    *,
    dashed: bool = False,
) -> list[Line]:
    labels = "stored soft labels" if report.regime == "soft_stored" else "hard labels"
    found = []
    for arm in figures[0]:
        ours = arm.startswith("syn")
        name = f"distilled, {labels}" if ours else "random real, hard labels"
        if dashed:
            name = f"{name}, before fine-tuning"
        values = tuple(figure[arm] for figure in figures)
        found.append(Line(name, DISTILLED if ours else RANDOM, x, values, dashed))
    return found


def lines_plot(
    lines: Sequence[Line], path: Path, *, title: str, xlabel: str, ticks: Sequence[float]
) -> None:
    """Draw accuracies as curves with their intervals, as PNG.

    Args:
        lines: Each with one value per x.
        path: Of the picture.
        title: Above it.
        xlabel: Below it.
        ticks: Marks of the lower axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line in lines:
        known = [(x, m) for x, m in zip(line.x, line.values, strict=True) if m.value is not None]
        x, y = [place for place, _ in known], [100 * (m.value or 0.0) for _, m in known]
        axes.plot(
            x,
            y,
            "--" if line.dashed else "-o",
            color=line.color,
            lw=1.0 if line.dashed else 1.8,
            ms=5,
            label=line.name,
            alpha=0.6 if line.dashed else 1.0,
        )
        band = [(place, m.ci95) for place, m in known if m.ci95 is not None]
        if band and not line.dashed:
            axes.fill_between(
                [place for place, _ in band],
                [100 * ci[0] for _, ci in band],
                [100 * ci[1] for _, ci in band],
                color=line.color,
                alpha=0.15,
                lw=0,
            )
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))  # an interval may reach past what can be
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(xlabel)
    axes.set_ylabel("test top-1, %  (mean, 95 % interval)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False)
    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": None})
