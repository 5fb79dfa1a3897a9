"""catalog: a static site of any number of artifacts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from distillhub_cli.output import output
from distillhub_cli.places import shown

ORGANISATION = re.compile(r"[A-Za-z0-9][\w-]*")


def catalog(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|ORG...",
            help="Artifacts, folders that hold some at any depth, or an organisation on the Hub.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the site.")] = Path("site"),
    title: Annotated[str, typer.Option(help="Of the site.")] = "Distilled datasets",
) -> None:
    """Make a static site of artifacts: a table to sort, accuracy against bytes, a page for each.

    It needs no server and loads nothing from elsewhere. What cannot be read is named, on the page
    and here, with exit code 5; the others are listed.
    """
    import tempfile

    from distillhub.errors import VerificationError
    from distillhub.pipeline.cataloging import make_catalog

    with tempfile.TemporaryDirectory() as fetched:
        folders = [folder for place in places for folder in _folders(place, Path(fetched) / place)]
        found = make_catalog(folders, out, title=title)
    printer = output()
    count = len(found.entries)
    printer.say(f"{count} set{'s' if count != 1 else ''} in {shown(out / 'index.html')}")
    if found.broken:
        raise VerificationError.of(found.broken)


def _folders(place: str, into: Path) -> Sequence[Path]:
    """A folder here, or those of an organisation's sets, fetched without their rows."""
    if Path(place).exists() or not ORGANISATION.fullmatch(place):
        return [Path(place)]
    from distillhub.hub.listing import fetch_texts

    return fetch_texts(place, into)
