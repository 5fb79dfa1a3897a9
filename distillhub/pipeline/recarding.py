"""`distillhub evaluate --card`: the runs of an evaluation come onto the card of an imported set."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from distillhub.errors import UsageError
from distillhub.packaging.card import IMPORTED, REPORT, finish
from distillhub.packaging.provenance import Dependency
from distillhub.pipeline.files import replaced_folder, storage_errors
from distillhub.pipeline.importing import environment_block, import_facts, plain_name
from distillhub.pipeline.scoring import Scores
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import EvalReport, loads


def recard(folder: Path, scores: Scores) -> Manifest:
    """Put the runs of an evaluation on the card of an imported set.

    Comparisons of the same protocols and network are replaced, others stay. The data, and with
    them the artifact's digest, remain as they are.

    Raises:
        UsageError: If the folder holds no imported set: those built here are scored by their build.
    """
    report = _imported(folder)
    started = datetime.now(UTC).replace(microsecond=0)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    fresh = {(tuple(part.protocols.values()), part.arch) for part in scores.comparisons}
    kept = [
        part
        for part in report.comparisons
        if (tuple(part.protocols.values()), part.arch) not in fresh
    ]
    listed = {run for part in kept for metric in part.metrics.values() for run in metric.runs}
    listed -= {run.id for run in scores.runs}
    told = f"Scored on {scores.data}, which the person who scored it named, and not its maker."
    limits = dict.fromkeys([*report.limitations, told])
    updated = report.model_copy(
        update={
            "protocols": report.protocols | scores.protocols,
            "planned": (*(p for p in report.planned if p.id in listed), *scores.planned),
            "runs": (*(run for run in report.runs if run.id in listed), *scores.runs),
            "comparisons": (*scores.comparisons, *kept),
            "cross_arch": scores.cross_arch,
            "warnings": scores.warnings,
            "limitations": tuple(limits),
            "source": report.source.model_copy(update={"test_hash": scores.test_sha256}),
            "environment": environment_block(),
        }
    )
    updated = EvalReport.model_validate(updated.model_dump(mode="json"))
    with storage_errors(folder), replaced_folder(folder) as out:
        for name in (*manifest.content.parquet, IMPORTED):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
        return finish(
            out,
            updated,
            manifest.content,
            columns=manifest.columns,
            rows=manifest.rows,
            facts=import_facts(started),
            dependencies=(
                *(
                    Dependency(uri=f"import:{key}", sha256=value)
                    for key, value in (report.imported.inputs if report.imported else {}).items()
                ),
                Dependency(uri=f"{plain_name(scores.data)}/test", sha256=scores.test_sha256),
            ),
        )


def check_recardable(folder: Path) -> None:
    """Refuse early what `recard` cannot do.

    Raises:
        UsageError: If the folder holds no imported set.
    """
    _imported(folder)


def _imported(folder: Path) -> EvalReport:
    path = folder / REPORT
    report = loads(path.read_bytes(), where=str(path)) if path.is_file() else None
    if report is None or report.imported is None:
        raise UsageError(
            "only the card of an imported set takes the runs of `evaluate`",
            where=str(folder),
            mend="import it first: distillhub import SOURCE --out DIR; sets built here are scored "
            "by their build",
        )
    return report
