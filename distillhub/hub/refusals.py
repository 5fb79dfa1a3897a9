"""Sets that are not published as they are: incomplete, not ours to give, or under a wrong licence.

All reasons are found together, from the report, which verification has tied to the rows before.
"""

from collections.abc import Iterator

from distillhub.errors import Fault
from distillhub.packaging.notices import ARMS, notices
from distillhub.recipe.schema import license_conflict
from distillhub.records.report import EvalReport


def refusals(report: EvalReport, *, allow_incomplete: bool) -> Iterator[Fault]:
    """Why a verified set may not be published; nothing if it may.

    Args:
        report: Of the set.
        allow_incomplete: Whether an incomplete evaluation is fine.
    """
    if not allow_incomplete:
        yield from _incomplete(report)
    yield from _real_pixels(report)
    yield from _generator(report)


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
    """Rows that only name real images hold no copies."""
    for notice in notices(report):
        if notice.code == "real_pixels":
            yield Fault(
                notice.text.rstrip("."),
                "card.redistributable",
                "if the license of the source allows it, set card.redistributable: yes and build "
                "again",
            )


def _generator(report: EvalReport) -> Iterator[Fault]:
    """Images may not be given away more freely than the weights that made them."""
    generator = report.method.generator
    if generator is None or generator.license is None or report.card is None:
        return
    conflict = license_conflict(generator.license, report.card.license)
    if conflict:
        yield Fault(
            f"the images come from a generator under {generator.license}, {conflict}",
            "card.license",
            f"set it to {generator.license}, or to other with license_name and license_link, "
            "and build again",
        )
