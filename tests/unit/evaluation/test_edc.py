"""MSE-GT, mixing and stored views, RandAugment and shuffled patches, as protocols ask for them."""

import pytest
import torch

from distillhub.errors import DataError
from distillhub.evaluation import training
from distillhub.evaluation.arms import arms_of
from distillhub.evaluation.feed import Space, epoch_rows, hard_feed
from distillhub.evaluation.protocol import Protocol
from distillhub.evaluation.runner import feed_of, run
from distillhub.evaluation.specs import EvalSpec
from distillhub.evaluation.training import _augmented, fit, loss, online
from distillhub.models.zoo import build
from distillhub.ops import randaugment
from distillhub.ops.cutmix import Mix, mixed, mixed_cross_entropy
from distillhub.ops.losses import cross_entropy
from distillhub.ops.patches import shuffle_patches
from distillhub.records.report import TIMES_AND_HOSTS
from tests.unit.evaluation.sets import CLASS_NAMES, MEAN, STD, Pictures, SoftPictures, finish, plan

CPU = torch.device("cpu")
SPACE = Space((8, 8), MEAN, STD, CPU)
EDC = Protocol(
    name="small-edc",
    summary="",
    regimes=("hard", "soft_stored", "soft_online"),
    size=8,
    epochs=8,
    batch=5,
    optimizer="adamw",
    lr=0.01,
    weight_decay=0.01,
    decay_vectors=False,
    schedule="smoothing",
    zeta=2.0,
    ema=0.9,
    augment="rrc_flip",
    crop=(0.5, 1.0),
    randaugment=True,
    cutmix=True,
    loss="mse_gt",
    ce_weight=0.025,
    best_every=3,
    best_last=1.0,
)
BARE = EDC.plain().model_copy(update={"ema": None, "ce_weight": 0.0})
STEADY = {"schedule": "alrs", "zeta": None, "gamma": 0.5, "lr": 1e-5, "batch": 4}
ALRS = BARE.model_copy(update=STEADY)
"""Its loss hardly changes: without batch norm that of an image does not depend on its batch."""
MIXUP = EDC.model_copy(update={"cutmix": False, "mixup": 0.8})
SHUFFLED = EDC.model_copy(update={"shuffle_patches": 2, "randaugment": False})
LIMITS = {"temperature": 4.0, "scaled": True}
REGIMES = {"syn_hard": "hard", "syn_soft": "soft_stored", "syn_soft_online": "soft_online"}


def network(seed=0, side=8):
    return build(
        "convnet1-w4-bn", num_classes=3, channels=1, height=side, width=side, mean=MEAN, std=STD,
        seed=seed,
    )  # fmt: skip


def begin(arm, protocol=EDC, *, train=None, state=None, labellers=None):
    arch = "convnet1-w4" if protocol.schedule == "alrs" else "convnet1-w4-bn"
    fields = {"regime": REGIMES[arm], "arch": arch}
    return run(
        plan(arm).model_copy(update=fields),
        train=train or (SoftPictures(views=3) if arm == "syn_soft" else Pictures()),
        test=Pictures(30, seed=9),
        class_names=CLASS_NAMES,
        mean=MEAN,
        std=STD,
        device=CPU,
        protocol=protocol,
        labellers=[network(7).freeze(), network(8).freeze()] if labellers is None else labellers,
        state=state,
    )


def result(made):
    return made.model_dump(exclude=set(TIMES_AND_HOSTS))


def seen_by(protocol, feed, labeller=None):
    """The batches that a student is trained on."""
    net, shown = network(), []
    original = net.normalized
    net.normalized = lambda x: shown.append(x.clone()) or original(x)
    list(fit(net, feed, protocol, seed=0, what="x", labeller=labeller))
    return shown


def generator():
    return torch.Generator().manual_seed(3)


def test_14_12_mse_gt_is_zero_for_the_logits_of_the_label():
    logits = torch.randn(6, 3, generator=generator())

    value = loss(
        logits, logits.clone(), classes=torch.zeros(6, dtype=torch.int64), ce_weight=0.0, **LIMITS
    )

    assert value.item() == 0


def test_mse_gt_by_hand_without_a_temperature():
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [0.0, 2.0]])

    value = loss(logits, target, classes=torch.tensor([0, 1]), ce_weight=0.5, **LIMITS)

    # (1 + 0 + 0 + 4) / 4, and half the mean of log(1 + 1/e) and log 2
    assert value.item() == pytest.approx(1.25 + 0.5 * (0.3132617 + 0.6931472) / 2)


def test_classes_alone_are_trained_with_cross_entropy():
    logits, labels = torch.randn(4, 3, generator=generator()), torch.tensor([0, 1, 2, 0])

    value = loss(logits, labels, classes=labels, ce_weight=0.5, **LIMITS)

    assert value.equal(cross_entropy(logits, labels))


def test_14_12_the_label_of_one_observer_is_its_logits():
    student, observer = network(1), network(2).freeze()
    pixels = Pictures().pixels

    assert online([observer], student)(student.normalize(pixels)).allclose(
        observer(pixels), atol=1e-5
    )


def test_14_12_the_label_of_several_observers_is_the_mean_of_their_raw_logits():
    student, observers = network(1), [network(2).freeze(), network(3, side=16).freeze()]
    pixels = Pictures().pixels

    labels = online(observers, student)(student.normalize(pixels))

    larger = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", align_corners=False)
    by_hand = (observers[0](pixels) + observers[1](larger)) / 2
    assert labels.allclose(by_hand, atol=1e-5)


def test_no_observer_labels_nothing():
    with pytest.raises(ValueError, match="no network to label with"):
        online([], network())


def test_the_class_of_mse_gt_is_that_of_the_base_image_under_cutmix(monkeypatch):
    whole = lambda n, h, w, **_: Mix(torch.arange(n).flip(0), (0, 0, h, w), 0.0)  # noqa: E731
    monkeypatch.setattr(training, "draw_mix", whole)
    asked = []
    original = training.mse_gt
    monkeypatch.setattr(
        training, "mse_gt", lambda *a, **kw: asked.append((a[2], kw)) or original(*a, **kw)
    )
    pictures = Pictures()

    next(
        fit(
            network(), hard_feed(pictures, SPACE), EDC, seed=0, what="x",
            labeller=lambda x: torch.zeros(len(x), 3),
        )
    )  # fmt: skip

    first_epoch = torch.cat([classes for classes, _ in asked[:3]])
    assert first_epoch.equal(pictures.labels[epoch_rows(12, 0, 0)])
    assert asked[0][1] == {"ce_weight": 0.025}


def test_a_student_that_is_its_own_teacher_has_no_squared_error():
    student = network()
    student.eval()
    feed = hard_feed(Pictures(), SPACE)
    targets = online([student], student)
    student.train = lambda mode=True: student  # stays in eval mode, as its labels are

    report = next(fit(student, feed, BARE, seed=0, what="x", labeller=targets))

    # weight decay moves student and teacher alike, so the two stay one
    assert report.metrics["loss"] == pytest.approx(0, abs=1e-9)


def test_a_loss_on_logits_asks_for_logits_without_a_temperature():
    asked = []

    class Asked(SoftPictures):
        def view_batch(self, rows, views, temperature, *, device=None):
            asked.append(temperature)
            return super().view_batch(rows, views, temperature, device=device)

    kl = EDC.model_copy(update={"loss": "kl", "ce_weight": None, "temperature": 20.0})
    for protocol in (EDC, kl):
        feed_of("soft_stored", protocol, Asked(views=2), SPACE, "x", 3)

    assert asked == [None, 20.0]


def test_14_13_an_empty_box_leaves_views_and_labels():
    x, labels = Pictures().pixels, Pictures().labels
    logits = torch.randn(12, 3, generator=generator())
    mix = Mix(torch.arange(12).flip(0), (0, 0, 0, 0), 1.0)

    assert mixed(x, mix).equal(x)
    assert mixed_cross_entropy(logits, labels, mix).equal(cross_entropy(logits, labels))


def test_14_13_a_full_box_is_the_partners_view():
    x, labels = Pictures().pixels, Pictures().labels
    logits = torch.randn(12, 3, generator=generator())
    mix = Mix(torch.arange(12).flip(0), (0, 0, 8, 8), 0.0)

    assert mixed(x, mix).equal(x.flip(0))
    partners = cross_entropy(logits, labels.flip(0))
    assert mixed_cross_entropy(logits, labels, mix).equal(partners)


def test_stored_views_are_shown_as_they_are_under_cutmix():
    soft = SoftPictures(views=3)
    stored = {(shown := soft.pixels[row].roll(v, 2)).numpy().tobytes() for row in range(12)
              for v in range(3)}  # fmt: skip
    assert shown.shape == (1, 8, 8)

    batches = seen_by(EDC, feed_of("soft_stored", EDC, soft, SPACE, "x", 3))

    pixels = (torch.cat(batches) * 0.25 + 0.5).numpy()
    near = torch.stack([torch.frombuffer(bytearray(s), dtype=torch.float32) for s in stored])
    found = torch.cdist(torch.from_numpy(pixels).flatten(1).double(), near.double()).amin(1)
    assert found.max().item() < 1e-5


@pytest.mark.parametrize("regime", ["hard", "soft_stored", "soft_online"])
def test_crops_and_stored_views_come_at_the_size_of_the_student(regime):
    protocol = EDC.model_copy(update={"augment": "rrc", "crop": (0.7, 1.0), "size": 16})
    sixteen = SPACE._replace(resolution=(16, 16))

    feed = feed_of(regime, protocol, SoftPictures(views=2), sixteen, "x", 3)

    shown, _ = feed.batch(torch.tensor([0, 5]), torch.tensor([0, 0]))
    cut_later = feed.augmented  # out of the image as stored, which has 8 pixels
    assert shown.shape[2:] == ((8, 8) if cut_later else (16, 16))
    assert cut_later == (regime != "soft_stored")


def test_hard_arms_of_the_same_protocol_are_mixed(monkeypatch):
    drawn = []
    original = training.draw_mix
    monkeypatch.setattr(
        training, "draw_mix", lambda *a, **kw: drawn.append(1) or original(*a, **kw)
    )

    seen_by(EDC, hard_feed(Pictures(), SPACE))
    hard = len(drawn)
    seen_by(EDC, feed_of("soft_stored", EDC, SoftPictures(views=3), SPACE, "x", 3))

    assert (hard, len(drawn)) == (24, 24)


def test_mixup_blends_the_batch_before_it_is_labelled(monkeypatch):
    asked, labelled = [], []
    mix = Mix(torch.arange(12).flip(0), (0, 0, 0, 0), 0.25)
    monkeypatch.setattr(training, "draw_mixup", lambda n, a, **_: asked.append((n, a)) or mix)
    protocol = BARE.model_copy(update={"mixup": 0.8, "batch": 12, "epochs": 1})
    feed = hard_feed(Pictures(), SPACE)

    (shown,) = seen_by(protocol, feed, lambda x: labelled.append(x) or torch.zeros(len(x), 3))

    rows = epoch_rows(12, 0, 0)
    x, _ = feed.batch(rows, torch.zeros_like(rows))
    assert asked == [(12, 0.8)]
    assert shown.allclose(0.25 * x + 0.75 * x.flip(0))
    assert shown.equal(labelled[0])


@pytest.mark.parametrize("protocol", [EDC, MIXUP], ids=["cutmix", "mixup"])
def test_labels_of_whole_images_are_refused_where_images_are_mixed(protocol):
    work = begin("syn_soft", protocol, train=SoftPictures(whole=True))

    with pytest.raises(DataError, match="mixes images, and the stored labels are of whole ones"):
        next(work)


def test_labels_of_whole_images_do_where_nothing_is_mixed():
    protocol = EDC.model_copy(update={"cutmix": False})

    assert finish(begin("syn_soft", protocol, train=SoftPictures(whole=True))).steps == 24


def test_a_recipe_with_labels_of_whole_images_is_refused_before_work_starts():
    spec = EvalSpec(protocol="edc-in1k-1")

    with pytest.raises(ValueError, match=r"edc-in1k-1 mixes images.*need a views: block"):
        arms_of(spec, "x", soft=True, whole=True)
    assert "syn_soft" in arms_of(spec, "x", soft=True, whole=False)
    assert arms_of(EvalSpec(protocol="edc-in1k-1", arms=("syn_hard",)), "x", soft=True, whole=True)
    assert "syn_soft" in arms_of(EvalSpec(protocol="edc-digits-1"), "x", soft=True, whole=True)


def test_randaugment_sees_the_image_as_stored():
    net, pictures = network(), Pictures()
    protocol = BARE.model_copy(update={"randaugment": True})
    x = net.normalize(pictures.pixels)

    shown = _augmented(x, protocol, net, generator())

    ops = randaugment.draw(12, generator=generator())
    assert net.denormalize(shown).allclose(randaugment.apply(pictures.pixels, ops), atol=1e-5)
    assert not shown.allclose(x, atol=0.1)


def test_randaugment_comes_before_the_crop():
    net, pictures = network(), Pictures()
    x, source = net.normalize(pictures.pixels), generator()
    cropped = EDC.model_copy(update={"randaugment": False})

    shown = _augmented(x, EDC, net, generator())

    changed = randaugment.apply(pictures.pixels, randaugment.draw(12, generator=source))
    assert shown.allclose(_augmented(net.normalize(changed), cropped, net, source), atol=1e-5)


def test_patches_are_shuffled_before_the_crop():
    net, source = network(), generator()
    x = net.normalize(Pictures().pixels)
    cropped = SHUFFLED.model_copy(update={"shuffle_patches": None})

    shown = _augmented(x, SHUFFLED, net, generator())

    moved = shuffle_patches(x, 2, generator=source)
    assert shown.equal(_augmented(moved, cropped, net, source))
    assert not moved.equal(x)


def test_a_crop_of_the_whole_area_shows_the_image_or_its_mirror():
    net = network()
    x = net.normalize(Pictures().pixels)
    whole = SHUFFLED.model_copy(update={"shuffle_patches": None, "crop": (1.0, 1.0)})

    shown = _augmented(x, whole, net, generator())

    as_is = (shown - x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (shown - x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert bool((as_is | mirrored).all())
    assert bool(as_is.any())
    assert bool(mirrored.any())


def test_shifts_move_by_at_most_an_eighth_of_the_side():
    x = torch.zeros(200, 1, 16, 16)
    x[:, :, 8, 8] = 1.0

    moved = training.augment(x, "shift_flip", generator()).nonzero()

    assert set(moved[:, 2].tolist()) == {6, 7, 8, 9, 10}
    assert set(moved[:, 3].tolist()) == {5, 6, 7, 8, 9, 10}  # a flip puts column 8 at 7


def test_plain_arms_are_left_alone():
    bare = EDC.model_copy(update={"shuffle_patches": 2, "mixup": 0.8}).plain()
    x = network().normalize(Pictures().pixels)

    assert _augmented(x, bare, network(), generator()).equal(x)
    assert not bare.mixes


@pytest.mark.parametrize("cut", [10, 20, 24])
@pytest.mark.parametrize(
    ("arm", "protocol"),
    [
        ("syn_hard", EDC),
        ("syn_soft", EDC),
        ("syn_soft_online", EDC),
        ("syn_soft_online", ALRS),
        ("syn_hard", MIXUP),
        ("syn_hard", SHUFFLED),
    ],
    ids=["hard", "stored", "online", "alrs", "mixup", "shuffled"],
)
def test_a_run_that_was_cut_ends_like_one_that_was_not(arm, protocol, cut):
    snapshots = {}
    whole = finish(begin(arm, protocol), lambda r: snapshots.update({r.done: r.snapshot()}))

    resumed = finish(begin(arm, protocol, state=snapshots[cut]))

    assert result(resumed) == result(whole)


def test_alrs_changes_what_is_learned():
    other = ALRS.model_copy(update={"gamma": 0.9})

    assert finish(begin("syn_soft_online", ALRS)).nll != finish(begin("syn_soft_online", other)).nll


def test_14_09_the_average_is_what_is_tested():
    first = EDC.model_copy(update={"ema": 1.0})
    blind = first.model_copy(update={"best_every": None})
    last = EDC.model_copy(update={"ema": None, "best_every": None})

    assert finish(begin("syn_hard", first)).nll == finish(begin("syn_hard", blind)).nll
    assert finish(begin("syn_hard", first)).nll != finish(begin("syn_hard", last)).nll


def test_looking_at_the_average_does_not_change_what_is_learned():
    blind = EDC.model_copy(update={"best_every": None})

    assert finish(begin("syn_hard")).nll == finish(begin("syn_hard", blind)).nll


def test_students_learn_with_all_of_it():
    long = EDC.model_copy(update={"epochs": 100, "best_every": None, "randaugment": False})
    taught = SoftPictures(views=1)
    taught.views = None
    whole = long.model_copy(update={"cutmix": False})

    assert finish(begin("syn_soft", whole, train=taught)).top1 > 0.8
