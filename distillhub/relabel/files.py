"""Labels between the stages: `labels.parquet` and `labels.json` in a folder."""

import json
from pathlib import Path

from distillhub.records.columns import inline_table, read_entries, rows_per_group, write_parquet
from distillhub.relabel.label import LabelRecord, Labels

TABLE = "labels.parquet"
RECORD = "labels.json"


def write_labels(folder: Path, labels: Labels | None) -> None:
    """Write labels, or that there are none; equal labels give equal bytes.

    Args:
        folder: Exists.
        labels: None for a set without soft labels.
    """
    if labels is None:
        (folder / RECORD).write_text("null\n", encoding="utf-8")
        return
    table = inline_table(labels.soft, labels.views)
    write_parquet(table, folder / TABLE, rows_per_group(table.num_rows, table.nbytes))
    text = json.dumps(labels.record.model_dump(mode="json"), indent=1)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_labels(folder: Path) -> Labels | None:
    """What `write_labels` wrote.

    Raises:
        OSError: If a file is missing.
        ValueError: If the files do not fit together.
    """
    import pyarrow.parquet as pq

    content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if content is None:
        return None
    record = LabelRecord.model_validate(content)
    soft, views = read_entries(
        pq.read_table(folder / TABLE),
        num_classes=record.classes,
        size=record.view_size or (0, 0),
        formation=record.formation,
    )
    if soft is None:
        raise ValueError(f"{folder / TABLE} holds no soft labels")
    return Labels(soft, views, record)
