"""YAML to Recipe; every fault of a file is reported at once, with file, line, key and mend."""

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from distillhub import methods
from distillhub.errors import Fault, RecipeError
from distillhub.methods._base import Method
from distillhub.models.zoo import parse_arch
from distillhub.recipe.schema import SAFE_NAME, Recipe, ResolvedRecipe, contradictions
from distillhub.spec import nearest

MAX_BYTES = 1_000_000
Loc = tuple[str | int, ...]
R = typing.TypeVar("R", bound=Recipe)
_CORE_TAGS = {
    f"tag:yaml.org,2002:{t}" for t in ("map", "seq", "str", "int", "float", "bool", "null")
}


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe file.

    Raises:
        RecipeError: With all faults of the file, each with file:line and key.
    """
    if not SAFE_NAME.match(path.stem) or path.suffix != ".yaml":
        raise RecipeError(
            f"'{path.name}' is not a safe file name for a recipe",
            where=str(path),
            mend="use lower-case letters, digits and single . _ - and end in .yaml",
        )
    return _checked(_read(path), path, Recipe)


def load_resolved(path: Path) -> ResolvedRecipe:
    """Read what `resolve` wrote.

    Raises:
        RecipeError: If the file is absent or was changed into something invalid.
    """
    return _checked(_read(path), path, ResolvedRecipe)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(
                f"larger than {MAX_BYTES:,} bytes", where=str(path), mend="a recipe is a few lines"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 text: {error.reason}", where=str(path)) from error
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            mend="`distillhub list recipes` shows what there is",
        ) from error


def _checked(text: str, path: Path, model: type[R]) -> R:
    tree, content = _parse(text, path)
    content = _with_kinds(content)
    method, faults = _method(content.get("method"), tree, path)
    try:
        recipe = model.model_validate(
            {**content, "method": method if method is not None else content.get("method")}
        )
    except ValidationError as error:
        found = [e for e in error.errors() if e["loc"][:1] != ("method",)]
        faults += [_fault(e, model, tree, path) for e in found]
        faults += _bad_names(content, tree, path)
        raise RecipeError.of(_in_order(faults)) from error
    faults += [f._replace(where=_where(path, tree, _loc(f.where))) for f in contradictions(recipe)]
    faults += _bad_names(content, tree, path)
    if faults:
        raise RecipeError.of(_in_order(faults))
    return recipe


def _parse(text: str, path: Path) -> tuple[Node, dict[str, object]]:
    """The node tree, for line numbers, and the plain content."""
    yaml = YAML(typ="safe", pure=True)
    try:
        tree = yaml.compose(text)
        foreign = list(_not_plain(tree, set()))
        if foreign:
            raise RecipeError.of(
                Fault(what, f"{path}:{node.start_mark.line + 1}", "write plain values")
                for node, what in foreign
            )
        content = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RecipeError(f"not valid YAML: {error.problem}", where=f"{path}{line}") from error
    except YAMLError as error:
        raise RecipeError(
            f"not valid YAML: {str(error).splitlines()[0]}", where=str(path)
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RecipeError(
            "a recipe is a mapping of keys to values",
            where=f"{path}:1",
            mend="`distillhub init` writes a first recipe",
        )
    return tree, content


def _not_plain(node: Node | None, seen: set[int]) -> typing.Iterator[tuple[Node, str]]:
    """Tags that would build objects, and anchors used again: neither has a place in plain data."""
    if node is None:
        return
    if id(node) in seen:
        yield node, "YAML anchors are not allowed"
        return
    seen.add(id(node))
    if str(node.tag) not in _CORE_TAGS:
        yield node, f"YAML tag {node.tag} is not allowed"
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield from _not_plain(key, seen)
            yield from _not_plain(value, seen)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _not_plain(item, seen)


def _with_kinds(content: dict[str, object]) -> dict[str, object]:
    """`kind:` follows from whether existing weights are named, so a recipe need not say it."""

    def complete(block: object) -> object:
        if isinstance(block, dict) and "kind" not in block:
            return {"kind": "pretrained" if "weights" in block else "train", **block}
        return block

    filled = dict(content)
    generator = filled.get("generator")
    if isinstance(generator, dict) and "kind" not in generator:
        kind = "pretrained" if "transformer" in generator else "train"
        filled["generator"] = {"kind": kind, **generator}
    if "teacher" in filled:
        filled["teacher"] = complete(filled["teacher"])
    if isinstance(filled.get("observers"), list):
        filled["observers"] = [
            complete(block) for block in typing.cast("list[object]", filled["observers"])
        ]
    return filled


def _method(block: object, tree: Node, path: Path) -> tuple[Method | None, list[Fault]]:
    """The method by its name first, then its own keys alone."""
    where = _where(path, tree, ("method",))
    if not isinstance(block, dict) or "name" not in block:
        return None, [Fault("a method needs a name", where, nearest("", methods.names()))]
    if block["name"] not in methods.names():
        mend = nearest(str(block["name"]), methods.names())
        return None, [
            Fault(f"unknown method '{block['name']}'", _where(path, tree, ("method", "name")), mend)
        ]
    kind = methods.load(block["name"])
    try:
        return kind.model_validate(block), []
    except ValidationError as error:
        faults = []
        for e in error.errors():
            if e["loc"] == ("version",) and "version" in block:
                faults.append(
                    Fault(
                        f"this release has another version of {block['name']} "
                        f"than {block['version']}: {e['msg']}",
                        _where(path, tree, ("method", "version")),
                        "install the release that made the recipe, or set the version offered here",
                    )
                )
            else:
                faults.append(_fault({**e, "loc": ("method", *e["loc"])}, kind, tree, path, skip=1))
        return None, faults


def _bad_names(content: Mapping[str, object], tree: Node, path: Path) -> list[Fault]:
    """Architectures that are not known, wherever a recipe names one."""
    places: list[Loc] = [("teacher", "arch"), ("method", "arch"), ("method", "queue", "arch")]
    observers = content.get("observers")
    if isinstance(observers, list):
        places += [("observers", i, "arch") for i in range(len(observers))]
    blocks = content.get("evaluate")
    for i, block in enumerate(blocks if isinstance(blocks, list) else []):
        students = block.get("students") if isinstance(block, dict) else None
        places += [
            ("evaluate", i, "students", j)
            for j in range(len(students) if isinstance(students, list) else 0)
        ]
    faults = []
    for place in places:
        name = _at(content, place)
        if isinstance(name, str):
            try:
                parse_arch(name)
            except ValueError as error:
                faults.append(
                    Fault(
                        str(error),
                        _where(path, tree, place),
                        "`distillhub list models` shows all names",
                    )
                )
    return faults


def _at(content: object, loc: Loc) -> object:
    for part in loc:
        if isinstance(content, Mapping) and part in content:  # noqa: SIM114 - types differ
            content = content[part]
        elif (
            isinstance(content, Sequence) and isinstance(part, int) and not isinstance(content, str)
        ):
            content = content[part]
        else:
            return None
    return content


def _fault(
    error: Mapping[str, typing.Any], model: type[BaseModel], tree: Node, path: Path, skip: int = 0
) -> Fault:
    """A pydantic error in our words."""
    loc: Loc = error["loc"]
    where = _where(path, tree, loc)
    key = loc[-1] if loc else ""
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, loc[skip:-1])
        return Fault(f"unknown key '{key}'", where, nearest(str(key), known))
    if error["type"] == "missing":
        return Fault(f"key '{key}' is missing", where, "add it; docs/recipes.md explains every key")
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    seen = error.get("input")
    shown = "" if isinstance(seen, dict | list) or repr(seen) in message else f" (got {seen!r})"
    first = message[0] if message[:2].isupper() else message[0].lower()  # DSA stays DSA
    return Fault(first + message[1:] + shown, where)


def _fields_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys allowed in the block at `loc`."""
    current: list[type[BaseModel]] = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        deeper = [
            found
            for kind in current
            if part in kind.model_fields
            for found in _models(kind.model_fields[part].annotation)
        ]
        if deeper:
            current = deeper
        else:  # the tag of a discriminated union
            tagged = [
                k
                for k in current
                if "kind" in k.model_fields and k.model_fields["kind"].default == part
            ]
            current = tagged or current
    return sorted({name for kind in current for name in kind.model_fields})


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for argument in typing.get_args(annotation) for found in _models(argument)]


def _where(path: Path, tree: Node, loc: Loc) -> str:
    node, line, shown = tree, tree.start_mark.line, []
    for part in loc:
        if isinstance(node, MappingNode):
            pair = next(
                ((k, v) for k, v in node.value if isinstance(k, ScalarNode) and k.value == part),
                None,
            )
            if pair is None:
                if part not in ("pretrained", "train"):
                    shown.append(str(part))
                continue
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            continue
        shown.append(str(part))
    return f"{path}:{line + 1}: {'.'.join(shown)}" if shown else f"{path}:{line + 1}"


def _loc(dotted: str) -> Loc:
    return tuple(int(part) if part.isdigit() else part for part in dotted.split("."))


def _in_order(faults: list[Fault]) -> list[Fault]:
    def line(fault: Fault) -> int:
        return next((int(part) for part in fault.where.split(":") if part.strip().isdigit()), 0)

    return sorted(dict.fromkeys(faults), key=line)
