"""materialize: the pixels of images that a dataset only names."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub_cli.output import output, quoted
from distillhub_cli.places import complete_set, dataset_folder, here, shown


def materialize(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A dataset folder or a finished build.",
            autocompletion=complete_set,
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            help="Your copy of the real images: a folder, or a Hub id. [default: as in the recipe]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new folder for the result. [default: in place]"),
    ] = None,
) -> None:
    """Fill in the pixels of real images that a dataset names, from your copy of their source.

    Every image is checked against the recorded hash of its file and of its pixels. Nothing is
    written unless all are found.
    """
    from distillhub.pipeline.materializing import materialize as fill
    from distillhub.pipeline.project import environment_sources

    project = here()
    sources = project.sources if project is not None else environment_sources()
    done = fill(dataset_folder(where), source=source, out=out, sources=sources)
    printer = output()
    place = shown(done.folder)
    printer.say(f"{place} holds the pixels of {done.images:,} more images; digest {done.digest}")
    printer.next(quoted("distillhub", "verify", place))
