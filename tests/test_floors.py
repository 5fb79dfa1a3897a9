"""Who may import whom: imports go downward only, and rooms on one floor do not see one another.

Imports are read from the syntax trees, those inside functions and TYPE_CHECKING blocks included.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    {"", "errors", "units", "spec", "digests"},  # "" is distillhub/__init__.py, lazy
    {"ops"},
    {"data", "models", "records"},
    {"methods", "relabel", "evaluation", "packaging"},
    {"recipe", "pipeline"},
    {"hub"},
    {"cli"},
)
SAME_FLOOR = {("records", "data"), ("records", "models"), ("pipeline", "recipe")}
"""The only rooms that see another one of their floor."""
UPWARD = {("", "pipeline"), ("", "recipe"), ("", "records")}
"""`distillhub.build` and its like are looked up in these rooms when they are first used."""

HOMES = {
    "timm": {"models.zoo"},
    "diffusers": {
        "models.checkpoints",
        "models.diffusion",
        "models.diffusion_files",
        "models.diffusion_training",
    },
    "datasets": {"data.sources", "records.distilled", "records.streamed", "packaging.parquet"},
    "dvc": set(),  # only ever started as a command
    "ray": {"pipeline.executors"},
}
"""Libraries that only the named modules may import."""
HEAVY = {
    "timm",
    "diffusers",
    "datasets",
    "matplotlib",
    "sklearn",
    "scipy",
    "torchvision",
    "mlcroissant",
}
"""Libraries that are imported where they are used, never at the top of a module."""
LIGHT_FLOOR = {"torch", "numpy", "pyarrow", "PIL", "safetensors"} | HEAVY
"""Libraries that floor 0 does without."""


class Import(NamedTuple):
    """One import statement."""

    importer: str
    """`pipeline.plan`, `cli.main`."""
    imported: str
    """`distillhub.data.sources`, `torch.nn`."""
    line: int
    deferred: bool
    """Inside a function, or for type checking only."""


def room(module: str) -> str:
    return module.split(".")[0]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "distillhub").rglob("*.py")):
        parts = path.relative_to(ROOT / "distillhub").with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path
    for path in sorted((ROOT / "cli").rglob("*.py")):
        yield ".".join(("cli", *path.relative_to(ROOT / "cli").with_suffix("").parts)), path


def imports_of(module: str, path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, deferred)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:  # `from distillhub import methods` names a room, too
                yield Import(module, f"{node.module}.{alias.name}", node.lineno, deferred)
        inner = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inner = inner or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


IMPORTS = [found for module, path in modules() for found in imports_of(module, path)]


def floor_of(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def target_room(imported: str) -> str | None:
    """The room of ours that an import leads to."""
    top, *rest = imported.split(".")
    if top == "distillhub_cli":
        return "cli"
    if top != "distillhub":
        return None
    known = set().union(*FLOORS)
    return rest[0] if rest and rest[0] in known else ""


def shown(found: Import) -> str:
    return f"{found.importer}, line {found.line}: {found.imported}"


def test_every_module_lives_on_a_floor():
    known = set().union(*FLOORS)

    homeless = [module for module, _ in modules() if room(module) not in known]

    assert homeless == []


def test_imports_only_go_downward():
    wrong = []
    for found in IMPORTS:
        mine, theirs = room(found.importer), target_room(found.imported)
        if theirs is None or mine == theirs:
            continue
        sideways = floor_of(mine) == floor_of(theirs) and floor_of(mine) > 0
        upward = floor_of(theirs) > floor_of(mine)
        if (sideways and (mine, theirs) not in SAME_FLOOR) or (
            upward and (mine, theirs) not in UPWARD
        ):
            wrong.append(shown(found))

    assert wrong == []


def test_methods_do_not_import_one_another():
    wrong = [
        shown(found)
        for found in IMPORTS
        if room(found.importer) == "methods"
        and found.imported.startswith("distillhub.methods.")
        and not found.imported.startswith("distillhub.methods._")
        and found.importer != "methods"
    ]

    assert wrong == []


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_guarded_library_is_imported_only_at_home(library):
    wrong = [
        shown(found)
        for found in IMPORTS
        if found.imported.split(".")[0] == library and found.importer not in HOMES[library]
    ]

    assert wrong == []


def test_heavy_libraries_are_imported_where_they_are_used():
    wrong = [
        shown(found)
        for found in IMPORTS
        if found.imported.split(".")[0] in HEAVY and not found.deferred
    ]

    assert wrong == []


def test_the_ground_floor_needs_no_numerical_library():
    wrong = [
        shown(found)
        for found in IMPORTS
        if room(found.importer) in FLOORS[0] and found.imported.split(".")[0] in LIGHT_FLOOR
    ]

    assert wrong == []


def test_the_command_line_imports_nothing_heavy_at_the_top():
    light = {"errors", ""}
    wrong = [
        shown(found)
        for found in IMPORTS
        if room(found.importer) == "cli"
        and not found.deferred
        and target_room(found.imported) not in (None, "cli", *light)
    ]

    assert wrong == []
