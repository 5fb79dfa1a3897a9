"""A report as the text of a card: `README.md` is a pure function of `eval.json`."""

import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from distillhub.packaging import snippets
from distillhub.packaging.notices import ARMS, FEW_RUNS, FOUR, ONLINE, limits, notices
from distillhub.records.card import CardBlock
from distillhub.records.report import (
    Comparison,
    DatasetBlock,
    EvalReport,
    Metric,
    PaperFigure,
    Regime,
)
from distillhub.records.table import GAINS, points

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "card.md.j2"
RENDERING = 2
"""Bumped when the same report gives another text, so that older cards are still understood."""
NOTHING = "-"
NOT_RUN = {"not_run": "not run", "not_applicable": "does not apply"}
COLUMNS = {"hard": "hard labels", "soft": "soft labels", "soft_online": "online labels"}
IMAGES = {
    "syn": "distilled",
    "rnd": "random real",
    "rnd_packed": "mosaics of random real",
    "full": "all real",
}
DETAILS = {
    "top5": "top-5, %",
    "test_se": "error of the test set, %",
    "ece": "ECE, %",
    "nll": "NLL, nats",
    "brier": "Brier",
    "class_worst": "worst class, %",
    "class_bottom10pct": "lowest tenth of classes, %",
    "class_std": "std over classes, %",
    "class_disparity": "best - worst class, %",
}
IMPORTED_FROM = {
    "folder": "the image folder",
    "pt": "the tensors in",
    "npz": "the arrays in",
    "hub": "the published set",
}
UNKNOWN = "unknown"
"""Name of a method and of a source that nobody named."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Row(NamedTuple):
    """A line of a table."""

    name: str
    cells: tuple[str, ...]


class Table(NamedTuple):
    """The arms of one comparison."""

    protocols: tuple[str, ...]
    arch: str
    soft: bool
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    scores: tuple[Mapping[str, str], ...]
    verdicts: Mapping[Regime, str]
    online: bool
    """Whether some arms are labelled by the teacher while they train."""
    best: bool
    """Whether some runs looked at the test set before their end."""
    papers: tuple[str, ...]
    """A sentence per published figure."""


def render(report: EvalReport) -> str:
    """The whole of `README.md`.

    Args:
        report: The content of `eval.json`, its card block included.

    Raises:
        ValueError: If the report has no card block.
    """
    if report.card is None:
        raise ValueError("the report has no card block")
    tables = [_table(part) for part in report.comparisons]
    text = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            card=report.card,
            front_matter=front_matter(report, report.card),
            summary=summary(report),
            notices=notices(report),
            address=report.card.repo_id or ".",
            student=report.headline.arch if report.headline else "convnet3",
            load_snippet=snippets.load(report),
            train_snippet=snippets.train(report),
            look_snippet=snippets.look(report),
            table=tables[0] if tables else None,
            online=any(table.online for table in tables),
            best=any(table.best for table in tables),
            others=tables[1:],
            expected=[part.expected for part in report.comparisons if part.expected],
            cross=_cross(report),
            labellers=[t for t in report.method.teacher if t.role in _labelling(report)],
            details=_details(report.headline),
            energy=_energy(report),
            limits=limits(report),
            counts=images_per_class(report),
        )
    )
    return text.rstrip("\n") + "\n"


def _labelling(report: EvalReport) -> tuple[str, ...]:
    """Roles of the networks that give the soft labels."""
    return report.labels.networks or ("teacher",)


def front_matter(report: EvalReport, card: CardBlock) -> str:
    """The YAML at the head of a card, as the Hub reads it."""
    from ruamel.yaml import YAML

    source = report.source.id
    content: dict[str, object] = {
        "license": card.license,
        "license_name": card.license_name,
        "license_link": card.license_link,
        "pretty_name": card.title,
        "task_categories": ["image-classification"],
        "size_categories": [_size(report.dataset.images)],
        "source_datasets": [source] if source.count("/") == 1 and ":" not in source else None,
        "tags": sorted({"dataset-distillation", "distillhub", *_method_tag(report), *card.tags}),
        **card.data,
        "configs": configs(report, card),
    }
    writer = YAML()
    writer.width = 2**31  # one line per text
    stream = io.StringIO()
    writer.dump({key: value for key, value in content.items() if value is not None}, stream)
    return stream.getvalue()


def _method_tag(report: EvalReport) -> tuple[str, ...]:
    if report.method.name == UNKNOWN:
        return ("imported",)
    return (report.method.name,) if report.imported is None else (report.method.name, "imported")


def configs(report: EvalReport, card: CardBlock) -> list[object]:
    """What `load_dataset` finds: the tables of the package, and the evaluation's runs."""
    known = card.data.get("configs")
    found: list[object] = list(known) if isinstance(known, list) else []
    if report.runs:
        files = [{"split": "results", "path": "evaluation/results.parquet"}]
        found.append({"config_name": "evaluation", "data_files": files})
    return found


def summary(report: EvalReport) -> str:
    """Method, source, images per class, images, bytes and label regime in one sentence."""
    data, labels = report.dataset, report.labels
    told = "hard labels only"
    if labels.dtype is not None:
        views = f"{labels.views_per_image} view" + ("s" if labels.views_per_image != 1 else "")
        told = f"hard labels and soft labels of {views} per image"
    size = f", {_whole(report.storage.bytes_total)} bytes" if report.storage else ""
    height, width = data.resolution
    if report.imported is not None:
        return (
            f"Imported from {IMPORTED_FROM[report.imported.kind]} `{report.imported.origin}`, "
            f"made from {_named(report.source.id, 'images')} "
            f"by {_named(report.method.name, 'a method')}: "
            f"{images_per_class(report)} images per class, {_whole(data.images)} images of "
            f"{height} x {width} pixels in {data.classes} classes{size}; {told}."
        )
    made = "real images chosen by" if report.method.real_pixels else "distilled by"
    real = ""
    if report.doping is not None:
        made = f"`{report.doping.base}` filled up with real images by"
        real = f", {_whole(report.doping.doped)} of them real"
    return (
        f"`{report.source.id}`, {made} {report.method.shown}: {images_per_class(report)} images "
        f"per class, {_whole(data.images)} images{real} of {height} x {width} pixels in "
        f"{data.classes} classes{_mosaics(data)}{size}; {told}."
    )


def _mosaics(data: DatasetBlock) -> str:
    """What is stored and what it is to its students, where the two differ."""
    subs = data.formation**2
    if subs == 1:
        return ""
    return (
        f", each a mosaic of {data.formation} x {data.formation}: {data.ipc * subs} per class and "
        f"{_whole(data.images * subs)} training images after taking them apart"
    )


def images_per_class(report: EvalReport) -> str:
    """`10`, or `8 to 12` where the classes have different numbers, with their mean if it is set."""
    if report.imported is not None:
        counts = report.imported.counts
    else:
        counts = report.dataset.counts or (report.dataset.ipc,)
    least, most = min(counts), max(counts)
    if least == most:
        return str(most)
    mean = f" (mean {report.dataset.ipc})" if report.dataset.counts else ""
    return f"{least} to {most}{mean}"


def _named(name: str, what: str) -> str:
    return f"`{name}`" if name != UNKNOWN else f"{what} that nobody named"


def _table(part: Comparison) -> Table:
    measured = {arm: part.metrics[f"top1.{arm}"] for arm in ARMS if f"top1.{arm}" in part.metrics}
    compared = (*FOUR, *ONLINE)
    columns = [c for c in COLUMNS if any(a.endswith(f"_{c}") and a in compared for a in measured)]
    rows = []
    for images, name in IMAGES.items():
        arms = [f"{images}_{column}" for column in columns]
        if any(arm in measured for arm in arms):
            rows.append(Row(name, tuple(_cell(measured.get(arm)) for arm in arms)))
        best = [part.metrics.get(f"best_top1.{arm}") for arm in arms]
        if any(best):
            rows.append(Row(f"{name}, best epoch", tuple(_cell(metric) for metric in best)))
    gains = [part.metrics.get(f"gain_images_{column}") for column in columns]
    if any(gains):
        rows.append(Row("distilled - random, paired", tuple(_cell(gain) for gain in gains)))
    names = {key: text for key, text in GAINS.items() if not key.startswith("gain_images")}
    names["class_disparity"] = "class disparity, distilled - all real"
    known = {key: metric for key, metric in part.metrics.items() if metric.value is not None}
    scores = [_line(text, known[key]) for key, text in names.items() if key in known]
    return Table(
        protocols=tuple(dict.fromkeys(part.protocols.values())),
        arch=part.arch,
        soft="soft" in columns,
        columns=tuple(COLUMNS[column] for column in columns),
        rows=tuple(rows),
        scores=tuple(scores),
        verdicts=part.verdicts,
        online="soft_online" in columns,
        best=any(key.startswith("best_top1.") for key in part.metrics),
        papers=tuple(_agreement(paper) for paper in part.papers.values()),
    )


def _cross(report: EvalReport) -> list[dict[str, str]]:
    """Accuracy per student, with their mean and gap; nothing where only one student was tried."""
    names = {"mean_other": "mean of foreign ones", "gap": "own - foreign ones"}
    if len(report.cross_arch.keys() - names.keys()) < len(names):
        return []
    return [_line(names.get(key, key), metric) for key, metric in report.cross_arch.items()]


def _agreement(paper: PaperFigure) -> str:
    told = f"Published, {ARMS[paper.arm]}: {points(paper.top1)} % ({paper.source});"
    if paper.difference is None:
        return f"{told} ours was not run."
    verb = "agrees" if paper.agrees else "does not agree"
    apart, within = _signed(paper.difference), points(paper.within)
    return f"{told} ours differs by {apart} points and {verb} within {within}."


def _details(part: Comparison | None) -> Mapping[str, tuple[object, ...]]:
    metrics = part.metrics if part else {}
    known = {key for key, metric in metrics.items() if metric.value is not None}
    arms = [arm for arm in ARMS if f"top1.{arm}" in known]
    columns = {
        key: text for key, text in DETAILS.items() if any(f"{key}.{a}" in metrics for a in arms)
    }
    rows = [
        Row(ARMS[arm], tuple(_value(metrics.get(f"{key}.{arm}")) for key in columns))
        for arm in arms
    ]
    return {"columns": tuple(columns.values()), "rows": tuple(rows) if columns else ()}


def _energy(report: EvalReport) -> str:
    measured = [part for part in report.compute.values() if part.energy_kwh is not None]
    if not measured:
        return "not available"
    return ", ".join(f"{_number(part.energy_kwh)} kWh ({part.energy_status})" for part in measured)


def _line(name: str, metric: Metric) -> dict[str, str]:
    low_high = _interval(metric)
    return {
        "name": name,
        "value": _value(metric),
        "interval": low_high or NOTHING,
        "n": str(metric.n),
    }


def _cell(metric: Metric | None) -> str:
    """`81.3 [80.9, 81.7] n = 5`."""
    if metric is None or metric.value is None:
        return _value(metric)
    parts = [_value(metric), _interval(metric)]
    if metric.status == "cited":
        parts.append(f"(cited: {metric.source})")
    elif metric.n:
        parts.append(f"n = {metric.n}")
    return " ".join(part for part in parts if part)


def _value(metric: Metric | None) -> str:
    if metric is None:
        return NOTHING
    if metric.value is None:
        return NOT_RUN[metric.status]
    return _in_unit(metric.unit)(metric.value)


def _interval(metric: Metric) -> str:
    if metric.ci95 is None or metric.n < FEW_RUNS:
        return ""
    show = _in_unit(metric.unit)
    return f"[{show(metric.ci95[0])}, {show(metric.ci95[1])}]"


def _in_unit(unit: str) -> Callable[[float], str]:
    """Fractions as percentages, differences in points, the rest as numbers."""
    if unit == "fraction":
        return points
    return _signed if unit == "difference" else _decimals


def _signed(value: float) -> str:
    return points(value, signed=True)


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _whole(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(_number(value) for value in values)


def _size(rows: int) -> str:
    return next((name for limit, name in SIZES if rows < limit), "1M<n<10M")


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distillhub.packaging", "."),
        autoescape=False,  # noqa: S701 - the card is Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "arm": ARMS.__getitem__,
        "metric": _value,
        "number": _number,
        "numbers": _numbers,
        "pct": points,
        "ratio": _ratio,
        "seconds": _seconds,
        "whole": _whole,
        "words": lambda text: text.replace("_", " ").replace("-", " "),
    }
    return environment
