"""From runs to the figures of `eval.json`; nothing is trained here.

Keys of `Comparison.metrics`; `any` is the regime that the set is sold under:

- per arm: `top1.<arm>`, `top5.<arm>`, `test_se.<arm>` (sampling error of the finite test set),
  `nll.<arm>`, `ece.<arm>`, `brier.<arm>`, `class_worst.<arm>`, `class_bottom10pct.<arm>`,
  `class_std.<arm>`, `class_disparity.<arm>` (each worked out per run, then averaged);
- `best_top1.<arm>`: the best of the epochs that were looked at, where the protocol looks at some;
- `recovery` A(syn, any) / A(full, hard), `hlr` A(full, hard) - A(syn, hard),
  `ior` A(syn, any) - A(rnd, any), `lrs`, `ars` (its four arms train with hard labels);
- `gain_images_hard` A(syn, hard) - A(rnd, hard), `gain_images_soft` A(syn, soft) - A(rnd, soft),
  `gain_images_soft_online` A(syn, online) - A(rnd, online) where these arms were planned,
  `gain_labels_random` A(rnd, soft) - A(rnd, hard);
- `class_disparity`: that of syn, any, minus that of full, hard;
- `group_acc`, `shift_acc`, `adv_acc`: never measured here, and they say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from distillhub.evaluation import metrics as formulas
from distillhub.evaluation import protocols
from distillhub.evaluation.arms import ONLINE, PACKED
from distillhub.evaluation.scores import sampling_error
from distillhub.evaluation.series import (
    Missing,
    Series,
    accuracy,
    across,
    collect,
    mean_recalls,
    not_had,
    of_arm,
)
from distillhub.evaluation.specs import Cited, EvalSpec, Expectation
from distillhub.evaluation.verdicts import verdict, warnings_of
from distillhub.records.report import (
    Arm,
    Comparison,
    Expected,
    Metric,
    PaperFigure,
    PlannedRun,
    ProtocolBlock,
    Regime,
    Run,
    Unit,
    Warned,
    regime_of,
)

FIGURES: Mapping[str, tuple[Unit, Callable[[Run], float | None]]] = {
    "top5": ("fraction", lambda run: run.top5),
    "test_se": ("fraction", lambda run: sampling_error(run.top1, run.test_images)),
    "nll": ("nats", lambda run: run.nll),
    "ece": ("fraction", lambda run: run.ece),
    "brier": ("score", lambda run: run.brier),
    "class_worst": ("fraction", lambda run: formulas.worst(_recalls(run))),
    "class_bottom10pct": ("fraction", lambda run: formulas.bottom_tenth(_recalls(run))),
    "class_std": ("fraction", lambda run: formulas.deviation(_recalls(run))),
    "class_disparity": ("fraction", lambda run: formulas.disparity(_recalls(run))),
}
"""Figures that every arm has besides its accuracy."""

ARMS: tuple[Arm, ...] = get_args(Arm)
SYN: Mapping[Regime, Arm] = {
    "hard": "syn_hard",
    "soft_stored": "syn_soft",
    "soft_online": "syn_soft_online",
}
Arms = Mapping[Arm, Series | Missing]


class Summary(NamedTuple):
    """The parts of an `EvalReport` that follow from the runs; the fields have its names."""

    protocols: dict[str, ProtocolBlock]
    comparisons: tuple[Comparison, ...]
    cross_arch: dict[str, Metric]
    warnings: tuple[Warned, ...]


class _Pair(NamedTuple):
    """The entries of a recipe that one comparison is made of."""

    arch: str
    by_regime: Mapping[Regime, EvalSpec]


def summarize(
    specs: Sequence[EvalSpec],
    planned: Sequence[PlannedRun],
    runs: Iterable[Run],
    *,
    soft: bool,
    height: int,
    width: int,
    source_archs: frozenset[str] = frozenset(),
) -> Summary:
    """Every figure that the runs give, and the reason for every one that they do not.

    Args:
        specs: The entries of `evaluate:`.
        planned: What `planned_runs` gave for them.
        runs: Those that were made, in any order.
        soft: Whether the set is sold with soft labels.
        height: Of the stored images, pixels.
        width: Of the stored images, pixels.
        source_archs: Architectures used in synthesis or labelling, for `cross_arch`.
    """
    by_id = {run.id: run for run in runs}
    sold: Regime = "soft_stored" if soft else "hard"
    pairs = _pairs(specs, height, width)
    arms = [_arms(pair, planned, by_id, soft=soft) for pair in pairs]
    comparisons = tuple(
        _comparison(pair, found, sold) for pair, found in zip(pairs, arms, strict=True)
    )
    used = {run.protocol: protocols.get(run.protocol) for run in planned}
    blocks = {
        name: ProtocolBlock(sha256=p.sha256, publishable=p.publishable, summary=p.summary)
        for name, p in used.items()
    }
    return Summary(
        protocols=blocks,
        comparisons=comparisons,
        cross_arch=_cross_arch(pairs, arms, sold, source_archs),
        warnings=warnings_of(comparisons, planned, by_id, sold),
    )


def _pairs(specs: Sequence[EvalSpec], height: int, width: int) -> list[_Pair]:
    """A comparison per entry and student; entries of a single regime join with the other one's."""
    pairs: list[_Pair] = []
    for spec in specs:
        protocol = protocols.get(spec.protocol)
        for arch in spec.students or protocol.students_for(height, width):
            partner = next(
                (
                    number
                    for number, pair in enumerate(pairs)
                    if pair.arch == arch and not set(pair.by_regime) & set(protocol.regimes)
                ),
                None,
            )
            mine: dict[Regime, EvalSpec] = dict.fromkeys(protocol.regimes, spec)
            if partner is None:
                pairs.append(_Pair(arch, mine))
            else:
                pairs[partner] = _Pair(arch, {**pairs[partner].by_regime, **mine})
    return pairs


def _arms(
    pair: _Pair, planned: Sequence[PlannedRun], runs: Mapping[str, Run], *, soft: bool
) -> dict[Arm, Series | Missing]:
    found: dict[Arm, Series | Missing] = {}
    for arm in ARMS:
        regime = regime_of(arm)
        if regime == "soft_stored" and not soft:
            found[arm] = Missing("the set has no soft labels", applicable=False)
            continue
        cited: Cited | None = None
        if arm == "full_hard":
            entries = list(pair.by_regime.values())
            names = [protocols.REFERENCE + spec.protocol for spec in entries]
            cited = next(
                (s.full_cited[pair.arch] for s in entries if pair.arch in s.full_cited), None
            )
        elif regime in pair.by_regime:
            names = [pair.by_regime[regime].protocol]
        else:
            names = []
        of_name = [
            [r for r in planned if (r.arm, r.arch, r.protocol) == (arm, pair.arch, name)]
            for name in names
        ]
        found[arm] = collect(arm, next(filter(None, of_name), []), runs, cited=cited)
    return found


def _comparison(pair: _Pair, arms: Arms, sold: Regime) -> Comparison:
    found: dict[str, Metric] = {}
    for arm, series in arms.items():
        if isinstance(series, Missing) and (
            arm.endswith("_plain") or arm in PACKED or _not_asked(arm, pair)
        ):
            continue
        found[f"top1.{arm}"] = accuracy(series)
        for key, (unit, figure) in FIGURES.items():
            found[f"{key}.{arm}"] = of_arm(series, figure, unit)
        best = of_arm(series, lambda run: run.best_top1, "fraction")
        if best.value is not None:
            found[f"best_top1.{arm}"] = best
    found |= _composed(arms, sold)
    recalls = {arm: mean_recalls(series) for arm, series in arms.items()}
    gains: dict[Regime, Metric] = {"hard": found["gain_images_hard"]}
    if sold == "soft_stored":
        gains["soft_stored"] = found["gain_images_soft"]
    if "soft_online" in pair.by_regime:
        online = across([arms[arm] for arm in ONLINE], formulas.ior, "difference")
        gains["soft_online"] = found["gain_images_soft_online"] = online
    packed: set[Regime] = set()
    for arm in PACKED:
        if f"top1.{arm}" in found:  # mosaics are judged against mosaics: they train as long
            both = [arms[SYN[regime_of(arm)]], arms[arm]]
            gain = across(both, formulas.ior, "difference")
            found[arm.replace("rnd", "gain")] = gains[regime_of(arm)] = gain
            packed.add(regime_of(arm))
    syn = SYN[sold]
    spec = pair.by_regime.get(sold)
    return Comparison(
        protocols={regime: spec.protocol for regime, spec in pair.by_regime.items()},
        arch=pair.arch,
        metrics=found,
        class_acc={arm: recall for arm, recall in recalls.items() if recall is not None},
        verdicts={
            regime: verdict(regime, gain, mosaics=regime in packed)
            for regime, gain in gains.items()
        },
        expected=None if spec is None else _expected(found[f"top1.{syn}"], spec, syn, pair.arch),
        papers={
            regime: _paper(found[f"top1.{SYN[regime]}"], theirs, SYN[regime])
            for regime, theirs in _cited(pair, sold).items()
        },
    )


def _not_asked(arm: Arm, pair: _Pair) -> bool:
    """Online arms are spoken of only where a protocol has them."""
    return arm in ONLINE and "soft_online" not in pair.by_regime


def _cited(pair: _Pair, sold: Regime) -> dict[Regime, Expectation]:
    """The published figures of a student, each with the labels that it is for."""
    found: dict[Regime, Expectation] = {}
    for spec in pair.by_regime.values():
        theirs = spec.expect.get(pair.arch)
        if theirs is not None:
            regimes = protocols.get(spec.protocol).regimes
            found[theirs.regime or (sold if sold in regimes else regimes[0])] = theirs
    return found


def _composed(arms: Arms, sold: Regime) -> dict[str, Metric]:
    full, syn_hard, rnd_hard = arms["full_hard"], arms["syn_hard"], arms["rnd_hard"]
    syn_soft, rnd_soft = arms["syn_soft"], arms["rnd_soft"]
    syn, rnd = (syn_soft, rnd_soft) if sold == "soft_stored" else (syn_hard, rnd_hard)
    of_real = [syn, full]
    gain = formulas.ior
    found = {
        "recovery": _recovery(syn, full),
        "hlr": across([full, syn_hard], formulas.hlr, "difference", alike=False),
        "ior": across([syn, rnd], gain, "difference"),
        "lrs": across(
            [full, syn_hard, syn, rnd],
            formulas.lrs_argument,
            "score",
            mapped=formulas.squash,
            alike=False,
        ),
        "ars": across(
            [syn_hard, rnd_hard, arms["syn_hard_plain"], arms["rnd_hard_plain"]],
            formulas.ars_argument,
            "score",
            mapped=formulas.squash,
        ),
        "gain_images_hard": across([syn_hard, rnd_hard], gain, "difference"),
        "gain_images_soft": across([syn_soft, rnd_soft], gain, "difference"),
        "gain_labels_random": across([rnd_soft, rnd_hard], gain, "difference", alike=False),
    }
    cited = [arm for arm in of_real if isinstance(arm, Series) and arm.cited is not None]
    found["class_disparity"] = (
        not_had(Missing("the accuracy of arm full_hard is cited"), "difference")
        if cited
        else across(
            of_real,
            gain,
            "difference",
            figure=lambda run: formulas.disparity(_recalls(run)),
            alike=False,
        )
    )
    found["group_acc"] = not_had(
        Missing("the set has no group labels", applicable=False), "fraction"
    )
    found["shift_acc"] = not_had(Missing("no shifted test set was tried"), "fraction")
    found["adv_acc"] = not_had(Missing("no attack was tried"), "fraction")
    return found


def _recovery(syn: Series | Missing, full: Series | Missing) -> Metric:
    """Ratio of the means; its spread is that of the ratio linearized around the means."""
    above = across([syn, full], lambda s, _: s, "fraction", alike=False).value
    below = across([syn, full], lambda _, f: f, "fraction", alike=False).value
    if above is None or below is None:
        return across([syn, full], formulas.recovery, "ratio", alike=False)
    if below == 0:
        return not_had(Missing("A(full, hard) is 0", applicable=False), "ratio")
    ratio = formulas.recovery(above, below)
    return across([syn, full], lambda s, f: ratio + (s - ratio * f) / below, "ratio", alike=False)


def _expected(top1: Metric, spec: EvalSpec, arm: Arm, arch: str) -> Expected | None:
    if top1.value is None or top1.std is None:
        return None
    return Expected(
        protocol=spec.protocol,
        arm=arm,
        arch=arch,
        low=max(0.0, top1.value - 3 * top1.std),
        high=min(1.0, top1.value + 3 * top1.std),
    )


def _paper(top1: Metric, theirs: Expectation, arm: Arm) -> PaperFigure:
    difference = None if top1.value is None else top1.value - theirs.top1
    return PaperFigure(
        top1=theirs.top1,
        within=theirs.within,
        source=theirs.source,
        arm=arm,
        difference=difference,
        agrees=None if difference is None else abs(difference) <= theirs.within,
    )


def _cross_arch(
    pairs: Sequence[_Pair], arms: Sequence[Arms], sold: Regime, source: frozenset[str]
) -> dict[str, Metric]:
    """Accuracy per student of the headline's protocol, the mean over foreign ones, and the gap."""
    if not pairs or sold not in pairs[0].by_regime:
        return {}
    protocol = pairs[0].by_regime[sold].protocol
    syn = SYN[sold]
    same = {
        pair.arch: found[syn]
        for pair, found in zip(pairs, arms, strict=True)
        if sold in pair.by_regime and pair.by_regime[sold].protocol == protocol
    }
    found = {arch: accuracy(series) for arch, series in same.items()}
    others = [series for arch, series in same.items() if arch not in source]
    own = [series for arch, series in same.items() if arch in source]
    if not others:
        nobody = Missing("no architecture beside those of synthesis and labels was tried")
        return found | {
            "mean_other": not_had(nobody, "fraction"),
            "gap": not_had(nobody, "difference"),
        }
    found["mean_other"] = across(others, lambda *tops: sum(tops) / len(tops), "fraction")
    found["gap"] = (
        across([own[0], *others], lambda top, *tops: top - sum(tops) / len(tops), "difference")
        if own
        else not_had(Missing("no architecture of synthesis or labels was tried"), "difference")
    )
    return found


def _recalls(run: Run) -> list[float]:
    """Recall of the classes that have test images."""
    return [recall for recall in run.class_acc if recall is not None]
