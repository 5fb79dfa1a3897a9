"""`evaluation/results.parquet`: the runs of `eval.json` as a table that `load_dataset` opens."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distillhub.records.report import BEST, Run

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "evaluation/results.parquet"


def table(runs: Sequence[Run]) -> "pa.Table":
    """One row per run, one column per field; those of the best epoch only where one was sought."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    special = {
        "subset_seed": pa.int64(),
        "top5": pa.float64(),
        "best_top1": pa.float64(),
        "best_epoch": pa.int64(),
        "resolution": pa.list_(pa.int64()),
        "class_acc": pa.list_(pa.float64()),
    }
    fields = []
    absent = {name for name in BEST if all(getattr(run, name) is None for run in runs)}
    for name, field in Run.model_fields.items():
        if name in absent:
            continue
        plain = field.annotation if isinstance(field.annotation, type) else str
        fields.append(pa.field(name, special.get(name) or kinds.get(plain, pa.string())))
    rows = [run.model_dump(mode="json") for run in runs]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def write(runs: Sequence[Run], path: Path) -> None:
    """Write the table; equal runs give equal bytes."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(runs), path, compression="zstd")
