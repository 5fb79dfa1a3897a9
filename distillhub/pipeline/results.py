"""`docs/results.md`: sections that `distillhub sweep` writes; nothing in them is typed by hand."""

import re
from pathlib import Path

from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.sweep import Figure, Row, SweepTable

_TITLE = """\
# Results

Every section here is written by `distillhub sweep`, between its marks, from the reports of the
datasets that it built; the figures are in a JSON file beside this page, with the digest of every
dataset behind them.
"""
_COLUMNS = (
    ("distilled, hard", "top1.syn_hard"),
    ("random, hard", "top1.rnd_hard"),
    ("gain, hard", "gain_images_hard"),
    ("distilled, soft", "top1.syn_soft"),
    ("random, soft", "top1.rnd_soft"),
    ("gain, soft", "gain_images_soft"),
)


def write_results(page: Path, name: str, command: str, table: SweepTable) -> Path:
    """Put the section of a sweep into the page, in place of its former self, and write its JSON.

    Args:
        page: The Markdown file; made where it is absent.
        name: Of the section; one word.
        command: What wrote it, as typed.
        table: The figures.

    Returns:
        The JSON file.
    """
    section = markdown(name, command, table)
    begin, end = f"<!-- sweep {name} -->", f"<!-- end of sweep {name} -->"
    marked = f"{begin}\n{section}{end}\n"
    text = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    found = re.search(re.escape(begin) + ".*?" + re.escape(end) + "\n", text, re.DOTALL)
    text = (
        text[: found.start()] + marked + text[found.end() :]
        if found
        else f"{text.rstrip()}\n\n{marked}"
    )
    figures = page.with_suffix("") / f"{name}.json"
    with storage_errors(page.parent):
        write_text(figures, table.model_dump_json(indent=1) + "\n")
        write_text(page, text)
    return figures


def markdown(name: str, command: str, table: SweepTable) -> str:
    """A section: what was run, the table, how to read it."""
    columns = [
        (title, metric)
        for title, metric in _COLUMNS
        if any(metric in row.figures for row in table.rows)
    ]
    header = [
        *table.keys,
        "protocol",
        "student",
        *(title for title, _ in columns),
        "images",
        "labels",
        "synthesis",
    ]
    lines = [f"## {name}", "", f"`{command}`", "", _line(header), _line(["---"] * len(header))]
    lines += [
        _line(_cells(row, table.keys, [metric for _, metric in columns])) for row in table.rows
    ]
    count = len(table.seeds)
    spread = (
        "± half of the 95 % t interval over the seeds"
        if any(figure.ci95 for row in table.rows for figure in row.figures.values())
        else "too few seeds for an interval"
    )
    lines += [
        "",
        f"Top-1 and gains in percent, mean over {count} synthesis seed{'s' if count > 1 else ''} "
        f"({', '.join(map(str, table.seeds))}); {spread}. A gain is distilled minus random, "
        f"paired by seed. Device: {table.device}.",
        "",
    ]
    return "\n".join(lines)


def _cells(row: Row, keys: tuple[str, ...], metrics: list[str]) -> list[str]:
    figures = [
        _percent(row.figures[metric], metric) if metric in row.figures else "" for metric in metrics
    ]
    size = [f"{row.bytes_images / 1e3:.1f} kB", f"{row.bytes_labels / 1e3:.1f} kB"]
    return [
        *(row.setting[key] for key in keys),
        row.protocol,
        row.arch,
        *figures,
        *size,
        f"{row.seconds.value:.0f} s",
    ]


def _percent(figure: Figure, metric: str) -> str:
    sign = "+" if metric.startswith("gain") else ""
    text = f"{100 * figure.value:{sign}.1f}"
    return text if figure.ci95 is None else f"{text} ± {50 * (figure.ci95[1] - figure.ci95[0]):.1f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
