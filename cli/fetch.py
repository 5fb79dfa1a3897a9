"""fetch, history, and verify for what is published."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub_cli.output import output, quoted
from distillhub_cli.places import shown

AddressWord = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="org/name, org/name@v1.0.0 or org/name@<commit>.")
]


def fetch(
    address: AddressWord,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new folder. [default: the name, here]"),
    ] = None,
) -> None:
    """Fetch a published version into a folder, and check every hash of it.

    `@v1` is the newest 1.x.y, without `@` the newest of all. What was fetched once can be fetched
    again without a network.
    """
    from distillhub.hub.fetch import fetch as get

    done = get(address, out)
    printer = output()
    by = "the Hub and its manifest say" if done.online else "its manifest says"
    printer.say(f"{done.address.repo} {done.found} is in {shown(done.folder)}")
    printer.say(f"{done.files} files, each with the hash that {by}")
    if not done.online:
        printer.say("the Hub is out of reach: this is what was fetched before")
    printer.next(quoted("distillhub", "show", shown(done.folder)))


def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="org/name on the Hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the published versions of a dataset, and what changed from each to the next."""
    from distillhub.hub.history import history as read

    entries = read(name)
    printer = output()
    if as_json:
        printer.json(
            [
                {
                    "version": str(entry.version),
                    "commit": entry.commit,
                    "date": entry.date.isoformat() if entry.date else None,
                    "digest": entry.digest,
                    "changes": None
                    if entry.changes is None
                    else [change._asdict() for change in entry.changes],
                }
                for entry in entries
            ]
        )
        return
    if not entries:
        printer.say(f"{name} has no published version")
        return
    rows = []
    for number, entry in enumerate(entries):
        told = "; ".join(change.what for change in entry.changes or ())
        if entry.changes is None:
            told = "first version" if number == len(entries) - 1 else "cannot be compared"
        date = f"{entry.date:%Y-%m-%d}" if entry.date else "not on main"
        rows.append((entry.version.tag, date, entry.commit[:12], told or "nothing"))
    printer.table(("version", "date", "commit", "what changed"), rows)


def verify_published(address: str, *, full: bool, key: Path | None) -> None:
    """Check a published version and say what was looked at."""
    from distillhub.hub.inspection import inspect

    done = inspect(address, full=full, key=key)
    printer = output()
    if key is not None:
        printer.say("every file is as the key signed it")
    printer.say(f"{done.address.repo} {done.found} is what its manifest says: {done.files} files")
    if done.fetched < done.files:
        left = done.files - done.fetched
        printer.say(f"of {left} data files the Hub's hashes were compared")
        printer.next(quoted("distillhub", "verify", str(done.address), "--full"))
    else:
        printer.next(quoted("distillhub", "fetch", str(done.address)))
