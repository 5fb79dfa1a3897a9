"""A catalog as a folder of HTML pages: no server, nothing from elsewhere, the same bytes each time.

`index.html` has the table and the plots, `sets/<name>/index.html` one artifact each.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distillhub.packaging import catalog_plot
from distillhub.packaging.card import ARMS as ARMS_PICTURE
from distillhub.packaging.card import CONTACT_SHEET
from distillhub.packaging.catalog import SHOWN, Catalog, Entry, plain_file
from distillhub.packaging.catalog_cards import to_html
from distillhub.packaging.catalog_plot import short_bytes
from distillhub.packaging.notices import ARMS, FEW_RUNS
from distillhub.packaging.rendering import UNKNOWN
from distillhub.records.report import Metric
from distillhub.records.table import points

if TYPE_CHECKING:
    import jinja2

TEMPLATES = ("catalog.html.j2", "catalog_set.html.j2")
ASSETS = {"catalog.css.j2": "catalog.css", "catalog.js.j2": "catalog.js"}
PICTURES = (CONTACT_SHEET, ARMS_PICTURE)
PNG = b"\x89PNG\r\n\x1a\n"
MARKER = ".distillhub-catalog"
"""File by which a folder is known as a catalog, which may be written anew."""


class Cell(NamedTuple):
    """What a cell shows, and the number or text that it is sorted by; empty sorts last."""

    text: str
    key: str
    small: str = ""


class Column(NamedTuple):
    """A column of the table."""

    key: str
    title: str
    kind: str
    """`text` or `number`."""


class Row(NamedTuple):
    """A line of the table."""

    entry: Entry
    cells: tuple[Cell, ...]


def write_site(catalog: Catalog, out: Path, *, title: str) -> None:
    """Write all pages into an empty folder.

    Args:
        catalog: What `gather` found.
        out: Made where needed.
        title: Of the catalog.
    """
    environment = _environment()
    out.mkdir(parents=True, exist_ok=True)
    columns, rows = table(catalog.entries)
    _write(
        out / "index.html",
        environment.get_template(TEMPLATES[0]).render(
            title=title,
            columns=columns,
            rows=rows,
            plots=catalog_plot.plots(catalog.entries),
            broken=catalog.broken,
            size=(catalog_plot.WIDTH, catalog_plot.HEIGHT),
            frame=_frame(),
        ),
    )
    page = environment.get_template(TEMPLATES[1])
    for row in rows:
        place = out / "sets" / row.entry.slug
        pictures = _pictures(row.entry, place)
        _write(
            place / "index.html",
            page.render(
                title=title,
                entry=row.entry,
                facts=[(c.title, cell) for c, cell in zip(columns, row.cells, strict=True)],
                sheet=CONTACT_SHEET if CONTACT_SHEET in pictures else None,
                classes=row.entry.report.dataset.classes,
                card=to_html(row.entry.card, pictures, shown=frozenset({CONTACT_SHEET})),
            ),
        )
    for template, name in ASSETS.items():
        _write(out / name, environment.get_template(template).render())
    _write(out / MARKER, "made by distillhub catalog; the folder may be written anew\n")


def table(entries: Sequence[Entry]) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """Columns and lines of the overview; an arm that no set has gets no column."""
    arms = [arm for arm in SHOWN if any(_measured(entry.arm(arm)) for entry in entries)]
    columns = (
        Column("name", "Set", "text"),
        Column("source", "Made from", "text"),
        Column("method", "Method", "text"),
        Column("ipc", "Images per class", "number"),
        *(Column(arm, ARMS[arm].capitalize(), "number") for arm in arms),
        Column("protocol", "Scored with", "text"),
        Column("bytes", "Bytes with labels", "number"),
        Column("hours", "Hours", "number"),
    )
    rows = []
    for entry in entries:
        report = entry.report
        cells = (
            Cell(entry.name, entry.name.lower(), f"version {report.dataset.version}"),
            _word(report.source.id),
            _word(report.method.label or report.method.name, "imported" if report.imported else ""),
            Cell(entry.ipc, str(report.dataset.ipc)),
            *(_accuracy(entry.arm(arm)) for arm in arms),
            Cell(entry.scored_with or "not scored", entry.scored_with),
            _bytes(entry.bytes_total),
            _hours(entry.hours),
        )
        rows.append(Row(entry, cells))
    return columns, tuple(rows)


def is_catalog(folder: Path) -> bool:
    """Whether a folder may be written anew: it is empty, or a catalog."""
    return not any(folder.iterdir()) or (folder / MARKER).is_file()


def _word(name: str, small: str = "") -> Cell:
    return Cell("not known" if name == UNKNOWN else name, "" if name == UNKNOWN else name, small)


def _measured(metric: Metric | None) -> bool:
    return metric is not None and metric.value is not None


def _accuracy(metric: Metric | None) -> Cell:
    """`81.3` with `80.9 to 81.7, n = 5` below it."""
    if metric is None or metric.value is None:
        status = "does not apply" if metric and metric.status == "not_applicable" else "not run"
        return Cell(status, "")
    if metric.status == "cited":
        return Cell(points(metric.value), f"{metric.value:.6f}", f"cited: {metric.source}")
    small = f"n = {metric.n}"
    if metric.ci95 is not None and metric.n >= FEW_RUNS:
        small = f"{points(metric.ci95[0])} to {points(metric.ci95[1])}, {small}"
    return Cell(points(metric.value), f"{metric.value:.6f}", small)


def _bytes(count: int | None) -> Cell:
    if count is None:
        return Cell("not known", "")
    return Cell(short_bytes(count), str(count), f"{count:,}" if count >= 1000 else "")


def _hours(hours: float | None) -> Cell:
    if hours is None:
        return Cell("not known", "")
    small = f"{hours * 3600:.3g} s" if hours < 0.1 else ""
    return Cell(f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}", f"{hours:.6f}", small)


def _pictures(entry: Entry, place: Path) -> frozenset[str]:
    """Copy the pictures of a card; those that are there and are PNG files."""
    copied = []
    for name in PICTURES:
        try:
            content = plain_file(entry.folder / name)
        except OSError:
            continue
        if content.startswith(PNG):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
            copied.append(name)
    return frozenset(copied)


def _frame() -> Mapping[str, int]:
    """Edges of a plot."""
    return {
        "left": catalog_plot.LEFT,
        "right": catalog_plot.WIDTH - catalog_plot.RIGHT,
        "top": catalog_plot.TOP,
        "bottom": catalog_plot.HEIGHT - catalog_plot.BOTTOM,
    }


def _place(where: str) -> str:
    """The end of a path: a page that is published tells nothing of the machine."""
    return "/".join(Path(where).parts[-2:])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distillhub.packaging", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"pct": points, "place": _place}
    return environment
