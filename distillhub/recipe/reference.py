"""The table of all keys of a recipe, read from the models themselves; part of docs/recipes.md."""

import ast
import functools
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from distillhub import methods
from distillhub.data.specs import ImageFormat, SourceSpec
from distillhub.evaluation.specs import Cited, EvalSpec, Expectation
from distillhub.models.specs import (
    DiffusionSpec,
    GeneratorTrainSpec,
    ModelSpec,
    TrainSpec,
    VaeTrainSpec,
)
from distillhub.packaging.specs import CardSpec, PackageSpec, PublishSpec
from distillhub.recipe.schema import Recipe
from distillhub.relabel.spec import RelabelSpec, ViewSpec

BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"
_LINKS = {
    "SourceSpec": "dataset",
    "ImageFormat": "images",
    "RelabelSpec": "relabel",
    "ViewSpec": "relabelviews",
    "EvalSpec": "evaluate",
    "Expectation": "evaluateexpect",
    "Cited": "evaluatefull_cited",
    "CardSpec": "card",
    "PackageSpec": "package",
    "PublishSpec": "publish",
    "ModelSpec": "a-network-with-existing-weights",
    "TrainSpec": "a-network-to-be-trained",
    "GeneratorTrainSpec": "a-generator-to-be-trained",
    "VaeTrainSpec": "generatorvae",
    "DiffusionSpec": "a-published-generator",
}
_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The recipe", Recipe),
    ("`dataset`", SourceSpec),
    ("A network to be trained", TrainSpec),
    ("A network with existing weights", ModelSpec),
    ("A generator to be trained", GeneratorTrainSpec),
    ("`generator.vae`", VaeTrainSpec),
    ("A published generator", DiffusionSpec),
    ("`images`", ImageFormat),
    ("`relabel`", RelabelSpec),
    ("`relabel.views`", ViewSpec),
    ("`evaluate`", EvalSpec),
    ("`evaluate.expect`", Expectation),
    ("`evaluate.full_cited`", Cited),
    ("`package`", PackageSpec),
    ("`card`", CardSpec),
    ("`publish`", PublishSpec),
)
_WRITTEN = "pin"
"""The key that nobody types: `resolve` writes it."""


def reference() -> str:
    """Markdown: one table per block, then one per method and per block inside methods."""
    ours = [(f"`method: {{name: {name}}}`", methods.load(name)) for name in methods.names()]
    inside = [(title, model) for model, title in _blocks().items()]
    return "\n".join(_section(title, model) for title, model in (*_SECTIONS, *ours, *inside))


@functools.cache
def _blocks() -> dict[type[BaseModel], str]:
    """The blocks inside methods, each with its title: where it stands, and in which methods."""
    places: dict[type[BaseModel], tuple[str, list[str]]] = {}
    known = {model for _, model in _SECTIONS}

    def visit(model: type[BaseModel], path: str, name: str) -> None:
        for key, field in model.model_fields.items():
            for block in _models(field.annotation):
                if block not in known:
                    names = places.setdefault(block, (f"{path}.{key}", []))[1]
                    names += [] if name in names else [name]
                    visit(block, f"{path}.{key}", name)

    for name in methods.names():
        visit(methods.load(name), "method", name)
    return {block: f"`{path}` of {', '.join(names)}" for block, (path, names) in places.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotation, also of a union, a list or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _anchor(title: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")


def update(page: str) -> str:
    """A page with its table of keys made anew.

    Raises:
        ValueError: If the page has no place for it.
    """
    found = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return page[: found.start()] + f"{BEGIN}\n{reference()}{END}" + page[found.end() :]


def update_file(page: Path) -> None:
    """Make the table of keys of docs/recipes.md anew."""
    page.write_text(update(page.read_text(encoding="utf-8")), encoding="utf-8")


def _section(title: str, model: type[BaseModel]) -> str:
    schema = {"properties": {}} if model is Recipe else model.model_json_schema()
    says = _docstrings(model)
    lines = [
        f"### {title}",
        "",
        _first_sentence(model),
        "",
        "| key | value | default | |",
        "|---|---|---|---|",
    ]
    for key, field in model.model_fields.items():
        block = schema["properties"].get(key)
        if key == _WRITTEN or (key == "kind" and block is not None and "const" in block):
            continue  # a kind of one value follows from the block's other keys
        kind = _recipe_kind(key) if block is None else _kind(block)
        default = (
            "*needed*"
            if field.is_required()
            else _default(field.get_default(call_default_factory=True))
        )
        lines.append(f"| `{key}` | {_cell(kind)} | {_cell(default)} | {_cell(says.get(key, ''))} |")
    return "\n".join(lines) + "\n"


def _recipe_kind(key: str) -> str:
    """The blocks of a recipe lead to their own tables."""
    network = (
        f"network [to be trained](#{_LINKS['TrainSpec']}) or [with existing "
        f"weights](#{_LINKS['ModelSpec']})"
    )
    kinds = {
        "schema_version": "`1`",
        "name": "text",
        "seed": "integer ≥ 0",
        "ipc": "integer > 0",
        "method": "its name, version and keys",
        "teacher": f"{network} or null",
        "observers": f"list of: {network}",
        "generator": f"[to be trained](#{_LINKS['GeneratorTrainSpec']}), "
        f"[published](#{_LINKS['DiffusionSpec']}) or null",
        "evaluate": "list of [entries](#evaluate)",
        "relabel": "[block](#relabel) or null",
        "publish": "[block](#publish) or null",
    }
    return kinds.get(key, f"[block](#{key})")


def _kind(block: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in block:
        name = block["$ref"].rpartition("/")[2]
        if name in _LINKS:
            return f"[block](#{_LINKS[name]})"
        anchors = {model.__name__: _anchor(title) for model, title in _blocks().items()}
        return f"[block](#{anchors[name]})" if name in anchors else "block"
    if "anyOf" in block:
        return " or ".join(dict.fromkeys(_kind(option) for option in block["anyOf"]))
    if "const" in block:
        return f"`{block['const']}`"
    if "enum" in block:
        return ", ".join(f"`{value}`" for value in block["enum"])
    if block.get("type") == "array":
        items = block.get("prefixItems") or [block.get("items", {})]
        if "prefixItems" in block:
            return "[" + ", ".join(_kind(item) for item in items) + "]"
        return f"list of {_kind(items[0])}"
    if block.get("type") == "object":
        inner = block.get("additionalProperties")
        return f"name: {_kind(inner)}" if isinstance(inner, dict) else "block"
    words = {
        "string": "text",
        "integer": "integer",
        "number": "number",
        "boolean": "true, false",
        "null": "null",
    }
    return words.get(str(block.get("type")), "") + _bounds(block)


def _bounds(block: dict[str, Any]) -> str:
    low = f" ≥ {block['minimum']:g}" if "minimum" in block else ""
    low = f" > {block['exclusiveMinimum']:g}" if "exclusiveMinimum" in block else low
    high = f" ≤ {block['maximum']:g}" if "maximum" in block else ""
    high = f" < {block['exclusiveMaximum']:g}" if "exclusiveMaximum" in block else high
    return low + high


def _default(value: object) -> str:
    if isinstance(value, BaseModel):
        other = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(other)}`" if other else "its defaults"
    if value is None:
        return "null"
    if value in ((), {}):
        return "none"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _first_sentence(model: type[BaseModel]) -> str:
    text = inspect.getdoc(model) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The strings below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                value = below.value if isinstance(below, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    text = " ".join(value.value.split())
                    found[field.target.id] = re.sub(r"\bNone\b", "null", text)
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
