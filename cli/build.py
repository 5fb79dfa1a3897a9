"""build, plan, status, stage: from a recipe to a finished dataset."""

from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import duration, operations, output, quoted, size
from distillhub_cli.places import complete_recipe, needed_project, recipe_file, shown
from distillhub_cli.scores import print_arms

RecipeWord = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A file or a name.", autocompletion=complete_recipe)
]


def build(
    recipe: RecipeWord,
    direct: Annotated[
        bool, typer.Option("--direct", help="Run the stages in this process, without DVC.")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Add the recipe to the index that `dvc repro` keeps built."),
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Accept data that changed since the last resolve.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a workspace's recipe of the same name.")
    ] = False,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Build on a CPU what is meant for a GPU.")
    ] = False,
    workspace: Annotated[
        Path | None, typer.Option(help="Build here instead of .distillhub/workspace.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also copy the finished dataset to this folder."),
    ] = None,
) -> None:
    """Build a recipe: images, labels, dataset, scores, card. What is up to date is not made again.

    May be stopped at any time; the same command goes on where it was.
    """
    from distillhub import pipeline

    path = recipe_file(recipe)
    printer = output()
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder", where="--out", mend="name a new folder")
    with printer.reporter() as reporter:
        folder = pipeline.build(
            path,
            reporter=reporter,
            direct=direct,
            keep=keep,
            update=update,
            replace=replace,
            allow_cpu=allow_cpu,
            workspace=workspace,
        )
        if out is not None:
            pipeline.export(folder, out, reporter=reporter)
            folder = out
    announce(folder)


def announce(folder: Path) -> None:
    """Where a finished dataset is, how good it is, and what can be done with it."""
    from distillhub.records.report import loads

    out = output()
    place = shown(folder)
    out.say()
    out.heading(f"the dataset is in {place}")
    out.say()
    report = folder / "eval.json"
    if report.is_file():
        print_arms(out, loads(report.read_bytes(), where=str(report)))
        out.say()
    snippet = f"from datasets import load_dataset; print(load_dataset({place!r}))"
    out.next(
        f'python -c "{snippet}"',
        quoted("distillhub", "show", place),
        quoted("distillhub", "verify", place),
        quoted("distillhub", "train", place, "--out", "trained"),
    )


def plan(
    recipe: RecipeWord,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a build will take, before any of it is done: units, steps, bytes, time."""
    from distillhub import pipeline
    from distillhub.pipeline.building import place

    path = recipe_file(recipe)
    project = place(path, keep=False, replace=False, workspace=None)
    made = pipeline.make_plan(project.recipe(path.stem), project)
    out = output()
    if as_json:
        out.json(made.model_dump(mode="json"))
        return
    out.heading(f"plan of {made.recipe} on {made.device}")
    todo = [base for base in made.bases if not base.built]
    out.facts(
        [
            ("images", f"{made.images:,} in {made.units:,} units"),
            (
                "bytes",
                f"images {size(made.bytes_images)}, labels {size(made.bytes_labels)}"
                f" ({made.bytes_basis})",
            ),
            ("disk", f"{size(made.disk)} with everything between"),
            ("work", operations(made.flops)),
            ("time", duration(made.seconds)),
        ]
    )
    if made.bases:
        rows = [
            (
                base.recipe,
                f"{base.images:,}",
                operations(base.flops),
                duration(base.seconds),
                "built" if base.built else "to be built first",
            )
            for base in made.bases
        ]
        out.table(("rests on", "images", "work", "time", ""), rows)
    lines = []
    for stage in made.stages:
        lines.append(
            (stage.name, "", operations(stage.flops), duration(stage.seconds), stage.basis)
        )
        for part in stage.parts:
            cells = (operations(part.flops), duration(part.seconds), part.basis)
            lines.append(("", part.work, *(cells if part.seconds else ("", "", ""))))
    out.table(("stage", "work", "FLOPs", "time", "basis"), lines)
    devices = [
        (
            device.name,
            _hours(device.seconds_make),
            _hours(device.seconds_evaluate),
            *([_hours(device.seconds_bases)] if todo else []),
            device.source,
        )
        for device in made.devices
    ]
    columns = ("hours to make", "to evaluate", *(["of what it rests on"] if todo else []))
    out.table(("device", *columns, "speed"), devices)
    out.next(quoted("distillhub", "build", recipe))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g}" if seconds < 3.6e6 else f"{seconds / 3600:,.0f}"


def status(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(help="Default: all of the project.", autocompletion=complete_recipe),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show which stages of which recipes are up to date, changed, begun or missing."""
    from distillhub import pipeline
    from distillhub_cli.places import recipes_in

    project = needed_project()
    stems = [recipe_file(word).stem for word in recipes or ()] or [
        path.stem for path in recipes_in(project.recipes)
    ]
    rows = pipeline.status(project, stems)
    out = output()
    if as_json:
        out.json([{"recipe": stem, "stage": stage, "state": state} for stem, stage, state in rows])
        return
    states: dict[str, dict[str, str]] = {}
    for stem, stage, state in rows:
        states.setdefault(stem, {})[stage] = state
    stages = list(dict.fromkeys(stage for _, stage, _ in rows))
    out.table(
        ("recipe", *stages),
        [(stem, *(found.get(s, "") for s in stages)) for stem, found in states.items()],
    )


def stage(
    name: Annotated[
        str, typer.Argument(help="resolve, models, synthesize, relabel, package, evaluate or card.")
    ],
    recipe: Annotated[
        str,
        typer.Argument(help="Name of a recipe of this project.", autocompletion=complete_recipe),
    ],
) -> None:
    """Run one stage of one recipe; DVC calls this."""
    from distillhub import pipeline

    with output().reporter() as reporter:
        pipeline.run_stage(name, recipe, needed_project(), reporter, of_dvc=True)
