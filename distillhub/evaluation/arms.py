"""Which trainings an evaluation consists of, before any is run."""

import re
from collections.abc import Iterator, Sequence

from distillhub.evaluation import protocols
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.specs import EvalSpec
from distillhub.records.report import Arm, PlannedRun, regime_of

FOUR: tuple[Arm, ...] = ("syn_hard", "rnd_hard", "syn_soft", "rnd_soft")
ONLINE: tuple[Arm, ...] = ("syn_soft_online", "rnd_soft_online")
PACKED: tuple[Arm, ...] = ("rnd_packed_hard", "rnd_packed_soft")
PLAIN: tuple[Arm, ...] = ("syn_hard_plain", "rnd_hard_plain")


def protocol_of(planned: PlannedRun) -> Protocol:
    """The protocol a planned run trains with: the student's rate, no augmentation if `_plain`."""
    protocol = protocols.get(planned.protocol).for_student(planned.arch)
    return protocol.plain() if planned.arm.endswith("_plain") else protocol


def arms_of(
    spec: EvalSpec,
    arch: str,
    *,
    soft: bool,
    teacher: bool = False,
    mosaics: bool = False,
    whole: bool = False,
) -> tuple[Arm, ...]:
    """The arms of one student.

    The `full_hard` arm is left out where its accuracy is cited.

    Args:
        spec: An entry of `evaluate:`.
        arch: The student.
        soft: Whether the set holds soft labels.
        teacher: Whether there is a teacher to label batches online.
        mosaics: Whether the stored images are mosaics.
        whole: Whether the soft labels are of whole images, not of views.

    Raises:
        ValueError: If an arm is asked for without the labels, the teacher or the mosaics that it
            needs, or with labels of whole images where the protocol mixes them.
    """
    protocol = protocols.get(spec.protocol)
    regimes = protocol.regimes
    if spec.arms == "auto":
        known = {"hard": True, "soft_stored": soft, "soft_online": teacher}
        at_hand = [regime for regime in regimes if known[regime]]
        if regimes == ("soft_online",) and not teacher:
            raise ValueError(f"protocol {spec.protocol} labels every batch online, by a teacher")
        known_arms = (*FOUR, *ONLINE, *(PACKED if mosaics else ()))
        chosen = [arm for arm in known_arms if regime_of(arm) in at_hand]
        named: list[Arm] = [*chosen, "full_hard"] if chosen else []
    else:
        named = list(spec.arms)
        unlabelled = [arm for arm in named if regime_of(arm) == "soft_stored" and not soft]
        if unlabelled:
            raise ValueError(f"arm {unlabelled[0]} needs soft labels, the set has hard ones only")
        untaught = [arm for arm in named if arm in ONLINE and not teacher]
        if untaught:
            raise ValueError(f"arm {untaught[0]} needs a teacher, which labels every batch online")
        packed = [arm for arm in named if arm in PACKED and not mosaics]
        if packed:
            raise ValueError(f"arm {packed[0]} stands beside mosaics, and this set has none")
    if whole and protocol.mixes and any(regime_of(arm) == "soft_stored" for arm in named):
        raise ValueError(
            f"protocol {protocol.name} mixes images, and the stored labels are of whole ones: "
            "they need a views: block in relabel:"
        )
    if spec.augment_arms and "hard" in regimes:
        named += [arm for arm in PLAIN if arm not in named]
    return tuple(arm for arm in named if arm != "full_hard" or arch not in spec.full_cited)


def planned_runs(
    specs: Sequence[EvalSpec],
    *,
    seed: int,
    soft: bool,
    height: int,
    width: int,
    teacher: bool = False,
    mosaics: bool = False,
) -> tuple[PlannedRun, ...]:
    """Every training of an evaluation, arm by arm; run i of each arm has seed + i.

    Args:
        specs: The entries of `evaluate:`.
        seed: Base seed of the recipe.
        soft: Whether the set holds soft labels.
        height: Of the stored images, pixels.
        width: Of the stored images, pixels.
        teacher: Whether there is a teacher to label batches online.
        mosaics: Whether the stored images are mosaics.

    Raises:
        ValueError: If an arm is asked for without the labels, the teacher or the mosaics that it
            needs.
    """
    planned: dict[str, PlannedRun] = {}
    for spec in specs:
        students = spec.students or protocols.get(spec.protocol).students_for(height, width)
        for arch in students:
            for arm in arms_of(spec, arch, soft=soft, teacher=teacher, mosaics=mosaics):
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
