from collections.abc import Generator

import pytest
import torch
from torch import Tensor

from distillhub.errors import DivergedError
from distillhub.models.specs import TrainSpec
from distillhub.models.training import (
    Trained,
    accuracy,
    augment,
    learning_rate_factor,
    predict,
    train,
)
from distillhub.ops.progress import Progress, State
from tests.unit.models.images import BrightOrDark

CPU = torch.device("cpu")
SPEC = TrainSpec(arch="convnet2-w4", steps=7, batch=10, lr=1e-2, augment="flip_shift")
SPECS = {
    "adamw with average": SPEC.model_copy(update={"ema": 0.9, "warmup": 0.3}),
    "sgd and batch norm": SPEC.model_copy(
        update={"arch": "convnet2-w4-bn", "optimizer": "sgd", "nesterov": True}
    ),
    "bfloat16": SPEC.model_copy(update={"precision": "bfloat16", "augment": "crop_flip"}),
}


def finish(work: Generator[Progress, None, Trained]) -> Trained:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Trained = end.value
            return result


def weights(trained: Trained) -> list[Tensor]:
    return list(trained.classifier.state_dict().values())


def test_a_few_steps_learn_to_tell_bright_from_dark():
    spec = TrainSpec(arch="mlp", steps=40, batch=16)

    trained = finish(train(spec, BrightOrDark(), BrightOrDark(20, seed=1), device=CPU))

    assert trained.top1 == 1.0


def test_every_step_is_reported():
    reports = list(train(SPEC, BrightOrDark(), None, device=CPU))

    assert [(report.done, report.total) for report in reports] == [(n, 7) for n in range(1, 8)]


def test_the_first_loss_of_many_classes_is_near_the_logarithm():
    spec = TrainSpec(arch="mlp", steps=1, batch=48)

    report = next(train(spec, BrightOrDark(), None, device=CPU))

    assert report.metrics["loss"] == pytest.approx(0.693, abs=0.3)


@pytest.mark.parametrize("name", SPECS)
def test_equal_specs_give_equal_weights(name: str):
    first = finish(train(SPECS[name], BrightOrDark(), None, device=CPU))

    second = finish(train(SPECS[name], BrightOrDark(), None, device=CPU))

    assert all(map(torch.equal, weights(first), weights(second)))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cut", [1, 5, 7])
def test_resume_gives_the_same_weights_as_no_cut(name: str, cut: int):
    spec, images = SPECS[name], BrightOrDark()
    whole = finish(train(spec, images, None, device=CPU))
    state: State = {}
    for report in train(spec, images, None, device=CPU):
        if report.done == cut:
            assert report.snapshot is not None
            state = report.snapshot()
            break

    resumed = finish(train(spec, images, None, device=CPU, state=state))

    assert all(map(torch.equal, weights(whole), weights(resumed)))


def test_another_seed_gives_other_weights():
    first = finish(train(SPEC, BrightOrDark(), None, device=CPU))

    second = finish(train(SPEC.model_copy(update={"seed": 1}), BrightOrDark(), None, device=CPU))

    assert not torch.equal(weights(first)[0], weights(second)[0])


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()

    finish(train(SPEC, BrightOrDark(), None, device=CPU))

    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_shows_every_image_once():
    class Noting(BrightOrDark):
        seen: list[int]

        def images(self, rows: Tensor) -> Tensor:
            self.seen = [*getattr(self, "seen", []), *rows.tolist()]
            return super().images(rows)

    images = Noting(40)
    spec = TrainSpec(arch="mlp", steps=8, batch=10)

    finish(train(spec, images, None, device=CPU))

    assert sorted(images.seen[:40]) == sorted(images.seen[40:]) == list(range(40))
    assert images.seen[:40] != images.seen[40:]


def test_a_set_smaller_than_a_batch_is_one_batch():
    trained = finish(
        train(TrainSpec(arch="mlp", steps=2, batch=64), BrightOrDark(6), None, device=CPU)
    )

    assert trained.steps == 2


def test_a_diverged_training_names_the_step():
    spec = TrainSpec(arch="mlp", steps=50, optimizer="sgd", lr=1e30, schedule="constant")

    with pytest.raises(DivergedError, match=r"training of mlp, step \d+: the loss became"):
        finish(train(spec, BrightOrDark(), None, device=CPU))


def test_the_result_is_frozen_and_knows_its_classes():
    classifier = finish(train(SPEC, BrightOrDark(), None, device=CPU)).classifier

    assert classifier.class_names == ("dark", "bright")
    assert not any(p.requires_grad for p in classifier.parameters())


def test_the_average_of_one_step_is_that_step():
    plain = TrainSpec(arch="mlp", steps=1)

    averaged = plain.model_copy(update={"ema": 0.99})

    first = finish(train(plain, BrightOrDark(), None, device=CPU))
    second = finish(train(averaged, BrightOrDark(), None, device=CPU))
    assert all(map(torch.equal, weights(first), weights(second)))


def test_cosine_with_warmup_rises_then_falls_to_almost_nothing():
    spec = TrainSpec(arch="mlp", steps=10, warmup=0.2)

    factors = [learning_rate_factor(spec, step, 10) for step in range(10)]

    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[-1] == pytest.approx(0.038, abs=1e-3)  # (1 + cos(7/8 pi)) / 2


def test_constant_without_warmup_is_one():
    spec = TrainSpec(arch="mlp", steps=10, schedule="constant")

    assert {learning_rate_factor(spec, step, 10) for step in range(10)} == {1.0}


EPOCHS = TrainSpec(arch="convnet2-w4", epochs=4, batch=10, lr=1e-2, augment="flip_shift")


def test_epochs_are_as_many_steps_as_they_have_whole_batches():
    reports = list(train(EPOCHS, BrightOrDark(48), None, device=CPU))

    assert [report.done for report in reports] == list(range(1, 17))  # 4 of 48 // 10
    assert {report.total for report in reports} == {16}


def test_epochs_give_the_weights_of_as_many_steps():
    counted = TrainSpec(arch="convnet2-w4", steps=16, batch=10, lr=1e-2, augment="flip_shift")

    first = finish(train(EPOCHS, BrightOrDark(), None, device=CPU))

    second = finish(train(counted, BrightOrDark(), None, device=CPU))
    assert all(map(torch.equal, weights(first), weights(second)))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_checkpoint_of_an_epoch_is_what_the_whole_training_passes_through(ema):
    whole = EPOCHS.model_copy(update={"ema": ema})
    part = "net" if ema is None else "ema"
    passed: State = {}
    for report in train(whole, BrightOrDark(), None, device=CPU):
        if report.done == 12 and report.snapshot is not None:
            passed = report.snapshot()

    third = whole.model_copy(update={"checkpoint_epoch": 3})
    taken = finish(train(third, BrightOrDark(), None, device=CPU))

    assert taken.steps == 12
    found = taken.classifier.state_dict()
    assert all(torch.equal(found[name], passed[f"{part}/{name}"]) for name in found)


def test_a_shorter_training_is_not_the_checkpoint_of_a_longer_one():
    taken = EPOCHS.model_copy(update={"checkpoint_epoch": 3})
    short = EPOCHS.model_copy(update={"epochs": 3})

    first = finish(train(taken, BrightOrDark(), None, device=CPU))

    second = finish(train(short, BrightOrDark(), None, device=CPU))
    assert first.steps == second.steps
    assert not torch.equal(weights(first)[0], weights(second)[0])


def test_a_checkpoint_under_a_constant_rate_is_the_shorter_training():
    taken = EPOCHS.model_copy(update={"checkpoint_epoch": 3, "schedule": "constant"})
    short = EPOCHS.model_copy(update={"epochs": 3, "schedule": "constant"})

    first = finish(train(taken, BrightOrDark(), None, device=CPU))

    second = finish(train(short, BrightOrDark(), None, device=CPU))
    assert all(map(torch.equal, weights(first), weights(second)))


def test_epochs_of_a_set_smaller_than_a_batch_are_single_steps():
    spec = TrainSpec(arch="mlp", epochs=5, checkpoint_epoch=2, batch=64)

    assert finish(train(spec, BrightOrDark(6), None, device=CPU)).steps == 2


def test_no_augmentation_is_the_same_object():
    images = torch.rand(2, 1, 8, 8)

    assert augment(images, "none", seed=0) is images


@pytest.mark.parametrize("how", ["shift", "flip_shift", "crop_flip"])
def test_augmentation_depends_on_its_seed_alone(how: str):
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    again = augment(images, how, seed=3)

    assert torch.equal(augment(images, how, seed=3), again)
    assert not torch.equal(augment(images, how, seed=4), again)


def test_predictions_do_not_depend_on_the_batch():
    classifier = finish(train(SPEC, BrightOrDark(), None, device=CPU)).classifier

    whole = predict(classifier, BrightOrDark(11), device=CPU)

    parts = predict(classifier, BrightOrDark(11), device=CPU, batch=4)
    torch.testing.assert_close(parts, whole)


def test_accuracy_is_the_share_of_right_answers():
    classifier = finish(train(SPEC, BrightOrDark(), None, device=CPU)).classifier
    images = BrightOrDark(10)
    right = (predict(classifier, images, device=CPU).argmax(1) == images.labels).sum().item()

    assert accuracy(classifier, images, device=CPU) == pytest.approx(right / 10)


def test_measuring_does_not_change_the_mode():
    classifier = finish(train(SPEC, BrightOrDark(), None, device=CPU)).classifier.train()

    predict(classifier, BrightOrDark(4), device=CPU)

    assert classifier.training


def test_the_accuracy_on_nothing_is_refused():
    classifier = finish(train(SPEC, BrightOrDark(), None, device=CPU)).classifier

    with pytest.raises(ValueError, match="on no images"):
        accuracy(classifier, BrightOrDark(0), device=CPU)
