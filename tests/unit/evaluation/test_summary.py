"""Runs to figures: worked values, invariances, and honesty about what is missing."""

import random

import pytest

from distillhub.evaluation.arms import planned_runs
from distillhub.evaluation.specs import EvalSpec
from distillhub.evaluation.summary import summarize
from tests.unit.evaluation.sets import made_up, made_up_all

SPEC = EvalSpec(protocol="digits-1", runs=3)
TOPS = {
    "full_hard": [0.98, 0.99, 1.00],
    "syn_hard": [0.90, 0.92, 0.94],
    "rnd_hard": [0.89, 0.90, 0.91],
    "syn_soft": [0.95, 0.96, 0.97],
    "rnd_soft": [0.94, 0.96, 0.98],
    "syn_hard_plain": [0.80, 0.82, 0.84],
    "rnd_hard_plain": [0.80, 0.80, 0.80],
}


def planned(*specs, soft=True):
    return planned_runs(specs, seed=0, soft=soft, height=8, width=8)


def summary(*specs, soft=True, runs=None, **others):
    plans = planned(*specs, soft=soft)
    done = made_up_all(plans, **TOPS) if runs is None else runs
    return summarize(specs, plans, done, soft=soft, height=8, width=8, **others)


def figures(*specs, **others):
    return summary(*specs, **others).comparisons[0].metrics


def test_the_accuracy_of_an_arm_is_the_mean_of_its_runs():
    top1 = figures(SPEC)["top1.syn_hard"]

    assert top1.value == pytest.approx(0.92)
    assert top1.std == pytest.approx(0.02)
    assert (top1.n, top1.status) == (3, "measured")
    assert top1.runs == tuple(f"digits-1.convnet3-w32.syn_hard.s{seed}" for seed in range(3))


def test_a_gain_is_paired_by_seed():
    gain = figures(SPEC)["gain_images_hard"]

    assert gain.value == pytest.approx(0.02)
    assert gain.std == pytest.approx(0.01)  # of 0.01, 0.02, 0.03, not of the arms
    assert gain.ci95 == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert len(gain.runs) == 6


def test_the_composed_figures_of_a_set_with_soft_labels():
    found = figures(SPEC)

    assert found["hlr"].value == pytest.approx(0.99 - 0.92)
    assert found["ior"].value == pytest.approx(0.96 - 0.96)
    assert found["recovery"].value == pytest.approx(0.96 / 0.99)
    assert found["gain_labels_random"].value == pytest.approx(0.96 - 0.90)


def test_a_set_with_hard_labels_is_judged_under_hard_labels():
    found = figures(SPEC, soft=False)

    assert found["ior"].value == pytest.approx(0.92 - 0.90)
    assert found["recovery"].value == pytest.approx(0.92 / 0.99)


def test_the_label_robust_score_of_the_worked_example():
    tops = {
        "full_hard": 0.698,
        "syn_hard": 0.050,
        "syn_soft": 0.608,
        "rnd_soft": 0.570,
        "rnd_hard": 0,
    }
    plans = planned(SPEC)
    runs = [made_up(plan, tops[plan.arm]) for plan in plans]

    lrs = figures(SPEC, runs=runs)["lrs"]

    assert lrs.value == pytest.approx(0.1570981783, abs=1e-10)
    assert lrs.ci95 == pytest.approx((lrs.value, lrs.value))


def test_the_interval_of_a_score_lies_around_it():
    runs = made_up_all(planned(SPEC), **{**TOPS, "rnd_soft": [0.93, 0.93, 0.93]})

    lrs = figures(SPEC, runs=runs)["lrs"]

    assert lrs.ci95[0] < lrs.value < lrs.ci95[1]


def test_arms_without_augmentation_give_the_augmentation_robust_score():
    ars = figures(EvalSpec(protocol="digits-1", runs=3, augment_arms=True))["ars"]

    # 0.5 * 0.02 + 0.5 * 0.02 = 0.02, squashed
    assert ars.value == pytest.approx((2.718281828**0.02 - 0.36787944) / 2.35040239)


def test_without_plain_arms_the_augmentation_robust_score_was_not_run():
    ars = figures(SPEC)["ars"]

    assert (ars.value, ars.status) == (None, "not_run")
    assert "syn_hard_plain" in ars.note


def test_identical_arms_gain_nothing_within_an_interval_around_zero():
    tops = {**TOPS, "rnd_soft": TOPS["syn_soft"]}
    runs = made_up_all(planned(SPEC), **tops)

    found = summary(SPEC, runs=runs)

    assert found.comparisons[0].metrics["ior"].value == 0
    assert found.comparisons[0].metrics["ior"].ci95 == (0, 0)
    assert "no clear difference" in found.comparisons[0].verdicts["soft_stored"]


def test_the_order_of_the_runs_changes_nothing():
    runs = made_up_all(planned(SPEC), **TOPS)
    shuffled = random.Random(0).sample(runs, len(runs))

    assert summary(SPEC, runs=shuffled) == summary(SPEC, runs=runs)


def test_renaming_the_classes_leaves_the_figures():
    runs = [made_up(plan, 0.5, class_acc=(0.25, 0.5, 0.75)) for plan in planned(SPEC)]
    renamed = [run.model_copy(update={"class_acc": run.class_acc[::-1]}) for run in runs]

    assert figures(SPEC, runs=renamed) == figures(SPEC, runs=runs)


@pytest.mark.parametrize("gone", range(15))
def test_a_deleted_run_takes_every_figure_with_it_that_depends_on_it(gone):
    whole = figures(SPEC)
    runs = made_up_all(planned(SPEC), **TOPS)
    lost = runs.pop(gone)

    found = figures(SPEC, runs=runs)

    for key, metric in whole.items():
        if lost.id in metric.runs:
            assert (key, found[key].status, found[key].value) == (key, "not_run", None)
        elif metric.value is not None:
            assert found[key] == metric


def test_soft_figures_do_not_apply_to_a_set_with_hard_labels():
    found = figures(SPEC, soft=False)

    assert found["top1.syn_soft"].status == "not_applicable"
    assert found["gain_images_soft"].status == "not_applicable"


def test_a_cited_reference_makes_the_figures_cited():
    cited = {"convnet3-w32": {"top1": 0.995, "source": "Table 1"}}

    found = figures(EvalSpec(protocol="digits-1", runs=3, full_cited=cited))

    assert (found["hlr"].status, found["hlr"].source) == ("cited", "Table 1")
    assert found["hlr"].value == pytest.approx(0.995 - 0.92)
    assert found["class_disparity"].status == "not_run"
    assert found["ior"].status == "measured"


def test_a_reference_with_fewer_runs_counts_with_its_mean():
    hlr = figures(EvalSpec(protocol="digits-1", runs=3, full_runs=2))["hlr"]

    assert hlr.n == 3
    assert hlr.value == pytest.approx((0.98 + 0.99) / 2 - 0.92)
    assert hlr.std == pytest.approx(0.02)  # of syn_hard
    assert "leaves out the spread of arm full_hard" in hlr.note
    assert len(hlr.runs) == 5


def test_a_paired_reference_is_in_the_interval():
    hlr = figures(SPEC)["hlr"]

    assert hlr.std == pytest.approx(0.01)  # of 0.08, 0.07, 0.06
    assert hlr.note == ""


@pytest.mark.parametrize("field", ["steps", "resolution", "test_images"])
def test_arms_that_differ_are_not_compared(field):
    other = {"steps": 1000, "resolution": (32, 32), "test_images": 400}[field]
    runs = [
        run.model_copy(update={field: other}) if run.arm == "rnd_hard" else run
        for run in made_up_all(planned(SPEC), **TOPS)
    ]

    gain = figures(SPEC, runs=runs)["gain_images_hard"]

    assert gain.status == "not_run"
    assert "the arms differ in" in gain.note


def test_the_reference_may_differ_in_steps():
    runs = [
        run.model_copy(update={"steps": 420}) if run.arm == "full_hard" else run
        for run in made_up_all(planned(SPEC), **TOPS)
    ]

    assert figures(SPEC, runs=runs)["hlr"].status == "measured"


def test_the_expected_range_is_three_deviations_wide_and_ends_at_one():
    expected = summary(SPEC).comparisons[0].expected

    assert (expected.arm, expected.protocol) == ("syn_soft", "digits-1")
    assert expected.low == pytest.approx(0.96 - 0.03)
    assert expected.high == pytest.approx(0.96 + 0.03)


def test_a_published_figure_stands_beside_ours():
    theirs = {"convnet3-w32": {"top1": 0.97, "within": 0.005, "source": "Table 2"}}

    papers = summary(EvalSpec(protocol="digits-1", runs=3, expect=theirs)).comparisons[0].papers

    paper = papers["soft_stored"]  # the set is sold with soft labels
    assert paper.difference == pytest.approx(-0.01)
    assert paper.agrees is False


def test_the_worst_class_is_found_per_run_and_averaged():
    recalls = [(0.1, 0.9), (0.9, 0.3), (0.5, 0.5)]
    runs = [made_up(plan, 0.5, class_acc=recalls[plan.seed]) for plan in planned(SPEC)]

    found = summary(SPEC, runs=runs).comparisons[0]

    assert found.metrics["class_worst.syn_hard"].value == pytest.approx(0.3)
    assert found.class_acc["syn_hard"] == pytest.approx((0.5, 1.7 / 3))


def test_classes_without_test_images_are_left_out_of_the_worst():
    runs = [made_up(plan, 0.5, class_acc=(None, 0.5, 0.6)) for plan in planned(SPEC)]

    assert figures(SPEC, runs=runs)["class_worst.syn_hard"].value == pytest.approx(0.5)


def test_a_hard_and_a_soft_protocol_make_one_comparison():
    specs = EvalSpec(protocol="hard-1", runs=3), EvalSpec(protocol="soft-1", runs=3)

    found = summary(*specs).comparisons

    assert [c.protocols for c in found] == [{"hard": "hard-1", "soft_stored": "soft-1"}]
    assert found[0].metrics["lrs"].status == "measured"


def test_students_have_comparisons_of_their_own():
    spec = EvalSpec(protocol="digits-1", students=("convnet3-w32", "resnet18"), runs=3)

    found = summary(spec, source_archs=frozenset({"convnet3-w32"}))

    assert [c.arch for c in found.comparisons] == ["convnet3-w32", "resnet18"]
    assert found.cross_arch["resnet18"].value == pytest.approx(0.96)
    assert found.cross_arch["mean_other"].value == pytest.approx(0.96)
    assert found.cross_arch["gap"].value == pytest.approx(0)


def test_one_student_of_the_synthesis_leaves_the_transfer_unknown():
    found = summary(SPEC, source_archs=frozenset({"convnet3-w32"})).cross_arch

    assert found["mean_other"].status == found["gap"].status == "not_run"


def test_protocols_are_listed_with_their_digests():
    found = summary(SPEC).protocols

    assert set(found) == {"digits-1", "full-1@digits-1"}


def test_a_whole_evaluation_has_only_the_warning_of_few_runs():
    assert {warned.code for warned in summary(SPEC).warnings} == {"few_runs"}


def test_five_runs_have_no_warning():
    spec = EvalSpec(protocol="digits-1")
    runs = [made_up(plan, 0.9) for plan in planned(spec)]

    assert summary(spec, runs=runs).warnings == ()


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (EvalSpec(protocol="digits-1", arms=("syn_hard", "syn_soft")), "incomplete_evaluation",
         "without rnd_hard, rnd_soft"),
        (EvalSpec(protocol="smoke-cpu-1"), "protocol_not_publishable", "smoke-cpu-1"),
        (EvalSpec(protocol="digits-1", runs=2), "too_few_runs", "2 run"),
        (EvalSpec(protocol="digits-1", runs=1), "too_few_runs", "1 run"),
    ],
)  # fmt: skip
def test_what_weakens_the_figures_is_warned_of(spec, code, text):
    runs = [made_up(plan, 0.9) for plan in planned(spec)]

    texts = [warned.text for warned in summary(spec, runs=runs).warnings if warned.code == code]

    assert any(text in found for found in texts)


def test_an_evaluation_of_nothing_says_so():
    assert [warned.code for warned in summary().warnings] == ["incomplete_evaluation"]


def test_two_runs_have_no_interval_and_no_verdict():
    spec = EvalSpec(protocol="digits-1", runs=2)

    found = summary(spec).comparisons[0]

    assert found.metrics["ior"].ci95 is None
    assert "too few to judge" in found.verdicts["hard"]


ONLINE = {
    "full_hard": [0.95, 0.95, 0.95],
    "syn_hard": [0.60, 0.62, 0.64],
    "rnd_hard": [0.50, 0.50, 0.50],
    "syn_soft_online": [0.80, 0.82, 0.84],
    "rnd_soft_online": [0.79, 0.80, 0.81],
}


def native(*specs, **best):
    plans = planned_runs(specs, seed=0, soft=False, height=256, width=256, teacher=True)
    runs = [made_up(p, ONLINE[p.arm][p.seed], **best) for p in plans]
    return summarize(specs, plans, runs, soft=False, height=256, width=256)


def entries(arch="convnet6"):
    hard = {arch: {"top1": 0.657, "source": "Table 1"}}
    soft = {arch: {"top1": 0.940, "source": "Table 3"}}
    return (
        EvalSpec(protocol="dsco-hard-1", students=(arch,), runs=3, expect=hard),
        EvalSpec(protocol="dsco-soft-1", students=(arch,), runs=3, expect=soft),
    )


def test_online_labels_are_a_second_result_beside_the_hard_ones():
    (found,) = native(*entries()).comparisons

    assert found.protocols == {"hard": "dsco-hard-1", "soft_online": "dsco-soft-1"}
    assert found.metrics["gain_images_hard"].value == pytest.approx(0.12)
    assert found.metrics["gain_images_soft_online"].value == pytest.approx(0.02)
    assert set(found.verdicts) == {"hard", "soft_online"}


def test_each_regime_has_its_published_figure():
    papers = native(*entries()).comparisons[0].papers

    assert {regime: (p.arm, p.source) for regime, p in papers.items()} == {
        "hard": ("syn_hard", "Table 1"),
        "soft_online": ("syn_soft_online", "Table 3"),
    }
    assert papers["soft_online"].difference == pytest.approx(0.82 - 0.94)


def test_a_published_figure_without_our_run_says_so():
    cited = {"resnet18-in": {"top1": 0.703, "source": "Table 1"}}
    spec = EvalSpec(
        protocol="dsco-hard-1",
        students=("resnet18-in",),
        arms=("rnd_hard",),
        runs=3,
        expect=cited,
    )

    paper = native(spec).comparisons[0].papers["hard"]

    assert (paper.top1, paper.difference, paper.agrees) == (0.703, None, None)


def test_reports_without_online_labels_do_not_speak_of_them():
    assert not [key for key in figures(SPEC) if "online" in key or "best" in key]


def test_the_best_epoch_stands_beside_the_last():
    found = native(*entries(), best_top1=0.9, best_epoch=10).comparisons[0].metrics

    assert found["best_top1.syn_hard"].value == pytest.approx(0.9)
    assert found["top1.syn_hard"].value == pytest.approx(0.62)
