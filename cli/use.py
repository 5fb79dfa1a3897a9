"""use: what a dataset is good for besides training one student on all of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output
from distillhub_cli.places import complete_set, dataset, shown, workplace
from distillhub_cli.scores import percent

if TYPE_CHECKING:
    from distillhub.pipeline.uses import Wish
    from distillhub.records.report import Metric
    from distillhub.records.uses import ContinualReport, SlimReport, Use

SET = Annotated[
    str,
    typer.Argument(
        metavar="SET",
        help="A folder, a finished build or a Hub id.",
        autocompletion=complete_set,
    ),
]
DATA = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Real images to test on and to draw random ones from; default: the set's source.",
    ),
]
PROTOCOL = Annotated[
    str | None,
    typer.Option(help="See `list protocols`; default: the one the set was scored with."),
]
LABELS = Annotated[
    Literal["hard", "soft"],
    typer.Option(help="Of the distilled images; soft: those stored in the set."),
]
RUNS = Annotated[
    int | None, typer.Option(min=1, help="Paired seeds; default: the protocol's number.")
]
SEED = Annotated[int, typer.Option(min=0, help="Of the first run.")]
REVISION = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")]
SPLIT = Annotated[str, typer.Option(help="Split of SET to train on.")]
TEST_SPLIT = Annotated[
    str, typer.Option(help="Split of DATA to test on, or a share of its training split.")
]


def continual(
    where: SET,
    steps: Annotated[int, typer.Option(min=1, help="In how many stages the classes come.")] = 5,
    order: Annotated[int, typer.Option(min=0, help="Seed of the order of the classes.")] = 0,
    student: Annotated[
        str | None, typer.Option(help="Network; default: the protocol's first.")
    ] = None,
    data: DATA = None,
    protocol: PROTOCOL = None,
    labels: LABELS = "hard",
    runs: RUNS = None,
    seed: SEED = 0,
    revision: REVISION = None,
    split: SPLIT = "train",
    test_split: TEST_SPLIT = "test",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for continual.json and continual.png.")
    ] = Path("continual"),
) -> None:
    """Learn class by class: after each stage a new student trains on all images so far (GDumb).

    Beside random real images of the same number. May be stopped; the same command goes on.
    """
    from distillhub.pipeline.use_continual import use_continual

    wish = _wish(where, data, protocol, labels, runs, seed, revision, split, test_split)
    place = workplace()
    with output().reporter() as reporter:
        report = use_continual(
            wish,
            out,
            state=place.state,
            sources=place.sources,
            reporter=reporter,
            steps=steps,
            order=order,
            student=student,
        )
    print_continual(report)
    _written(report, out, "continual")


def slim(
    where: SET,
    ratios: Annotated[
        str, typer.Option(metavar="R1,R2", help="Shares of the channels to prune, each below 1.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    model: Annotated[
        str, typer.Option(help="A network that is one chain of convolutions with batch norm.")
    ] = "vgg11-bn",
    sparsity: Annotated[
        float, typer.Option(help="Weight of the L1 norm of the batch-norm scales.")
    ] = 1e-4,
    finetune: Annotated[
        float, typer.Option(help="Length of fine-tuning as a share of the protocol's.")
    ] = 1.0,
    data: DATA = None,
    protocol: PROTOCOL = None,
    labels: LABELS = "hard",
    runs: RUNS = None,
    seed: SEED = 0,
    revision: REVISION = None,
    split: SPLIT = "train",
    test_split: TEST_SPLIT = "test",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for slim.json and slim.png.")
    ] = Path("slim"),
) -> None:
    """Prune a network without the real data: it trains and is fine-tuned on the dataset alone.

    Network slimming, over several ratios, beside random real images of the same number. May be
    stopped; the same command goes on.
    """
    from distillhub.pipeline.use_slim import use_slim

    shares = _shares(ratios)
    wish = _wish(where, data, protocol, labels, runs, seed, revision, split, test_split)
    place = workplace()
    with output().reporter() as reporter:
        report = use_slim(
            wish,
            out,
            state=place.state,
            sources=place.sources,
            reporter=reporter,
            ratios=shares,
            model=model,
            sparsity=sparsity,
            finetune=finetune,
        )
    print_slim(report)
    _written(report, out, "slim")


def _wish(
    where: str,
    data: str | None,
    protocol: str | None,
    labels: Literal["hard", "soft"],
    runs: int | None,
    seed: int,
    revision: str | None,
    split: str,
    test_split: str,
) -> "Wish":
    from distillhub.pipeline.uses import Wish

    return Wish(
        dataset(where),
        data=data,
        protocol=protocol,
        labels=labels,
        runs=runs,
        seed=seed,
        revision=revision,
        split=split,
        test_split=test_split,
    )


def _shares(text: str) -> tuple[float, ...]:
    """The numbers of `0,0.5,0.9`."""
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise UsageError(
            f"'{text}' is no list of ratios", where="--ratios", mend="write them as 0,0.5,0.9"
        ) from error


def print_continual(report: "ContinualReport") -> None:
    """One line per stage, then their mean."""
    printer = output()
    ours, theirs = report.mean_top1
    printer.say()
    _heading(report)
    rows = [
        (
            str(stage.seen),
            percent(stage.top1[ours]),
            percent(stage.top1[theirs]),
            signed(stage.gain),
        )
        for stage in report.stages
    ]
    mean = report.mean_top1
    rows.append(("mean", percent(mean[ours]), percent(mean[theirs]), signed(report.mean_gain)))
    printer.table(("classes seen", "distilled", "random real", "gain"), rows)


def print_slim(report: "SlimReport") -> None:
    """One line per ratio."""
    printer = output()
    ours, theirs = report.points[0].top1
    printer.say()
    _heading(report)
    rows = [
        (
            f"{point.ratio:g}",
            f"{point.parameters[ours]:,.0f}",
            f"{point.flops[ours] / 1e6:,.2f}",
            percent(point.top1_pruned[ours]),
            percent(point.top1[ours]),
            percent(point.top1[theirs]),
            signed(point.gain),
        )
        for point in report.points
    ]
    header = ("pruned", "parameters", "MFLOP", "untuned", "distilled", "random real", "gain")
    printer.table(header, rows)
    printer.say(
        f"  before: {report.parameters:,} parameters, {report.flops / 1e6:,.2f} MFLOP per image; "
        "parameters, MFLOP and untuned: of the distilled images"
    )


def signed(metric: "Metric") -> str:
    """A difference with its sign, else as `percent`."""
    text = percent(metric)
    return f"+{text}" if metric.value is not None and metric.value >= 0 else text


def _heading(report: "Use") -> None:
    output().heading(
        f"top-1 in percent: {report.arch}, {report.protocol} (± 95 % interval, runs in brackets)"
    )


def _written(report: "Use", out: Path, stem: str) -> None:
    printer = output()
    for note in report.notes:
        printer.say(f"  note: {note}")
    printer.say(f"written to {shown(out / f'{stem}.json')} and {shown(out / f'{stem}.png')}")
