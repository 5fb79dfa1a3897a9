"""reproduce: a dataset made, or scored, once more from the recipe inside it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillhub.errors import UsageError, VerificationError
from distillhub_cli.compare import at_hand
from distillhub_cli.output import Output, output
from distillhub_cli.places import complete_set, shown

if TYPE_CHECKING:
    from distillhub.pipeline.reproducing import Reproduction

KEYS_SHOWN = 12


def reproduce(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A dataset folder, a finished build, or org/name@v1.0.0.",
            autocompletion=complete_set,
        ),
    ],
    evaluate_only: Annotated[
        bool,
        typer.Option(
            "--evaluate-only", help="Score the published rows again instead of making them anew."
        ),
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FOLDER", help="A local copy of a dataset that the recipe names."),
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="Work here. [default: .distillhub/reproduce/...]")
    ] = None,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Work on a CPU where a GPU is meant.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Make a dataset again from the recipe inside it, and say what came out the same.

    Exit code 0 when the headline accuracy is within the range that the set was published with, 5
    when it is not. Data that are not those of the recipe's pin are refused. Nothing that this
    machine kept of earlier builds is used; an interrupted run goes on where it was.
    """
    from distillhub.pipeline.reproducing import reproduce as again

    sources = dict(_source(word) for word in source or ())
    printer = output()
    news = Output(sys.stderr, sys.stderr) if as_json else printer
    with at_hand(where) as folder, news.reporter() as reporter:
        found = again(
            folder,
            reporter=reporter,
            evaluate_only=evaluate_only,
            sources=sources,
            workspace=workspace,
            allow_cpu=allow_cpu,
        )
    if as_json:
        printer.json(_plain(found))
    else:
        _show(printer, found, evaluate_only=evaluate_only)
    if not found.within:
        raise VerificationError(
            "did not come out as it was published",
            where=where,
            mend="the table says where it parts; other versions or hardware move last digits",
        )


def _source(word: str) -> tuple[str, Path]:
    name, separator, folder = word.partition("=")
    path = Path(folder).expanduser()
    if not name or not separator or not path.is_dir():
        raise UsageError(
            f"'{word}' names no folder", where="--source", mend="write it as org/name=FOLDER"
        )
    return name, path


def _show(out: Output, found: "Reproduction", *, evaluate_only: bool) -> None:
    if found.digests:
        out.say()
        out.table(
            ("digest", "published", "now", ""),
            [
                (one.what, one.published[:12], one.now[:12], _word(equal=one.equal))
                for one in found.digests
            ],
        )
    if found.images is not None:
        out.say(f"  {found.images[0]:,} of {found.images[1]:,} images have the same pixels")
    for title, fields in (("recipe", found.recipe), ("software", found.environment)):
        if fields:
            out.say()
            rows = [(one.key, str(one.a), str(one.b)) for one in fields]
            out.table((title, "published", "now"), rows[:KEYS_SHOWN])
            if len(rows) > KEYS_SHOWN:
                out.say(f"  and {len(rows) - KEYS_SHOWN} more; --json has all")
    out.say()
    out.table(
        ("top-1 of run", "published", "now", ""),
        [
            (
                pair.id,
                "not run" if pair.published is None else f"{pair.published:.4f}",
                f"{pair.now:.4f}",
                "same" if pair.difference == 0 else f"{pair.difference or 0:+.4f}",
            )
            for pair in found.runs
        ],
    )
    if evaluate_only and found.left_out:
        out.say(f"  not run again: {len(found.left_out)} that need a teacher or real images")
    out.say()
    out.say(_verdict(found))
    if found.digests:
        out.say(f"the new dataset is in {shown(found.folder)}")


def _word(*, equal: bool) -> str:
    return "same" if equal else "differs"


def _verdict(found: "Reproduction") -> str:
    if found.expected is None or found.headline is None:
        told = "all is as published" if found.identical else "not all is as published"
        return f"no expected range was published for these runs: {told}"
    low, high = found.expected.low, found.expected.high
    inside = "within" if found.within else "outside"
    exact = ", everything the same" if found.identical else ""
    return (
        f"headline {found.expected.arm} on {found.expected.protocol}: {found.headline:.2%} is "
        f"{inside} the expected {low:.2%} to {high:.2%}{exact}"
    )


def _plain(found: "Reproduction") -> dict[str, object]:
    expected = found.expected
    return {
        "within": found.within,
        "identical": found.identical,
        "digest": found.digest,
        "folder": str(found.folder) if found.digests else None,
        "digests": [{**one._asdict(), "equal": one.equal} for one in found.digests],
        "images": None
        if found.images is None
        else {"same": found.images[0], "all": found.images[1]},
        "recipe": [one._asdict() for one in found.recipe],
        "environment": [one._asdict() for one in found.environment],
        "runs": [{**pair._asdict(), "difference": pair.difference} for pair in found.runs],
        "not_run_again": list(found.left_out),
        "expected": None if expected is None else expected.model_dump(mode="json"),
        "headline": found.headline,
    }
