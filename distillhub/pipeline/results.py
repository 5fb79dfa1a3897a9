"""`docs/results.md`: sections that `distillhub sweep` writes; nothing in them is typed by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from distillhub.errors import UsageError
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.sweep import Figure, Kind, Row, SweepTable

_TITLE = """\
# Results

Every section here is written by `distillhub sweep`, between its marks, from the reports of the
datasets that it built; the figures are in a JSON file beside this page, with the digest of every
dataset behind them.
"""
_COLUMNS: tuple[tuple[str, Mapping[Kind, str]], ...] = (
    (
        "hard",
        {"distilled": "top1.syn_hard", "random": "top1.rnd_hard", "packed": "top1.rnd_packed_hard"},
    ),
    ("gain, hard", {"distilled": "gain_images_hard"}),
    ("gain over packed, hard", {"distilled": "gain_packed_hard"}),
    (
        "soft",
        {"distilled": "top1.syn_soft", "random": "top1.rnd_soft", "packed": "top1.rnd_packed_soft"},
    ),
    ("gain, soft", {"distilled": "gain_images_soft"}),
    ("gain over packed, soft", {"distilled": "gain_packed_soft"}),
    ("online", {"distilled": "top1.syn_soft_online", "random": "top1.rnd_soft_online"}),
    ("gain, online", {"distilled": "gain_images_soft_online"}),
)
"""Title, and the metric by the kind of a row."""


def write_results(page: Path, name: str, command: str, table: SweepTable) -> Path:
    """Put the section of a sweep into the page, in place of its former self, and write its JSON.

    Args:
        page: The Markdown file; made where it is absent.
        name: Of the section; one word.
        command: What wrote it, as typed but for `--out`.
        table: The figures.

    Returns:
        The JSON file.
    """
    section = markdown(name, command, table)
    begin, end = f"<!-- sweep {name} -->", f"<!-- end of sweep {name} -->"
    marked = f"{begin}\n{section}{end}\n"
    text = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    if begin in text and end not in text:
        raise UsageError(
            f"section {name} has no end mark", where=str(page), mend=f"put {end} behind it"
        )
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
    """A section: what was run, the table, how to read it.

    A key that has one value throughout stands in the command alone.
    """
    shown = [
        (title, metrics)
        for title, metrics in _COLUMNS
        if any(metrics.get(row.kind) in row.figures for row in table.rows)
    ]
    sources = {row.source for row in table.rows}
    varied = [
        key
        for key in table.keys
        if key not in table.base and len({row.setting.get(key) for row in table.rows}) > 1
    ]
    header = [
        "images",
        *(["data"] if len(sources) > 1 else []),
        *([] if "ipc" in varied else ["ipc"]),
        *varied,
        *(["change"] if table.alone else []),
        "protocol",
        "student",
        *(title for title, _ in shown),
        "runs",
        "image bytes",
        "label bytes",
        "synthesis",
    ]
    lines = [f"## {name}", "", f"`{command}`", "", _line(header), _line(["---"] * len(header))]
    for row in table.rows:
        place = [row.recipe, *([row.source] if len(sources) > 1 else [])]
        place += [] if "ipc" in varied else [str(row.ipc)]
        place += [row.setting.get(key, "") for key in varied]
        place += [_change(row, table)] if table.alone else []
        lines.append(_line([*place, *_cells(row, [metrics for _, metrics in shown])]))
    return "\n".join([*lines, "", *_notes(table), ""])


def _change(row: Row, table: SweepTable) -> str:
    """What a row has changed of the keys that are tried one at a time."""
    for key in table.alone:
        value = row.setting.get(key)
        if value is not None and value != table.base.get(key):
            return f"{key}: {value}"
    return "none" if row.kind == "distilled" else ""


def _cells(row: Row, columns: Sequence[Mapping[Kind, str]]) -> list[str]:
    metrics = [by_kind.get(row.kind, "") for by_kind in columns]
    figures = [
        _percent(row.figures[metric], metric) if metric in row.figures else "" for metric in metrics
    ]
    first = next(iter(row.figures.values()), None)
    return [
        row.protocol,
        row.arch,
        *figures,
        "" if first is None else f"{first.n} x {first.runs}",
        _kilobytes(row.bytes_images),
        _kilobytes(row.bytes_labels),
        "" if row.seconds is None else f"{row.seconds.value:.0f} s",
    ]


def _notes(table: SweepTable) -> list[str]:
    """How the table is to be read."""
    seeds, figures = len(table.seeds), [f for row in table.rows for f in row.figures.values()]
    lines = [
        f"Top-1 and gains in percent, mean over {seeds} synthesis seed{'s' if seeds > 1 else ''} "
        f"({', '.join(map(str, table.seeds))}) and the runs of each; `runs` is seeds x runs per "
        "seed. A gain is distilled minus random, paired run by run."
    ]
    if any(row.kind == "packed" for row in table.rows):
        lines.append(
            "`random, packed`: mosaics of random real images, as many as the distilled ones and "
            "taken apart in the same way; a gain over packed is distilled minus these."
        )
    if any(figure.ci95 for figure in figures):
        lines.append(
            "±: half of the 95 % t interval over the seeds' means, for images made anew; of random "
            "images, which every run draws anew, over all runs."
        )
    else:
        lines.append("Too few seeds for an interval over images made anew.")
    if any(figure.ci95_runs for figure in figures):
        lines.append("In brackets: the interval over the runs within the seeds, for these images.")
    for name, figure in table.full.items():
        lines.append(f"All real images ({name}): {_percent(figure, 'top1')}.")
    return [*lines, f"Device: {table.device}."]


def _percent(figure: Figure, metric: str) -> str:
    sign = "+" if metric.startswith("gain") else ""
    text = f"{100 * figure.value:{sign}.1f}"
    if figure.ci95 is not None:
        text += f" ± {_half(figure.ci95)}"
    return text if figure.ci95_runs is None else f"{text} ({_half(figure.ci95_runs)})"


def _half(interval: tuple[float, float]) -> str:
    return f"{50 * (interval[1] - interval[0]):.1f}"


def _kilobytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e3:.1f} kB"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
