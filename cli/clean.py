"""clean: remove scratch by age and size; datasets only when asked by name."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output, size
from distillhub_cli.places import here, shown

KINDS = {
    "work": "snapshots of unfinished stages",
    "resources": "things that recipes share: statistics, random twins, finished runs",
    "models": "trained networks that recipes share",
    "sweeps": "the variants of `distillhub sweep`, their datasets included",
    "workspace": "builds outside of a project, their datasets included",
    "reproduce": "what `distillhub reproduce` made again, its datasets included",
}
"""Folders of the scratch space, in the order in which they are least missed."""
DEFAULT = ("work", "resources", "models")
_HALF_MADE = re.compile(r"^\.(.+)\.(?:new-.*|old)$")
"""What a killed process leaves beside the folder it was making; that folder's lock guards it."""
_AGE = re.compile(r"^(\d+)([hdw])$")
_HOURS = {"h": 1, "d": 24, "w": 168}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kMG]?)B?$")
_BYTES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Entry:
    """One thing that can go."""

    kind: str
    path: Path
    bytes: int
    used: float
    """Seconds since the epoch of the latest change inside."""


def clean(
    kind: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(KINDS)}.")] = None,
    older: Annotated[
        str | None, typer.Option(help="Only what was not changed for this long: 12h, 7d, 4w.")
    ] = None,
    larger: Annotated[
        str | None, typer.Option(help="Only what is larger than this: 500k, 100M, 2G.")
    ] = None,
    artifacts: Annotated[
        list[str] | None, typer.Option(help="Also the finished build of this recipe.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would go; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove scratch: snapshots, shared models and resources. Finished datasets stay unless named.

    Everything removed can be made again.
    """
    state, root = _state()
    chosen = tuple(kind) if kind else DEFAULT
    for name in chosen:
        if name not in KINDS:
            raise typer.BadParameter(f"unknown kind '{name}'; choose from {', '.join(KINDS)}")
    oldest = time.time() - 3600 * parse_age(older) if older else None
    smallest = parse_size(larger) if larger else 0
    entries = [
        entry
        for entry in found(state, chosen)
        if (oldest is None or entry.used < oldest) and entry.bytes >= smallest
    ]
    entries += [_artifact(root, stem) for stem in artifacts or ()]
    out = output()
    if not entries:
        out.say("nothing to remove")
        return
    now = time.time()
    rows = [
        (e.kind, shown(e.path), size(e.bytes), f"{(now - e.used) / 3600:.1f} h ago")
        for e in entries
    ]
    out.table(("kind", "folder", "size", "last change"), rows)
    total = size(sum(entry.bytes for entry in entries))
    if dry_run:
        out.say(f"{total} would be freed; nothing was removed")
        return
    if not yes and not typer.confirm(f"Remove these, {total}?"):
        raise typer.Abort
    kept = [entry for entry in entries if not remove(entry.path)]
    for entry in kept:
        out.say(f"kept {shown(entry.path)}: in use")
    out.say(f"{size(sum(entry.bytes for entry in entries if entry not in kept))} freed")


def _state() -> tuple[Path, Path]:
    """The scratch space and the root of the project, or of the place where there is none."""
    project = here()
    return (project.state, project.root) if project else (Path.cwd() / ".distillhub", Path.cwd())


def found(state: Path, kinds: tuple[str, ...]) -> Iterator[Entry]:
    """What there is of these kinds; the work of stages lies one folder deeper than the others."""
    for kind in kinds:
        for path in sorted((state / kind).glob("*/*" if kind == "work" else "*")):
            if path.is_dir():
                yield _measure(kind, path)


def _measure(kind: str, path: Path) -> Entry:
    stats = [p.lstat() for p in path.rglob("*") if not p.is_dir()]
    used = max(
        path.stat().st_mtime, *(s.st_mtime for s in stats), 0.0
    )  # stores touch a folder when it is used
    return Entry(kind, path, sum(s.st_size for s in stats), used)


def _artifact(root: Path, stem: str) -> Entry:
    path = root / "artifacts" / stem
    if Path(stem).name != stem or not path.is_dir():
        raise UsageError(
            f"there is no build '{stem}'",
            where=str(root / "artifacts"),
            mend="see `distillhub status`",
        )
    return _measure("artifacts", path)


def remove(path: Path) -> bool:
    """Remove a folder unless somebody works in it; whether it went."""
    from filelock import FileLock, Timeout

    match = _HALF_MADE.match(path.name)
    lock = FileLock(path.with_name(f"{match[1] if match else path.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(path)
    except Timeout:
        return False
    return True


def parse_age(text: str) -> int:
    """Hours of `12h`, `7d`, `4w`."""
    match = _AGE.match(text)
    if match is None:
        raise typer.BadParameter(f"'{text}' is not an age; write 12h, 7d or 4w")
    return int(match[1]) * _HOURS[match[2]]


def parse_size(text: str) -> float:
    """Bytes of `500k`, `100M`, `2G`."""
    match = _SIZE.match(text)
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a size; write 500k, 100M or 2G")
    return float(match[1]) * _BYTES[match[2]]
