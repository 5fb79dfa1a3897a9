"""Which trainings an evaluation consists of, before any is run."""

import re
from collections.abc import Iterator, Sequence

from distillhub.evaluation import protocols
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.specs import EvalSpec
from distillhub.records.report import Arm, PlannedRun, Regime

FOUR: tuple[Arm, ...] = ("syn_hard", "rnd_hard", "syn_soft", "rnd_soft")
PLAIN: tuple[Arm, ...] = ("syn_hard_plain", "rnd_hard_plain")


def regime_of(arm: Arm) -> Regime:
    """The labels that an arm trains with."""
    return "soft_stored" if arm.endswith("_soft") else "hard"


def protocol_of(planned: PlannedRun) -> Protocol:
    """The protocol a planned run trains with; `_plain` arms go without augmentation."""
    protocol = protocols.get(planned.protocol)
    return protocol.plain() if planned.arm.endswith("_plain") else protocol


def arms_of(spec: EvalSpec, arch: str, *, soft: bool) -> tuple[Arm, ...]:
    """The arms of one student; `soft`: whether the set holds soft labels.

    The `full_hard` arm is left out where its accuracy is cited.

    Raises:
        ValueError: If a soft arm is named and the set has hard labels only.
    """
    regimes = protocols.get(spec.protocol).regimes
    if spec.arms == "auto":
        at_hand = [regime for regime in regimes if soft or regime == "hard"]
        four = [arm for arm in FOUR if regime_of(arm) in at_hand]
        named: list[Arm] = [*four, "full_hard"] if four else []
    else:
        named = list(spec.arms)
        unlabelled = [arm for arm in named if regime_of(arm) == "soft_stored" and not soft]
        if unlabelled:
            raise ValueError(f"arm {unlabelled[0]} needs soft labels, the set has hard ones only")
    if spec.augment_arms and "hard" in regimes:
        named += [arm for arm in PLAIN if arm not in named]
    return tuple(arm for arm in named if arm != "full_hard" or arch not in spec.full_cited)


def planned_runs(
    specs: Sequence[EvalSpec], *, seed: int, soft: bool, height: int, width: int
) -> tuple[PlannedRun, ...]:
    """Every training of an evaluation, arm by arm; run i of each arm has seed + i.

    Args:
        specs: The entries of `evaluate:`.
        seed: Base seed of the recipe.
        soft: Whether the set holds soft labels.
        height: Of the stored images, pixels.
        width: Of the stored images, pixels.

    Raises:
        ValueError: If a soft arm is named and the set has hard labels only.
    """
    planned: dict[str, PlannedRun] = {}
    for spec in specs:
        students = spec.students or protocols.get(spec.protocol).students_for(height, width)
        for arch in students:
            for arm in arms_of(spec, arch, soft=soft):
                planned.update((run.id, run) for run in _runs_of(spec, arch, arm, seed))
    return tuple(planned.values())


def _runs_of(spec: EvalSpec, arch: str, arm: Arm, seed: int) -> Iterator[PlannedRun]:
    protocol = protocols.get(spec.protocol)
    if arm == "full_hard":
        protocol = protocols.reference(protocol)
    count = spec.runs or protocol.runs
    if arm == "full_hard" and spec.full_runs is not None:
        count = min(count, spec.full_runs)
    for run_seed in range(seed, seed + count):
        yield PlannedRun(
            id=run_id(protocol.name, arch, arm, run_seed),
            protocol=protocol.name,
            arm=arm,
            arch=arch,
            regime=regime_of(arm),
            seed=run_seed,
            subset_seed=run_seed if arm.startswith("rnd") else None,
        )


def run_id(protocol: str, arch: str, arm: Arm, seed: int) -> str:
    """A safe file name for a run."""
    return f"{protocol}.{re.sub('[^A-Za-z0-9._@-]', '-', arch)}.{arm}.s{seed}"
