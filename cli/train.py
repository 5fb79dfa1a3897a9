"""train: a classifier from any dataset with images and labels."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distillhub_cli.output import duration, output, quoted
from distillhub_cli.places import complete_set, dataset, shown, workplace


def train(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A folder, a finished build or a Hub id.",
            autocompletion=complete_set,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Network, see `list models`; default: the protocol's student."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the weights.")] = Path(
        "trained"
    ),
    protocol: Annotated[
        str | None,
        typer.Option(help="See `list protocols`; default: the one the set was scored with."),
    ] = None,
    labels: Annotated[
        Literal["auto", "hard", "soft"], typer.Option(help="auto: soft where the set has them.")
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps instead of the protocol's length.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    test: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Also score it on the test split of these real images."),
    ] = None,
    test_split: Annotated[
        str, typer.Option(help="Split of DATA to test on, or a share of its training split.")
    ] = "test",
) -> None:
    """Train a classifier on a dataset, with the labels that it has, and write safetensors and JSON.

    Works for any image dataset with labels, also one that distillhub did not make.
    """
    from distillhub.pipeline.students import train_student

    place = workplace()
    printer = output()
    with printer.reporter() as reporter:
        trained = train_student(
            dataset(where),
            out,
            state=place.state,
            reporter=reporter,
            arch=model,
            protocol=protocol,
            labels=labels,
            steps=steps,
            seed=seed,
            revision=revision,
            split=split,
        )
    record = trained.record
    kind = (
        "hard labels"
        if record.labels == "hard"
        else f"soft labels, {record.views_per_image} views per image"
    )
    printer.heading(f"{trained.classifier.arch} is in {shown(out)}")
    printer.facts(
        [
            ("trained on", f"{record.images:,} images, {kind}"),
            (
                "protocol",
                f"{record.protocol.name}: {record.steps:,} steps in {duration(record.wall_s)}",
            ),
        ]
    )
    if test is not None:
        from distillhub.pipeline.scoring import score_classifier

        top1, images = score_classifier(
            trained,
            test,
            state=place.state,
            sources=place.sources,
            test_split=test_split,
        )
        printer.facts([("top-1", f"{top1:.1%} of {images:,} test images of {test}")])
    else:
        printer.next(quoted("distillhub", "evaluate", where))
