"""evaluate: score any dataset on real images, beside random real images of the same number."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output
from distillhub_cli.places import complete_set, dataset, dataset_folder, shown, workplace
from distillhub_cli.scores import print_comparisons


def evaluate(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A folder, a finished build or a Hub id.",
            autocompletion=complete_set,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Real images to test on and to draw random ones from; default: the set's source.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="See `list protocols`; default: the one the set was scored with."),
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Network; may be repeated; default: the protocol's.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Paired seeds; default: the protocol's number.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also train on all the real images, for reference.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the first run.")] = 0,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of SET to train on.")] = "train",
    test_split: Annotated[
        str, typer.Option(help="Split of DATA to test on, or a share of its training split.")
    ] = "test",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write runs and metrics to this JSON file.")
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Put the runs on the card of SET, which was imported."),
    ] = False,
) -> None:
    """Score a dataset: students trained on it, and on random real images, tested on real images.

    Works for any image dataset with labels. May be stopped; the same command goes on.
    """
    from distillhub.pipeline.recarding import check_recardable, recard
    from distillhub.pipeline.scoring import score_set

    if card:
        check_recardable(dataset_folder(where))
    if out is not None and out.is_dir():
        raise UsageError("is a folder", where=f"--out {out}", mend="name a JSON file")
    place = workplace()
    printer = output()
    with printer.reporter() as reporter:
        scored = score_set(
            dataset(where),
            state=place.state,
            sources=place.sources,
            reporter=reporter,
            data=data,
            protocol=protocol,
            students=tuple(student or ()),
            runs=runs,
            full=full,
            seed=seed,
            revision=revision,
            split=split,
            test_split=test_split,
        )
    printer.say()
    print_comparisons(printer, scored.comparisons)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(scored.model_dump_json(indent=1) + "\n", encoding="utf-8")
        printer.say(f"written to {shown(out)}")
    if card:
        recard(dataset_folder(where), scored)
        printer.say(f"the card of {shown(dataset_folder(where))} has them")
