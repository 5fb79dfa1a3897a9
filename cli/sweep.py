"""sweep: variants of a recipe side by side."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub_cli.build import RecipeWord
from distillhub_cli.output import output, quoted
from distillhub_cli.places import needed_project, recipe_file, shown


def sweep(
    recipe: RecipeWord,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many synthesis seeds; the intervals are over them.")
    ] = 3,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=V1,V2",
            help="Values to try for a key of the recipe; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the section in the results; default: the recipe's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: docs/results.md of the project.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write and check the variants; build nothing.")
    ] = False,
) -> None:
    """Build and score variants of a recipe and write a table with intervals.

    May be stopped at any time; the same command goes on. What an earlier sweep built is not
    built again.
    """
    from distillhub.pipeline.results import markdown, write_results
    from distillhub.pipeline.sweep import parse_setting, plan_sweep, run_sweep

    project = needed_project()
    path = recipe_file(recipe)
    chosen = dict(parse_setting(text) for text in settings or ())
    printer = output()
    if dry_run:
        variants = plan_sweep(path, project.state, seeds=seeds, settings=chosen)
        for variant in variants:
            printer.say(shown(variant.path))
        printer.say(f"{len(variants)} variants are valid; nothing was built")
        return
    with printer.reporter() as reporter:
        table = run_sweep(path, project, seeds=seeds, settings=chosen, reporter=reporter)
    title = name or path.stem
    parts = ["distillhub", "sweep", recipe, "--seeds", str(seeds)]
    for text in settings or ():
        parts += ["--set", text]
    command = quoted(*parts)
    page = out or project.root / "docs" / "results.md"
    figures = write_results(page, title, command, table)
    printer.say()
    printer.say(markdown(title, command, table))
    printer.say(f"written to {shown(page)} and {shown(figures)}")
