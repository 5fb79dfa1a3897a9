"""catalog: a static site of any number of artifacts."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub_cli.output import output
from distillhub_cli.places import shown


def catalog(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Artifacts, or folders that hold some at any depth."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the site.")] = Path("site"),
    title: Annotated[str, typer.Option(help="Of the site.")] = "Distilled datasets",
) -> None:
    """Make a static site of artifacts: a table to sort, accuracy against bytes, a page for each.

    It needs no server and loads nothing from elsewhere. What cannot be read is named, on the page
    and here, with exit code 5; the others are listed.
    """
    from distillhub.errors import VerificationError
    from distillhub.pipeline.cataloging import make_catalog

    found = make_catalog(folders, out, title=title)
    printer = output()
    count = len(found.entries)
    printer.say(f"{count} set{'s' if count != 1 else ''} in {shown(out / 'index.html')}")
    if found.broken:
        raise VerificationError.of(found.broken)
