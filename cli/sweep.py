"""sweep: recipes and their variants side by side."""

import re
from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output, quoted
from distillhub_cli.places import complete_recipe, needed_project, recipe_file, shown

SECTION = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)


def sweep(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", help="Files or names.", autocompletion=complete_recipe),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, help="How many synthesis seeds; the intervals are over them.")
    ] = 3,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=V1,V2",
            help="Values to try for a key of every recipe; may be repeated.",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values to try one at a time, beside the recipe as it is; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the section in the results; default: the recipe's, if it is one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: docs/results.md of the project.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write and check the variants; build nothing.")
    ] = False,
) -> None:
    """Build and score recipes and variants of them; write one table with intervals.

    May be stopped at any time; the same command goes on. What an earlier sweep built is not
    built again.
    """
    from distillhub.pipeline.results import markdown, write_results
    from distillhub.pipeline.sweep import run_sweep
    from distillhub.pipeline.variants import parse_setting, plan_sweep

    project = needed_project()
    paths = [recipe_file(word) for word in recipes]
    chosen = dict(parse_setting(text) for text in settings or ())
    alone = dict(parse_setting(text, "--vary") for text in vary or ())
    title = _section(name, paths)
    printer = output()
    if dry_run:
        variants = plan_sweep(paths, project.state, seeds=seeds, settings=chosen, alone=alone)
        for variant in variants:
            printer.say(shown(variant.path))
        count = f"{len(variants)} variant{'s are' if len(variants) > 1 else ' is'}"
        printer.say(f"{count} valid; nothing was built")
        return
    with printer.reporter() as reporter:
        table = run_sweep(
            paths, project, seeds=seeds, settings=chosen, alone=alone, reporter=reporter
        )
    parts = ["distillhub", "sweep", *recipes, "--seeds", str(seeds)]
    for text in settings or ():
        parts += ["--set", text]
    for text in vary or ():
        parts += ["--vary", text]
    if name is not None:
        parts += ["--name", name]
    command = quoted(*parts)
    page = out or project.root / "docs" / "results.md"
    figures = write_results(page, title, command, table)
    printer.say()
    printer.say(markdown(title, command, table))
    printer.say(f"written to {shown(page)} and {shown(figures)}")


def _section(name: str | None, recipes: list[Path]) -> str:
    """The name of the section, checked before hours of work."""
    if name is None and len(recipes) > 1:
        raise UsageError(
            f"the section of {len(recipes)} recipes needs a name", where="--name", mend="give one"
        )
    title = name or recipes[0].stem
    if SECTION.fullmatch(title) is None:
        raise UsageError(
            f"'{title}' is no name of a section",
            where="--name",
            mend="use letters, digits and . _ - between them",
        )
    return title
