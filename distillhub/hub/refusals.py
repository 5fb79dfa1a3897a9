"""Sets that are not published as they are: incomplete, not ours to give, or under a wrong licence.

All reasons are found together. They are read from the report and the resolved recipe, which
verification has tied to the rows before.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from distillhub.errors import Fault
from distillhub.packaging.notices import ARMS, notices
from distillhub.records.report import EvalReport

RESOLVED = "recipe/resolved.yaml"
NON_COMMERCIAL = re.compile(r"(^|[^a-z])nc([^a-z]|$)|non-?commercial|research", re.IGNORECASE)
"""Names of licences that forbid commercial use: `cc-by-nc-4.0`, `imagenet-research`."""


def refusals(
    report: EvalReport, recipe: Mapping[str, object], *, allow_incomplete: bool
) -> Iterator[Fault]:
    """Why a verified set may not be published; nothing if it may.

    Args:
        report: Of the set.
        recipe: The resolved recipe as plain data.
        allow_incomplete: Whether an incomplete evaluation is fine.
    """
    if not allow_incomplete:
        yield from _incomplete(report)
    yield from _real_pixels(report)
    yield from _generator(report, recipe)


def recipe_of(folder: Path) -> Mapping[str, object]:
    """The resolved recipe inside a set as plain data; empty where it has none, as imported sets."""
    from ruamel.yaml import YAML

    path = folder / RESOLVED
    content = YAML(typ="safe").load(path.read_bytes()) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _incomplete(report: EvalReport) -> Iterator[Fault]:
    mend = "build it to its end, or give --allow-incomplete"
    missing = sorted({run.arm for run in report.planned} - {run.arm for run in report.runs})
    if missing:
        arms = ", ".join(ARMS[arm] for arm in missing)
        yield Fault(f"planned and not run: {arms}", "eval.json: runs", mend)
    for notice in notices(report):
        if notice.code == "incomplete_evaluation":
            yield Fault(notice.text.rstrip("."), "eval.json: comparisons", mend)


def _real_pixels(report: EvalReport) -> Iterator[Fault]:
    rights = report.rights.redistributable if report.rights else "unknown"
    if any(notice.code == "real_pixels" for notice in notices(report)):
        told = {"no": "may not be published again", "unknown": "may not be free to publish again"}
        yield Fault(
            f"the rows hold copies of real images of {report.source.id}, which {told[rights]}",
            "card.redistributable",
            "if their license allows it, set card.redistributable: yes and build again",
        )


def _generator(report: EvalReport, recipe: Mapping[str, object]) -> Iterator[Fault]:
    block = recipe.get("generator")
    license_ = block.get("license") if isinstance(block, Mapping) else None
    if not license_ or not NON_COMMERCIAL.search(str(license_)) or report.card is None:
        return
    own = [report.card.license, report.card.license_name or ""]
    if not any(NON_COMMERCIAL.search(name) for name in own):
        yield Fault(
            f"the license {report.card.license} allows what that of the generator, {license_}, "
            "forbids",
            "card.license",
            f"set card.license: {license_}, or another one for non-commercial use",
        )
