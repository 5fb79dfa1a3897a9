"""validate, schema, list, version: looking things up without building anything."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import Fault, RecipeError, UsageError
from distillhub_cli.output import Output, output
from distillhub_cli.places import complete_recipe, known_recipes, recipe_file, recipes_in, shown


def validate(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recipe files, names or folders; default: all that `list recipes` shows.",
            autocompletion=complete_recipe,
        ),
    ] = None,
) -> None:
    """Check recipes and report every fault at once, with file, line, key and mend."""
    from distillhub.recipe.loading import load_recipe

    out = output()
    files = _recipe_files(recipes)
    faults: list[Fault] = []
    for path in files:
        try:
            load_recipe(path)
        except RecipeError as error:
            faults += error.faults
    if faults:
        raise RecipeError.of(faults)
    out.say(f"{len(files)} recipe{'s' if len(files) != 1 else ''} valid")


def _recipe_files(words: Iterable[str] | None) -> list[Path]:
    words = list(words or ())
    if not words:
        return list(known_recipes().values())
    found: list[Path] = []
    for word in words:
        folder = Path(word).expanduser()
        if folder.is_dir():
            inside = recipes_in(folder)
            if not inside:
                raise UsageError(
                    "no recipes in this folder", where=word, mend="recipes end in .yaml"
                )
            found += inside
        else:
            found.append(recipe_file(word))
    return found


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file instead of printing.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Make the table of keys in docs/recipes.md anew."),
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors.

    With it, an editor knows every key when the first line of a recipe reads
    # yaml-language-server: $schema=recipe.schema.json
    """
    from distillhub.recipe.json_schema import json_schema
    from distillhub.recipe.reference import update_file

    printer = output()
    if reference is not None:
        try:
            update_file(reference)
        except (ValueError, FileNotFoundError) as error:
            raise UsageError(
                "is no page with a table of keys", where=str(reference), mend="name docs/recipes.md"
            ) from error
        printer.say(f"wrote {shown(reference)}")
    text = json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        printer.say(f"wrote {shown(out)}")
    if out is None and reference is None:
        printer.say(text.rstrip())


def _recipes(out: Output) -> None:
    rows = [(stem, *_headline(path), shown(path)) for stem, path in sorted(known_recipes().items())]
    out.table(("recipe", "what", "file"), rows)


def _headline(path: Path) -> tuple[str]:
    """The first sentence of the comment that opens a recipe."""
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "").lstrip("# ").strip()
    return (first.partition(". ")[0].rstrip("."),)


def _methods(out: Output) -> None:
    from distillhub import methods

    rows = []
    for name in methods.names():
        method = methods.load(name)
        paper = method.paper
        rows.append(
            (name, str(method.model_fields["version"].default), f"{paper.title} ({paper.venue})")
        )
    out.table(("method", "version", "paper"), rows)


def _protocols(out: Output) -> None:
    from distillhub.evaluation import protocols

    rows = []
    for name in protocols.names():
        protocol = protocols.get(name)
        students = ", ".join(protocol.students)
        rows.append(
            (
                name,
                str(protocol.runs),
                students,
                "" if protocol.publishable else "proves the pipeline only",
            )
        )
    out.table(("protocol", "runs", "students", "remark"), rows)


def _models(out: Output) -> None:
    from distillhub.models import zoo

    for name in zoo.architectures():
        out.say(f"  {name}")


_LISTS: dict[str, Callable[[Output], None]] = {
    "recipes": _recipes,
    "methods": _methods,
    "protocols": _protocols,
    "models": _models,
}


def _complete_list(incomplete: str) -> list[str]:
    return [name for name in _LISTS if name.startswith(incomplete)]


def list_(
    what: Annotated[
        str,
        typer.Argument(help="recipes, methods, protocols or models", autocompletion=_complete_list),
    ],
) -> None:
    """Show the recipes, methods, protocols or models that there are."""
    if what not in _LISTS:
        raise typer.BadParameter(f"'{what}' cannot be listed; choose one of {', '.join(_LISTS)}")
    _LISTS[what](output())


def version() -> None:
    """Print the version of distillhub."""
    from distillhub import __version__

    output().say(f"distillhub {__version__}")
