"""Class-incremental learning: which classes come when, and what a student of a stage sees."""

import pytest
import torch

from distillhub.evaluation.continual import (
    Seen,
    SeenSoft,
    class_order,
    judged_stage,
    mean_gain,
    mean_over_stages,
    planned_stage,
    seen_classes,
    split_stages,
)
from tests.unit.evaluation.sets import Pictures, SoftPictures, made_up

ARMS = ("syn_hard", "rnd_hard")


def stages_of(*accuracies: dict[str, list[float]]):
    """Judged stages of one class each, from accuracies per arm and seed."""
    found = []
    for number, by_arm in enumerate(accuracies):
        planned = planned_stage("digits-1", "convnet1-w4", ARMS, (0, 1, 2), number + 1)
        runs = [made_up(run, by_arm[run.arm][run.seed]) for run in planned]
        found.append(judged_stage((number,), number + 1, ARMS, runs))
    return found


def test_the_order_holds_every_class_once():
    assert sorted(class_order(100, 3)) == list(range(100))


def test_the_order_depends_on_its_seed_alone():
    torch.rand(5)

    assert class_order(10, 0) == class_order(10, 0)
    assert class_order(10, 0) != class_order(10, 1)


def test_every_stage_brings_equally_many_classes():
    assert [len(new) for new in split_stages(range(100), 5)] == [20] * 5


def test_what_is_left_over_comes_with_the_first_stages():
    assert split_stages((4, 2, 0, 1, 3), 3) == ((4, 2), (0, 1), (3,))


@pytest.mark.parametrize("steps", [0, 4])
def test_more_steps_than_classes_or_none_are_refused(steps):
    with pytest.raises(ValueError, match=f"3 classes cannot come in {steps} steps"):
        split_stages((0, 1, 2), steps)


def test_classes_that_have_come_stay():
    stages = ((2,), (0, 3), (1,))

    assert [seen_classes(stages, n) for n in range(3)] == [(2,), (2, 0, 3), (2, 0, 3, 1)]


def test_a_memory_holds_all_images_of_the_seen_classes_and_no_other():
    whole = Pictures(12)  # labels 0, 1, 2, 0, ...

    memory = Seen(whole, (2, 0))

    assert memory.rows.tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    assert len(memory) == 8
    assert memory.images(torch.tensor([1])).equal(whole.pixels[[2]])


def test_labels_are_positions_in_the_order_of_arrival():
    memory = Seen(Pictures(6), (2, 0))

    assert memory.labels.tolist() == [1, 0, 1, 0]  # images of 0, 2, 0, 2


def test_stored_labels_are_those_of_the_seen_classes_in_their_order():
    whole = SoftPictures(6, views=2)
    whole.logits = torch.arange(18.0).view(6, 3)

    memory = SeenSoft(whole, (2, 0))
    shown, logits = memory.view_batch(torch.tensor([1]), torch.tensor([1]), 4.0)

    assert logits.tolist() == [[8.0, 6.0]]  # row 2 of the set: logits 6, 7, 8
    assert whole.asked == [(2, 1)]
    assert shown.equal(whole.pixels[[2]].roll(1, 3))


def test_a_memory_has_the_views_of_its_set():
    memory = SeenSoft(SoftPictures(6, views=3), (0, 1))

    assert memory.views_per_image == 3
    assert memory.views is not None


def test_runs_of_a_stage_are_paired_by_seed_and_named_by_stage():
    planned = list(planned_stage("digits-1", "convnet3-w32", ARMS, (4, 5), 2))

    assert [(run.arm, run.seed, run.subset_seed) for run in planned] == [
        ("syn_hard", 4, None),
        ("syn_hard", 5, None),
        ("rnd_hard", 4, 4),
        ("rnd_hard", 5, 5),
    ]
    assert planned[0].id == "digits-1.convnet3-w32.syn_hard.s4.c2"


def test_the_gain_of_a_stage_is_paired_by_seed():
    # Distilled minus random is 0.1 for every seed, though both arms spread.
    (stage,) = stages_of({"syn_hard": [0.5, 0.7, 0.9], "rnd_hard": [0.4, 0.6, 0.8]})

    assert stage.gain.value == pytest.approx(0.1)
    assert stage.gain.std == pytest.approx(0, abs=1e-12)
    assert stage.top1["syn_hard"].value == pytest.approx(0.7)


def test_the_mean_over_stages_is_one_figure_per_seed():
    # Seeds have 0.6, 0.7 and 0.8 over two stages: mean 0.7, deviation 0.1, n = 3 and not 6.
    stages = stages_of(
        {"syn_hard": [0.8, 0.8, 0.8], "rnd_hard": [0.5, 0.5, 0.5]},
        {"syn_hard": [0.4, 0.6, 0.8], "rnd_hard": [0.5, 0.5, 0.5]},
    )

    mean = mean_over_stages(stages, ARMS)["syn_hard"]

    assert (mean.value, mean.std, mean.n) == (pytest.approx(0.7), pytest.approx(0.1), 3)
    assert mean_gain(stages, ARMS).value == pytest.approx(0.2)
