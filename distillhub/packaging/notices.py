"""What a reader of a card must know: warnings, and the limits of what was done."""

from distillhub.records.report import EvalReport, Metric, Warned

FEW_RUNS = 3
"""Fewer runs than this give no interval that one could rely on."""
ARMS = {
    "syn_hard": "distilled, hard labels",
    "rnd_hard": "random real, hard labels",
    "syn_soft": "distilled, soft labels",
    "rnd_soft": "random real, soft labels",
    "full_hard": "all real images",
    "syn_hard_plain": "distilled, hard labels, not augmented",
    "rnd_hard_plain": "random real, hard labels, not augmented",
    "syn_soft_online": "distilled, labels made online by the teacher",
    "rnd_soft_online": "random real, labels made online by the teacher",
    "rnd_packed_hard": "mosaics of random real, hard labels",
    "rnd_packed_soft": "mosaics of random real, soft labels",
}
ONLINE = ("syn_soft_online", "rnd_soft_online")
FOUR = ("syn_hard", "rnd_hard", "syn_soft", "rnd_soft")


def notices(report: EvalReport) -> tuple[Warned, ...]:
    """Warnings of the report and those that follow from what it lacks; each code once."""
    found = []
    for name, protocol in report.protocols.items():
        if not protocol.publishable:
            text = f"Figures under {name} only show that it runs."
            found.append(Warned(code="protocol_not_publishable", text=text))
    metrics = report.headline.metrics if report.headline else {}
    sold = ("hard",) if report.labels.dtype is None else ("hard", "soft")
    missing = [
        ARMS[arm]
        for arm in FOUR
        if arm.endswith(sold) and metrics.get(f"top1.{arm}", Metric()).value is None
    ]
    if missing:
        found.append(
            Warned(
                code="incomplete_evaluation",
                text=f"Incomplete evaluation: without {'; '.join(missing)}.",
            )
        )
    runs = [metric.n for key, metric in metrics.items() if key.startswith("top1.syn") and metric.n]
    if runs and min(runs) < FEW_RUNS:
        text = f"An arm has {min(runs)} run(s), too few for an interval."
        found.append(Warned(code="too_few_runs", text=text))
    share = 0.0 if report.privacy is None else report.privacy.real_pixel_share
    if share != 0 and report.rights is not None and report.rights.redistributable != "yes":
        text = (
            "The images are copies of real ones or of parts of them, whose license may not allow "
            "to publish them again."
        )
        if report.doping is not None:
            text = f"Some of {text[0].lower()}{text[1:]}"
        if share is None:
            text = (
                "It is not known whether the images are copies of real ones, whose license may not "
                "allow to publish them again."
            )
        found.append(Warned(code="real_pixels", text=text))
    if report.reference is not None and report.reference.materialized_from is None:
        text = (
            f"{report.reference.rows} of the images are real ones that are only named here; "
            "`distillhub materialize` fills their pixels in from a copy of the source."
        )
        found.append(Warned(code="named_images", text=text))
    if report.imported is not None:
        text = "Imported, not built here: nobody has checked what its makers say of it."
        found.append(Warned(code="imported", text=text))
    told = {notice.code for notice in report.warnings}
    return (*report.warnings, *(notice for notice in found if notice.code not in told))


def limits(report: EvalReport) -> tuple[str, ...]:
    """What the report names, the author's notes, and planned runs that are missing."""
    missing = sorted({run.arm for run in report.planned} - {run.arm for run in report.runs})
    left_out = (
        [f"Planned and not run: {', '.join(ARMS[arm] for arm in missing)}."] if missing else []
    )
    notes = report.card.notes if report.card else ()
    return (*report.limitations, *notes, *left_out) or ("None named.",)
