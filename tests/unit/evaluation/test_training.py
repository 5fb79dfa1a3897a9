"""Training: exactly the protocol's steps and rates, one loss for hard and one-hot soft labels."""

import pytest
import torch

from distillhub.errors import DivergedError
from distillhub.evaluation import training
from distillhub.evaluation.feed import Space, hard_feed, soft_feed
from distillhub.evaluation.training import augment, fit, loss
from distillhub.models.zoo import build
from tests.unit.evaluation.sets import CLASS_NAMES, MEAN, STD, TINY, Pictures, SoftPictures

SPACE = Space((8, 8), MEAN, STD, torch.device("cpu"))


def student(seed=0):
    return build(
        "convnet1-w4",
        num_classes=len(CLASS_NAMES),
        channels=1,
        height=8,
        width=8,
        mean=MEAN,
        std=STD,
        seed=seed,
    )


def spy_on_optimizers(monkeypatch):
    """The rates of all steps, and how many optimizers were made."""
    rates, made = [], []

    class Spy(torch.optim.SGD):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    return rates, made


def test_classic_check_07_every_step_has_the_rate_of_the_schedule(monkeypatch):
    rates, _ = spy_on_optimizers(monkeypatch)

    list(fit(student(), hard_feed(Pictures(), SPACE), TINY, seed=0, what="x"))

    assert rates == [0.05] * 12 + [0.005] * 12


def test_classic_check_07_the_rate_falls_with_a_fresh_optimizer(monkeypatch):
    _, made = spy_on_optimizers(monkeypatch)

    list(fit(student(), hard_feed(Pictures(), SPACE), TINY, seed=0, what="x"))

    assert len(made) == 2


def test_reports_come_every_ten_steps_and_at_the_end():
    reports = fit(student(), hard_feed(Pictures(), SPACE), TINY, seed=0, what="x")

    assert [report.done for report in reports] == [10, 20, 24]


def test_the_loss_falls():
    protocol = TINY.model_copy(update={"steps": 60, "drop_after": 50, "augment": "none"})

    reports = list(fit(student(), hard_feed(Pictures(), SPACE), protocol, seed=0, what="x"))

    assert reports[-1].metrics["loss"] < reports[0].metrics["loss"] / 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_bfloat16_is_autocast_and_leaves_float32_weights(optimizer):
    fields = {"precision": "bfloat16", "optimizer": optimizer, "augment": "none"}
    trained = student()

    list(
        fit(trained, hard_feed(Pictures(), SPACE), TINY.model_copy(update=fields), seed=0, what="x")
    )

    assert {p.dtype for p in trained.parameters()} == {torch.float32}


def test_an_infinite_loss_names_run_and_steps():
    pictures = Pictures()
    pictures.pixels[3] = float("inf")

    with pytest.raises(DivergedError, match=r"run syn_hard\.s0, step 1 to 10: the training loss"):
        list(fit(student(), hard_feed(pictures, SPACE), TINY, seed=0, what="syn_hard.s0"))


def test_one_hot_soft_labels_give_the_loss_of_hard_ones():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    one_hot = 1e4 * torch.nn.functional.one_hot(labels, 3).float()

    soft = loss(logits, one_hot, temperature=1.0, scaled=True)

    hard = loss(logits, labels, temperature=1.0, scaled=True)
    assert soft.item() == pytest.approx(hard.item(), rel=1e-6)


def test_the_soft_loss_is_zero_where_the_student_agrees():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    value = loss(logits, logits + 2, temperature=4.0, scaled=True)

    assert value.item() == pytest.approx(0, abs=1e-6)


def test_scaling_multiplies_by_the_temperature_squared():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    plain = loss(logits, logits.flip(1), temperature=4.0, scaled=False)

    scaled = loss(logits, logits.flip(1), temperature=4.0, scaled=True)

    assert scaled.item() == pytest.approx(16 * plain.item())


@pytest.mark.parametrize("how", ["none", "rrc", "rrc_flip", "dsa:crop_cutout"])
def test_augmentation_keeps_shape_and_argument(how):
    x = Pictures().pixels
    before = x.clone()

    augmented = augment(x, how, torch.Generator().manual_seed(0))

    assert augmented.shape == x.shape
    assert x.equal(before)


@pytest.mark.parametrize("crop", [None, (0.5, 1.0)])
@pytest.mark.parametrize(("how", "flips"), [("rrc", 0), ("rrc_flip", TINY.steps)])
def test_crops_are_flipped_where_the_protocol_says_so(how, flips, crop, monkeypatch):
    seen = []

    def spy(x, generator):
        seen.append(len(x))
        return x

    monkeypatch.setattr(training, "flip", spy)
    protocol = TINY.model_copy(update={"augment": how, "crop": crop, "size": 8})

    list(fit(student(), hard_feed(Pictures(), SPACE), protocol, seed=0, what="x"))

    assert len(seen) == flips


def test_every_step_is_augmented_anew(monkeypatch):
    drawn = []

    def spy(x, how, generator):
        drawn.append(generator.initial_seed())
        return x

    monkeypatch.setattr(training, "augment", spy)

    list(fit(student(), hard_feed(Pictures(), SPACE), TINY, seed=0, what="x"))

    assert len(set(drawn)) == TINY.steps


@pytest.mark.parametrize(("whole", "calls"), [(True, TINY.steps), (False, 0)])
def test_stored_views_are_shown_as_they_are(whole, calls, monkeypatch):
    drawn = []

    def spy(x, how, generator):
        drawn.append(how)
        return x

    monkeypatch.setattr(training, "augment", spy)
    feed = soft_feed(SoftPictures(views=1, whole=whole), SPACE, temperature=4.0, steps_images=99)

    list(fit(student(), feed, TINY, seed=0, what="x"))

    assert len(drawn) == calls
