"""How scores look in a terminal: the arms side by side, with intervals, and the plain sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distillhub_cli.output import Output

if TYPE_CHECKING:
    from distillhub.records.report import Comparison, EvalReport, Metric

IMAGES = (
    ("distilled", "syn"),
    ("random real", "rnd"),
    ("random mosaics", "rnd_packed"),
    ("all real data", "full"),
)
LABELS = (
    ("hard labels", "hard"),
    ("soft labels", "soft"),
    ("online labels", "soft_online"),
)


def percent(metric: "Metric") -> str:
    """Mean and half of the 95 % interval in percent, and the number of runs."""
    if metric.value is None:
        return "not run"
    text = f"{100 * metric.value:.1f}"
    if metric.ci95 is not None:
        text += f" ± {50 * (metric.ci95[1] - metric.ci95[0]):.1f}"
    if metric.status == "cited":
        return f"{text} (cited: {metric.source})"
    return f"{text} ({metric.n})"


def print_arms(out: Output, report: "EvalReport") -> None:
    """The arms of every student, then what is to be said about them."""
    print_comparisons(out, report.comparisons)
    for warning in report.warnings:
        out.say(f"  warning: {warning.text}")


def print_comparisons(out: Output, comparisons: "Sequence[Comparison]") -> None:
    """One table per student."""
    for comparison in comparisons:
        _print_comparison(out, comparison)
    if not comparisons:
        out.say("not evaluated")


def _print_comparison(out: Output, comparison: "Comparison") -> None:
    protocols = ", ".join(dict.fromkeys(comparison.protocols.values()))
    out.heading(
        f"top-1 in percent: {comparison.arch}, {protocols} (± 95 % interval, runs in brackets)"
    )
    at_hand = [(title, key) for title, key in LABELS if _known(comparison, f"_{key}")]
    rows = []
    for title, images in IMAGES:
        if images == "full" and not _known(comparison, "full_hard"):
            continue
        if images == "rnd_packed" and not any(
            _known(comparison, f".rnd_packed_{labels}") for _, labels in at_hand
        ):
            continue
        cells = [comparison.metrics.get(f"top1.{images}_{labels}") for _, labels in at_hand]
        rows.append((title, *("" if cell is None else percent(cell) for cell in cells)))
    out.table(("images", *(title for title, _ in at_hand)), rows)
    for sentence in comparison.verdicts.values():
        out.say(f"  {sentence}")


def _known(comparison: "Comparison", ending: str) -> bool:
    """Whether some accuracy of these arms is known."""
    return any(
        name.startswith("top1.") and name.endswith(ending) and metric.value is not None
        for name, metric in comparison.metrics.items()
    )
