"""What the figures mean, in plain sentences; and what a reader must know before trusting them."""

from collections.abc import Iterator, Mapping, Sequence

from distillhub.evaluation import protocols
from distillhub.evaluation.intervals import FEWEST
from distillhub.records.report import (
    Arm,
    Comparison,
    Metric,
    PlannedRun,
    Regime,
    Run,
    Warned,
    regime_of,
)
from distillhub.records.table import points

LABELS: Mapping[Regime, str] = {
    "hard": "hard labels",
    "soft_stored": "the stored soft labels",
    "soft_online": "labels that the teacher makes online",
}
USUAL_RUNS = 5


def verdict(regime: Regime, gain: Metric, *, mosaics: bool = False) -> str:
    """Whether the images beat random ones of the same number, in one sentence.

    A gain whose 95 % interval holds 0 is "no clear difference".

    Args:
        regime: The labels that both arms trained with.
        gain: A(syn) - A(rnd), paired by seed.
        mosaics: Whether the random ones are packed into mosaics, as the distilled ones are.
    """
    labels = LABELS[regime]
    random = "mosaics of random images" if mosaics else "random images"
    ones = random if mosaics else "random ones"
    if gain.value is None:
        return f"Under {labels}: not compared with {random} ({gain.note})."
    if gain.ci95 is None:
        return (
            f"Under {labels}: a difference of {points(gain.value)} points to {random} "
            f"in {gain.n} {'run' if gain.n == 1 else 'runs'}, too few to judge."
        )
    low, high = gain.ci95
    interval = f"95 % interval {points(low)} to {points(high)}, {gain.n} paired runs"
    if low <= 0 <= high:
        return (
            f"Under {labels}: no clear difference to {random} "
            f"({points(gain.value, signed=True)} points, {interval})."
        )
    verb = "beat" if gain.value > 0 else "lose to"
    return (
        f"Under {labels}: the images {verb} {ones} by {points(abs(gain.value))} points "
        f"({interval})."
    )


def warnings_of(
    comparisons: Sequence[Comparison],
    planned: Sequence[PlannedRun],
    runs: Mapping[str, Run],
    sold: Regime,
) -> tuple[Warned, ...]:
    """What a reader must know, each once."""
    found = [*_of_headline(comparisons, sold), *_of_protocols(planned), *_of_runs(planned, runs)]
    return tuple(dict.fromkeys(found))


def _of_headline(comparisons: Sequence[Comparison], sold: Regime) -> Iterator[Warned]:
    if not comparisons:
        yield Warned(code="incomplete_evaluation", text="Incomplete evaluation: nothing was run.")
        return
    needed: list[Arm] = ["syn_hard", "rnd_hard"]
    if sold == "soft_stored":
        needed += ["syn_soft", "rnd_soft"]
    lacking = [arm for arm in needed if comparisons[0].metrics[f"top1.{arm}"].value is None]
    if lacking:
        yield Warned(
            code="incomplete_evaluation",
            text=f"Incomplete evaluation: without {', '.join(lacking)}.",
        )


def _of_protocols(planned: Sequence[PlannedRun]) -> Iterator[Warned]:
    for name in dict.fromkeys(run.protocol for run in planned):
        if not protocols.get(name).publishable:
            yield Warned(
                code="protocol_not_publishable",
                text=f"Protocol {name} only shows that all works; its figures say nothing.",
            )


def _of_runs(planned: Sequence[PlannedRun], runs: Mapping[str, Run]) -> Iterator[Warned]:
    groups: dict[tuple[str, str, Arm], list[PlannedRun]] = {}
    for run in planned:
        groups.setdefault((run.protocol, run.arch, run.arm), []).append(run)
    absent = [run.id for run in planned if run.id not in runs]
    if absent:
        yield Warned(code="missing_runs", text=f"{len(absent)} planned runs were not made.")
    for regime in LABELS:
        counts = [len(group) for (_, _, arm), group in groups.items() if regime_of(arm) == regime]
        fewest = min(counts, default=USUAL_RUNS)
        if fewest < FEWEST:
            yield Warned(
                code="too_few_runs",
                text=f"Some figures under {LABELS[regime]} come from {fewest} run(s): no interval.",
            )
        elif fewest < USUAL_RUNS:
            yield Warned(
                code="few_runs",
                text=f"Some figures under {LABELS[regime]} come from {fewest} runs only.",
            )
