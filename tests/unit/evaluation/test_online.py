"""Augmented and mixed batches, labels made online, and the best epoch beside the last."""

import pytest
import torch

from distillhub.errors import DataError
from distillhub.evaluation import training
from distillhub.evaluation.feed import Space, hard_feed
from distillhub.evaluation.protocol import Protocol
from distillhub.evaluation.runner import feed_of, run
from distillhub.evaluation.training import fit, loss, online
from distillhub.models.zoo import build
from distillhub.ops.cutmix import Mix
from distillhub.ops.progress import Progress, State
from distillhub.records.report import TIMES_AND_HOSTS, Run
from tests.unit.evaluation.sets import CLASS_NAMES, MEAN, STD, Pictures, finish, plan

CPU = torch.device("cpu")
SPACE = Space((8, 8), MEAN, STD, CPU)
NATIVE = Protocol(
    name="native",
    summary="",
    regimes=("hard", "soft_online"),
    size=8,
    test_side=10,
    epochs=12,
    batch=5,
    whole_batches=True,
    optimizer="adamw",
    lr=0.01,
    weight_decay=0.01,
    decay_vectors=False,
    schedule="half_cosine",
    augment="rrc_flip",
    crop=(0.5, 1.0),
    jitter=0.4,
    lighting=0.1,
    cutmix=True,
    temperature=20.0,
    scaled=False,
    best_every=2,
    best_last=0.5,
)
PLAIN = NATIVE.plain()


def network(seed=0, side=8, arch="convnet1-w4", channels=1):
    half = (0.4,) * channels
    return build(
        arch, num_classes=3, channels=channels, height=side, width=side, mean=half, std=half,
        seed=seed,
    )  # fmt: skip


def begin(arm="syn_soft_online", *, protocol=NATIVE, state=None, teacher=None, arch="convnet1-w4"):
    channels = 1 if arch.startswith("convnet") else 3
    return run(
        plan(arm).model_copy(update={"regime": "soft_online", "arch": arch})
        if arm.endswith("online")
        else plan(arm).model_copy(update={"arch": arch}),
        train=Pictures(channels=channels),
        test=Pictures(30, seed=9, channels=channels),
        class_names=CLASS_NAMES,
        mean=MEAN * channels,
        std=STD * channels,
        device=CPU,
        protocol=protocol,
        labellers=[(teacher or network(7)).freeze()],
        state=state,
    )


def result(made: Run):
    return made.model_dump(exclude=set(TIMES_AND_HOSTS))


def with_snapshots(work):
    snapshots: dict[int, State] = {}

    def keep(report: Progress) -> None:
        if report.snapshot is not None:
            snapshots[report.done] = report.snapshot()

    return finish(work, keep), snapshots


def test_dsco_check_17_the_soft_loss_is_zero_for_identical_logits():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    value = loss(logits, logits.clone(), temperature=20.0, scaled=False)

    assert value.item() == pytest.approx(0, abs=1e-7)


def test_dsco_check_17_a_restricted_teacher_has_the_rows_of_the_full_head():
    full, kept = network(3), network(3)
    kept.net.keep_outputs([2, 0])
    pixels = Pictures().pixels

    assert kept.freeze()(pixels).allclose(full.freeze()(pixels)[:, [2, 0]], atol=1e-6)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn():
    student = network()
    student.train()
    labeller = online([student], student)

    report = next(
        fit(student, hard_feed(Pictures(), SPACE), NATIVE, seed=0, what="x", labeller=labeller)
    )

    # weight decay moves student and teacher alike, so the two stay one
    assert report.metrics["loss"] == pytest.approx(0, abs=1e-6)


def test_the_teacher_sees_the_batch_that_the_student_sees(monkeypatch):
    seen, shown = [], []
    student = network()
    original = student.normalized
    monkeypatch.setattr(student, "normalized", lambda x: shown.append(x) or original(x))

    def labeller(x):
        seen.append(x)
        return torch.zeros(len(x), 3)

    list(fit(student, hard_feed(Pictures(), SPACE), NATIVE, seed=0, what="x", labeller=labeller))

    assert all(a is b for a, b in zip(seen, shown, strict=True))


def test_the_batch_is_mixed_before_it_is_labelled(monkeypatch):
    monkeypatch.setattr(
        training, "draw_mix", lambda n, h, w, **_: Mix(torch.arange(n).flip(0), (0, 0, h, w), 0.0)
    )
    protocol = PLAIN.model_copy(update={"cutmix": True, "augment": "none"})
    seen = []

    def labeller(x):
        seen.append(x)
        return torch.zeros(len(x), 3)

    work = fit(
        network(), hard_feed(Pictures(), SPACE), protocol, seed=0, what="x", labeller=labeller
    )
    next(work)
    monkeypatch.setattr(training, "mixed", lambda x, _: x.flip(0))
    again = []
    work = fit(
        network(), hard_feed(Pictures(), SPACE), protocol, seed=0, what="x",
        labeller=lambda x: again.append(x) or torch.zeros(len(x), 3),
    )  # fmt: skip
    next(work)

    assert all(a.equal(b) for a, b in zip(seen, again, strict=True))


def test_a_teacher_looks_at_its_own_size_and_normalisation():
    teacher, student = network(1, side=16).freeze(), network(2)
    pixels = Pictures().pixels

    labels = online([teacher], student)(student.normalize(pixels))

    larger = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", align_corners=False)
    assert labels.allclose(teacher(larger), atol=1e-5)


def test_an_online_run_without_a_teacher_is_refused():
    planned = plan("syn_soft_online").model_copy(update={"regime": "soft_online"})
    work = run(
        planned, train=Pictures(), test=Pictures(), class_names=CLASS_NAMES, mean=MEAN, std=STD,
        device=CPU, protocol=NATIVE,
    )  # fmt: skip

    with pytest.raises(DataError, match="no teacher to label the batches"):
        next(work)


def test_logits_of_single_images_do_not_label_mixed_ones():
    mix = Mix(torch.arange(2), (0, 0, 1, 1), 0.9)

    with pytest.raises(ValueError, match="labels of single images"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=4.0, scaled=True, mix=mix)


@pytest.mark.parametrize("arm", ["syn_hard", "syn_soft_online"])
@pytest.mark.parametrize("cut", [10, 24, 30])
def test_a_native_run_that_was_cut_ends_like_one_that_was_not(arm, cut):
    whole, snapshots = with_snapshots(begin(arm))

    resumed = finish(begin(arm, state=snapshots[cut]))

    assert result(resumed) == result(whole)


def test_another_teacher_gives_another_result():
    first, second = finish(begin(teacher=network(7))), finish(begin(teacher=network(8)))

    assert first.nll != second.nll


def test_the_best_epoch_is_kept_beside_the_last(monkeypatch):
    from distillhub.evaluation import runner

    tops = iter([0.2, 0.5, 0.4, 0.5, 0.3])  # after epochs 8, 10 and the last; 12 images, 3 steps
    original = runner.score

    def scripted(*args, **kwargs):
        return original(*args, **kwargs)._replace(top1=next(tops))

    monkeypatch.setattr(runner, "score", scripted)

    made = finish(begin("syn_hard"))

    assert (made.best_top1, made.best_epoch, made.top1) == (0.5, 10, 0.4)


def test_a_run_that_looks_at_the_end_only_has_no_best():
    made = finish(begin("syn_hard", protocol=NATIVE.model_copy(update={"best_every": None})))

    assert made.best_top1 is None
    assert "best_top1" not in made.model_dump()


def test_looking_does_not_change_what_is_learned():
    arch = "convnet1-w4-bn"  # whose eval mode is another than its train mode
    seen = finish(begin("syn_hard", arch=arch))

    blind = NATIVE.model_copy(update={"best_every": None})
    blind = finish(begin("syn_hard", protocol=blind, arch=arch))

    assert (seen.nll, seen.top1) == (blind.nll, blind.top1)


def test_students_learn_under_crops_colours_and_mixing():
    protocol = NATIVE.model_copy(update={"epochs": 150, "jitter": 0.1, "best_every": None})

    assert finish(begin("syn_hard", protocol=protocol)).top1 > 0.8


def test_layers_that_drop_at_random_are_repeatable_and_resumable():
    protocol = PLAIN.model_copy(
        update={"size": 32, "test_side": 32, "epochs": 4, "best_every": None}
    )
    arch = "torchvision:mobilenet_v2"
    before = torch.get_rng_state()
    whole, snapshots = with_snapshots(begin("syn_hard", protocol=protocol, arch=arch))

    torch.rand(3)
    resumed = finish(begin("syn_hard", protocol=protocol, arch=arch, state=snapshots[10]))

    assert result(resumed) == result(whole)
    torch.set_rng_state(before)


def test_test_images_are_covered_and_cut_in_the_middle():
    space = SPACE._replace(covered=12, mean=(0.0,), std=(1.0,))
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))

    assert space.prepare(images).equal(images[..., 2:10, 2:10])


def test_crops_are_cut_out_of_the_images_as_stored():
    space = Space((4, 4), MEAN, STD, CPU, covered=6)
    protocol = NATIVE.model_copy(update={"size": 4, "test_side": 6})

    inputs, _ = feed_of("hard", protocol, Pictures(), space, "x", 3).batch(
        torch.tensor([0]), torch.tensor([0])
    )

    assert inputs.shape == (1, 1, 8, 8)
    assert inputs[0].allclose((Pictures().pixels[0] - 0.5) / 0.25)


def test_plain_arms_see_training_images_as_the_test_does():
    space = Space((4, 4), MEAN, STD, CPU, covered=6)
    protocol = NATIVE.model_copy(update={"size": 4, "test_side": 6}).plain()

    inputs, _ = feed_of("hard", protocol, Pictures(), space, "x", 3).batch(
        torch.tensor([0]), torch.tensor([0])
    )

    assert inputs.equal(space.prepare(Pictures().pixels[:1]))
