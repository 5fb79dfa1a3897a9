"""init: a first recipe for one's own images, or a project to keep recipes in."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output, quoted
from distillhub_cli.places import here, shown


def init(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of images by class, a folder in Hub layout, or a Hub id."),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Make DIR a project: dvc.yaml, distillhub.toml, recipes/."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the recipe; default: from DATA, method and ipc.")
    ] = None,
    method: Annotated[str, typer.Option(help="See `list methods`.")] = "dm",
    ipc: Annotated[int, typer.Option(min=1, help="Images per class.")] = 10,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small numbers: shows the whole way in a minute or two.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over files that are there.")
    ] = False,
) -> None:
    """Write a commented first recipe for your own images; with --project a home for recipes."""
    if data is None and project is None:
        raise typer.BadParameter("name a folder of images, or a project to make with --project DIR")
    from distillhub.pipeline.starting import start_project, starting_recipe

    out = output()
    steps: list[str] = []
    if project is not None:
        for path in start_project(project, force=force):
            out.say(f"wrote {shown(path)}")
        if project.resolve() != Path.cwd():
            steps.append(quoted("cd", shown(project)))
    if data is not None:
        from distillhub.pipeline.project import Project

        home = Project.find(project) if project is not None else here()
        draft = starting_recipe(data, home, name=name, method=method, ipc=ipc, quick=quick)
        target = (home.recipes if home is not None else Path.cwd()) / f"{draft.stem}.yaml"
        if target.exists() and not force:
            raise UsageError(
                f"{shown(target)} is there already",
                where="init",
                mend="give --name, or --force to replace it",
            )
        draft.write(target)
        out.say(f"wrote {shown(target)}")
        out.facts(draft.facts)
        word = draft.stem if home is not None else target.name
        steps += [quoted("distillhub", "plan", word), quoted("distillhub", "build", word)]
    else:
        steps.append("distillhub init FOLDER-OF-IMAGES")
    out.next(*steps)
