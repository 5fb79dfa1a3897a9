"""A run: repeatable, resumable to the last bit, and without a trace outside."""

import pytest
import torch

from distillhub.errors import DataError, DivergedError
from distillhub.evaluation import protocols, training
from distillhub.evaluation.feed import Space
from distillhub.evaluation.runner import images_seen, score
from distillhub.models.zoo import build
from distillhub.ops.progress import Progress, State
from distillhub.records.report import TIMES_AND_HOSTS
from tests.unit.evaluation.sets import MEAN, STD, TINY, Pictures, SoftPictures, finish, plan, start

COSINE = TINY.model_copy(update={"optimizer": "adamw", "schedule": "cosine", "drop_after": None})


def result(run):
    return run.model_dump(exclude=set(TIMES_AND_HOSTS))


def with_snapshots(work):
    """A finished run and its snapshots by steps done."""
    snapshots: dict[int, State] = {}

    def keep(report: Progress) -> None:
        if report.snapshot is not None:
            snapshots[report.done] = report.snapshot()

    return finish(work, keep), snapshots


def test_classic_check_09_the_same_seed_gives_the_same_figures():
    assert result(finish(start(Pictures()))) == result(finish(start(Pictures())))


def test_another_seed_gives_another_likelihood():
    first = finish(start(Pictures(), planned=plan(seed=0)))
    second = finish(start(Pictures(), planned=plan(seed=1)))

    assert first.nll != second.nll


@pytest.mark.parametrize("cut", [10, 20, 24])
@pytest.mark.parametrize("protocol", [TINY, COSINE], ids=["drop", "cosine"])
def test_a_run_that_was_cut_ends_like_one_that_was_not(cut, protocol):
    whole, snapshots = with_snapshots(start(Pictures(), protocol=protocol))

    resumed = finish(start(Pictures(), protocol=protocol, state=snapshots[cut]))

    assert result(resumed) == result(whole)


def test_a_soft_run_that_was_cut_ends_like_one_that_was_not():
    whole, snapshots = with_snapshots(start(SoftPictures(views=4)))

    resumed = finish(start(SoftPictures(views=4), state=snapshots[10]))

    assert result(resumed) == result(whole)


def test_a_resumed_run_does_not_repeat_finished_steps():
    _, snapshots = with_snapshots(start(Pictures()))

    done = []
    finish(start(Pictures(), state=snapshots[10]), lambda r: done.append(r.done))

    assert done == [20, 24]


def test_time_before_a_cut_is_counted():
    _, snapshots = with_snapshots(start(Pictures()))

    resumed = finish(start(Pictures(), state={**snapshots[10], "seconds": 100.0}))

    assert resumed.wall_s >= 100


def test_classic_check_08_training_and_test_images_are_left_as_they_were():
    train, test = SoftPictures(views=2), Pictures(30, seed=9)
    before = train.pixels.clone(), train.logits.clone(), test.pixels.clone()

    finish(start(train, test=test))

    assert all(
        a.equal(b) for a, b in zip(before, (train.pixels, train.logits, test.pixels), strict=True)
    )


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()

    finish(start(Pictures()))

    assert torch.get_rng_state().equal(before)


def test_classic_check_08_test_images_are_never_augmented(monkeypatch):
    seen = []
    original = training.augment

    def spy(x, how, generator):
        seen.append(len(x))
        return original(x, how, generator)

    monkeypatch.setattr(training, "augment", spy)

    finish(start(Pictures(), test=Pictures(31, seed=9)))

    assert len(seen) == TINY.steps  # one call per training step, none for the test
    assert set(seen) <= {5, 2}  # 12 images in batches of 5


def test_one_hot_soft_labels_train_as_hard_ones_do():
    protocol = TINY.model_copy(update={"temperature": 1.0})
    soft = SoftPictures(views=1, whole=True)
    soft.logits = soft.logits * 1e4

    learned = finish(start(soft, protocol=protocol))

    hard = finish(start(Pictures(), protocol=protocol))
    assert learned.class_acc == hard.class_acc
    assert learned.nll == pytest.approx(hard.nll, rel=1e-4)  # two formulas of one loss, float32


def test_a_soft_arm_without_soft_labels_is_refused():
    with pytest.raises(DataError, match="holds no soft labels"):
        finish(start(Pictures(), planned=plan("syn_soft")))


def test_grey_images_are_not_tested_on_coloured_ones():
    with pytest.raises(DataError, match="1 channels, test images 3"):
        finish(start(Pictures(), test=Pictures(channels=3)))


def test_a_student_that_diverges_on_the_test_set_says_so():
    test = Pictures(30, seed=9)
    test.pixels[0] = float("nan")

    with pytest.raises(DivergedError, match="on the test set"):
        finish(start(Pictures(), test=test))


def test_the_record_counts_steps_images_and_pixels():
    run = finish(start(Pictures(), protocol=TINY.model_copy(update={"size": 10})))

    assert (run.steps, run.train_images, run.test_images) == (24, 12, 30)
    assert run.images_seen == 8 * 12  # 24 steps of 5, 5 and 2 images
    assert run.resolution == (10, 10)
    assert run.top5 is None  # three classes


@pytest.mark.parametrize(
    ("images", "seen"), [(100, 500 * 100), (300, 250 * 300), (1000, 125 * 1000)]
)
def test_images_seen_in_500_steps_of_at_most_256(images, seen):
    assert images_seen(protocols.get("digits-1"), images) == seen


def test_a_student_learns_what_there_is_to_learn():
    protocol = TINY.model_copy(update={"steps": 200, "drop_after": 150, "augment": "none"})

    assert finish(start(Pictures(), protocol=protocol)).top1 > 0.9


def test_the_test_does_not_train_a_batch_norm():
    student = build(
        "convnet1-w4-bn",
        num_classes=3,
        channels=1,
        height=8,
        width=8,
        mean=MEAN,
        std=STD,
        seed=0,
    )
    before = {key: value.clone() for key, value in student.state_dict().items()}

    score(student, Pictures(), Space((8, 8), MEAN, STD, torch.device("cpu")), classes=3, what="x")

    assert all(value.equal(before[key]) for key, value in student.state_dict().items())
