"""What is planned: arms by labels at hand, seeds in pairs, safe names."""

import pytest

from distillhub.evaluation.arms import arms_of, planned_runs, protocol_of, run_id
from distillhub.evaluation.specs import EvalSpec


def planned(*specs, seed=0, soft=True):
    return planned_runs(specs, seed=seed, soft=soft, height=8, width=8)


def test_auto_means_four_arms_and_the_reference():
    spec = EvalSpec(protocol="digits-1")

    assert arms_of(spec, "convnet3-w32", soft=True) == (
        "syn_hard",
        "rnd_hard",
        "syn_soft",
        "rnd_soft",
        "full_hard",
    )


def test_auto_means_two_arms_and_the_reference_without_soft_labels():
    spec = EvalSpec(protocol="digits-1")

    assert arms_of(spec, "convnet3-w32", soft=False) == ("syn_hard", "rnd_hard", "full_hard")


def test_a_cited_reference_is_not_run():
    cited = {"convnet3": {"top1": 0.935, "source": "DC paper, Table 1"}}
    spec = EvalSpec(protocol="lowres-1", full_cited=cited)

    assert "full_hard" not in arms_of(spec, "convnet3", soft=True)
    assert "full_hard" in arms_of(spec, "convnet4", soft=True)


def test_a_named_soft_arm_needs_soft_labels():
    spec = EvalSpec(protocol="digits-1", arms=("syn_soft",))

    with pytest.raises(ValueError, match="arm syn_soft needs soft labels"):
        arms_of(spec, "convnet3-w32", soft=False)


def test_all_arms_of_a_run_share_its_seed():
    by_arm: dict[str, list[int]] = {}
    for run in planned(EvalSpec(protocol="digits-1"), seed=7):
        by_arm.setdefault(run.arm, []).append(run.seed)

    assert all(seeds == [7, 8, 9, 10, 11] for seeds in by_arm.values())


def test_the_random_arm_draws_a_new_subset_per_seed_and_no_other_arm_does():
    runs = planned(EvalSpec(protocol="digits-1", runs=2), seed=3)

    drawn = {(run.arm, run.subset_seed) for run in runs if run.subset_seed is not None}

    assert drawn == {("rnd_hard", 3), ("rnd_hard", 4), ("rnd_soft", 3), ("rnd_soft", 4)}


def test_the_reference_may_have_fewer_runs():
    runs = planned(EvalSpec(protocol="digits-1", full_runs=2))

    assert [run.seed for run in runs if run.arm == "full_hard"] == [0, 1]


def test_plain_arms_come_on_demand_and_train_without_augmentation():
    runs = planned(EvalSpec(protocol="digits-1", augment_arms=True))

    plain = [run for run in runs if run.arm == "syn_hard_plain"]

    assert len(plain) == 5
    assert protocol_of(plain[0]).augment == "none"


def test_ids_are_unique():
    specs = [
        EvalSpec(protocol="digits-1"),
        EvalSpec(protocol="lowres-1"),
        EvalSpec(protocol="digits-1"),
    ]

    ids = [run.id for run in planned(*specs)]

    assert len(set(ids)) == len(ids) == 2 * 25


def test_an_id_is_a_safe_file_name():
    assert (
        run_id("soft-1", "timm:hf/resnet 50", "syn_soft", 0)
        == "soft-1.timm-hf-resnet-50.syn_soft.s0"
    )


def test_online_arms_come_with_a_protocol_that_has_them_and_a_teacher():
    spec = EvalSpec(protocol="dsco-soft-1")

    assert arms_of(spec, "convnet6", soft=False, teacher=True) == (
        "syn_soft_online",
        "rnd_soft_online",
        "full_hard",
    )


def test_online_labels_without_a_teacher_are_refused():
    with pytest.raises(ValueError, match="dsco-soft-1 labels every batch online, by a teacher"):
        arms_of(EvalSpec(protocol="dsco-soft-1"), "convnet6", soft=True)


def test_a_named_online_arm_needs_a_teacher():
    spec = EvalSpec(protocol="smoke-online-1", arms=("syn_soft_online",))

    with pytest.raises(ValueError, match="arm syn_soft_online needs a teacher"):
        arms_of(spec, "convnet6", soft=True)


def test_a_protocol_with_several_regimes_leaves_out_the_online_one_without_a_teacher():
    spec = EvalSpec(protocol="smoke-online-1")

    assert arms_of(spec, "x", soft=True) == ("syn_hard", "rnd_hard", "full_hard")


def test_the_protocol_of_a_run_has_the_rate_of_its_student():
    spec = EvalSpec(protocol="dsco-in1k-1", students=("torchvision:mobilenet_v2",), runs=1)
    (first, *_) = planned_runs([spec], seed=0, soft=False, height=8, width=8, teacher=True)

    assert first.regime == "soft_online"
    assert protocol_of(first).lr == 2.5e-3


def test_mosaics_of_random_images_stand_beside_mosaics_alone():
    spec = EvalSpec(protocol="digits-1")

    assert "rnd_packed_hard" in arms_of(spec, "convnet3", soft=False, mosaics=True)
    assert "rnd_packed_soft" not in arms_of(spec, "convnet3", soft=False, mosaics=True)
    assert "rnd_packed_soft" in arms_of(spec, "convnet3", soft=True, mosaics=True)
    assert not any("packed" in arm for arm in arms_of(spec, "convnet3", soft=True))


def test_a_named_packed_arm_needs_mosaics():
    spec = EvalSpec(protocol="digits-1", arms=("syn_hard", "rnd_packed_hard"))

    with pytest.raises(ValueError, match="stands beside mosaics"):
        arms_of(spec, "convnet3", soft=False)
