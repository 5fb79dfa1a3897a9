"""diff: two datasets side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillhub_cli.output import Output, output, size
from distillhub_cli.places import complete_set, dataset_folder, is_address, shown

if TYPE_CHECKING:
    from distillhub.packaging.comparison import MetricDifference, SetDifference
    from distillhub.records.report import Metric

FIELDS_SHOWN = 40
VALUE_LETTERS = 40
CLASSES_SHOWN = 20


@contextmanager
def at_hand(word: str) -> Iterator[Path]:
    """The folder of a set: a folder, a finished build, or a published version that is fetched."""
    if is_address(word):
        from distillhub.hub.opening import fetched

        with fetched(word) as folder:
            yield folder
    else:
        yield dataset_folder(word)


SetWord = Annotated[
    str,
    typer.Argument(
        help="A dataset folder, a finished build, or org/name@v1.0.0.", autocompletion=complete_set
    ),
]


def diff(
    a: SetWord,
    b: SetWord,
    picture: Annotated[
        Path | None, typer.Option(help="Draw changed images, before and after, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare two datasets, B with A: recipe, images by class, labels, metrics, bytes.

    Images are compared by their pixels. Exit code 0 whether they differ or not.
    """
    from distillhub.packaging.comparison import compare, draw

    with at_hand(a) as left, at_hand(b) as right:
        found = compare(left, right)
        drawn = picture is not None and draw(found, picture)
    out = output()
    if as_json:
        out.json(_plain(found))
        return
    out.heading(f"A {a}\nB {b}")
    _identity(out, found)
    _recipe(out, found)
    _images(out, found)
    _labels(out, found)
    _metrics(out, found)
    out.say()
    out.table(
        ("bytes", "A", "B"),
        [
            (name, size(found.a.bytes.get(name, 0)), size(found.b.bytes.get(name, 0)))
            for name in dict.fromkeys([*found.a.bytes, *found.b.bytes])
        ],
    )
    if picture is not None:
        out.say()
        out.say(
            f"changed images, A above B: {shown(picture)}"
            if drawn
            else "no image changed that both sets hold: nothing was drawn"
        )


def _identity(out: Output, found: "SetDifference") -> None:
    a, b = found.a.manifest, found.b.manifest
    out.facts(
        [
            (
                "artifact",
                f"the same, {a.digest[:12]}"
                if a.digest == b.digest
                else f"{a.digest[:12]} and {b.digest[:12]}",
            ),
            (
                "results",
                "the same runs" if a.runs_sha256 == b.runs_sha256 else "other runs",
            ),
        ]
    )


def _recipe(out: Output, found: "SetDifference") -> None:
    out.say()
    if not found.recipe:
        out.say("the resolved recipes are the same")
        return
    rows = [(one.key, _short(one.a), _short(one.b)) for one in found.recipe]
    out.table(("recipe", "A", "B"), rows[:FIELDS_SHOWN])
    _more(out, rows, FIELDS_SHOWN, "keys")


def _images(out: Output, found: "SetDifference") -> None:
    out.say()
    if found.images.equal:
        out.say(f"all {len(found.images.same):,} images are the same")
        return
    rows = [
        (part.name, *map(str, part[1:]))
        for part in found.images.classes
        if part.changed or part.added or part.removed
    ]
    out.table(("images of class", "same", "changed", "added", "removed"), rows[:CLASSES_SHOWN])
    _more(out, rows, CLASSES_SHOWN, "classes")


def _labels(out: Output, found: "SetDifference") -> None:
    out.say()
    a, b = (None if s is None else s.model_dump() for s in found.statistics)
    names = a or b
    if names is None:
        out.say("both sets have hard labels only")
        return
    rows = [
        (name.replace("_", " "), *("none" if s is None else f"{s[name]:.4f}" for s in (a, b)))
        for name in names
    ]
    out.table(("soft labels", "A", "B"), rows)
    moved = found.divergence
    if moved is None:
        out.say("  they cannot be compared one by one: classes or views per image differ")
    elif moved.kl_1 is None or moved.kl_4 is None or moved.top1 is None:
        out.say("  no view of an unchanged image is in both sets")
    else:
        out.say(
            f"  over {moved.labels:,} labels of the same views: KL(A || B) {moved.kl_1:.4g} nats, "
            f"at temperature 4 {moved.kl_4:.4g}; same highest class {moved.top1:.1%}"
        )


def _metrics(out: Output, found: "SetDifference") -> None:
    out.say()
    differ = [one for one in found.metrics if one.difference != 0]
    if found.metrics and not differ:
        out.say(f"all {len(found.metrics)} figures are the same")
    if differ:
        rows = [(_title(one), _figure(one.a), _figure(one.b), _signed(one)) for one in differ]
        out.table(("figure", "A", "B", "B - A"), rows)
        same = len(found.metrics) - len(differ)
        if same:
            out.say(f"  and {same} that are the same")
    for text in found.apart:
        out.say(f"  {text}: not compared")


def _title(one: "MetricDifference") -> str:
    return f"{one.name} ({', '.join(one.protocols)}, {one.arch})"


def _figure(metric: "Metric | None") -> str:
    if metric is None or metric.value is None:
        return "not run"
    if metric.ci95 is None:
        return f"{metric.value:.4f}"
    return f"{metric.value:.4f} [{metric.ci95[0]:.4f}, {metric.ci95[1]:.4f}]"


def _signed(one: "MetricDifference") -> str:
    return "" if one.difference is None else f"{one.difference:+.4f}"


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= VALUE_LETTERS else f"{text[: VALUE_LETTERS - 3]}..."


def _more(out: Output, rows: Sequence[object], most: int, what: str) -> None:
    if len(rows) > most:
        out.say(f"  and {len(rows) - most} more {what}; --json has all")


def _plain(found: "SetDifference") -> dict[str, object]:
    def side(number: int) -> dict[str, object]:
        one = (found.a, found.b)[number]
        statistics = found.statistics[number]
        return {
            "name": one.report.dataset.name,
            "version": one.report.dataset.version,
            "digest": one.manifest.digest,
            "runs_sha256": one.manifest.runs_sha256,
            "labels": None if statistics is None else statistics.model_dump(),
            "bytes": one.bytes,
        }

    return {
        "equal": found.equal,
        "a": side(0),
        "b": side(1),
        "recipe": [one._asdict() for one in found.recipe],
        "images": {
            "classes": [part._asdict() for part in found.images.classes],
            "changed": [list(pair) for pair in found.images.changed],
        },
        "labels": None if found.divergence is None else found.divergence._asdict(),
        "metrics": [
            {
                "protocols": list(one.protocols),
                "arch": one.arch,
                "name": one.name,
                "a": None if one.a is None else one.a.model_dump(mode="json"),
                "b": None if one.b is None else one.b.model_dump(mode="json"),
                "difference": one.difference,
            }
            for one in found.metrics
        ],
        "not_compared": list(found.apart),
    }
