"""The 224-pixel protocols: rates, batches and lengths against numbers worked out by hand."""

import math

import pytest
import torch

from distillhub.evaluation import protocols
from distillhub.evaluation.training import _optimizer
from distillhub.models.zoo import build

HARD, SOFT = protocols.get("dsco-hard-1"), protocols.get("dsco-soft-1")
LOW, HIGH = protocols.get("dsco-in1k-1"), protocols.get("dsco-in1k-high-1")


def rate_of_epoch(protocol, epoch, images, classes=10):
    length = protocol.length(images, classes)
    return protocol.rate(epoch * length.per_epoch, length)


@pytest.mark.parametrize(("images", "batch"), [(100, 50), (500, 50), (1000, 50), (2000, 64)])
def test_hard_batches_divide_the_set_up_to_100_images_per_class(images, batch):
    length = HARD.length(images, 10)

    assert length.batch == batch
    assert length.lr == pytest.approx(1e-3 * batch / 64)  # 7.8125e-4 for 50


@pytest.mark.parametrize(("images", "batch"), [(1000, 50), (6000, 60), (7000, 56)])
def test_the_script_has_batches_that_divide_every_set(images, batch):
    length = protocols.get("dsco-soft-script-1").length(images, 10)

    assert length.batch == batch
    assert length.lr == pytest.approx(1e-3 * batch / 64)


def test_the_paper_has_batches_of_64_at_the_full_rate():
    length = protocols.get("dsco-hard-paper-1").length(100, 10)

    assert (length.batch, length.per_epoch, length.lr) == (64, 2, 1e-3)


@pytest.mark.parametrize(
    ("name", "images", "epochs"),
    [
        ("dsco-hard-1", 100, 2000),
        ("dsco-hard-1", 500, 1500),
        ("dsco-hard-1", 1000, 1000),
        ("dsco-soft-1", 2000, 1000),
        ("dsco-soft-1", 2010, 500),
        ("dsco-soft-script-1", 7000, 1000),
    ],
)
def test_small_sets_train_for_more_epochs(name, images, epochs):
    assert protocols.get(name).length(images, 10).epochs == epochs


def test_lengths_by_images_per_class_need_the_classes():
    with pytest.raises(ValueError, match="the classes are not given"):
        HARD.length(100)


def test_milestones_are_at_two_thirds_and_five_sixths():
    base = 1e-3 * 50 / 64  # 2000 epochs of 100 images: milestones 1333 and 1666

    rates = [rate_of_epoch(HARD, epoch, 100) for epoch in (0, 1332, 1333, 1665, 1666, 1999)]

    assert rates == pytest.approx([base, base, base / 5, base / 5, base / 25, base / 25])


def test_half_a_cosine_ends_at_half_of_the_rate():
    rates = [rate_of_epoch(SOFT, epoch, 7000) for epoch in (0, 250, 499)]

    assert rates[0] == 1e-3
    assert rates[1] == pytest.approx(1e-3 * (1 + math.sqrt(0.5)) / 2)  # 0.5 (1 + cos(pi / 4))
    assert rates[2] == pytest.approx(5e-4, rel=0.005)
    assert rates[2] > 5e-4


def test_the_rate_stays_within_an_epoch():
    length = SOFT.length(7000, 10)

    assert len({SOFT.rate(step, length) for step in range(length.per_epoch)}) == 1


def test_warm_up_rises_from_a_tenth_and_the_cosine_falls_to_nothing():
    epochs = (0, 5, 10, 55, 99)

    rates = [rate_of_epoch(HIGH, epoch, 64_000, 1000) for epoch in epochs]

    assert rates[:4] == pytest.approx([1e-4, 5.5e-4, 1e-3, 5e-4])
    assert rates[4] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 89 / 90)) / 2)


@pytest.mark.parametrize(("images", "batch"), [(10_000, 100), (50_000, 200)])
def test_imagenet_has_the_batches_of_the_code(images, batch):
    assert LOW.length(images, 1000).batch == batch


@pytest.mark.parametrize(
    ("arch", "lr"),
    [
        ("torchvision:resnet18", 1e-3),
        ("torchvision:mobilenet_v2", 2.5e-3),
        ("torchvision:efficientnet_b0", 2e-3),
    ],
)
def test_imagenet_students_have_rates_of_their_own(arch, lr):
    assert LOW.for_student(arch).length(10_000, 1000).lr == lr


@pytest.mark.parametrize(("protocol", "first"), [(HARD, 1340), (LOW, 250)])
def test_accuracy_is_looked_at_every_ten_epochs_of_the_last_part(protocol, first):
    length = protocol.length(100, 10)  # 2000 epochs: above 1333.3; 300 epochs: above 240

    epochs = sorted(step // length.per_epoch for step in protocol.looks(length))

    assert epochs == list(range(first, length.epochs, 10))


def test_other_protocols_never_look_before_the_end():
    digits = protocols.get("digits-1")

    assert digits.looks(digits.length(100)) == frozenset()


def student(arch="convnet1-w4", classes=3, side=8, channels=1):
    half = (0.5,) * channels
    return build(
        arch, num_classes=classes, channels=channels, height=side, width=side, mean=half, std=half,
        seed=0,
    )  # fmt: skip


def test_biases_and_norms_of_the_low_imagenet_protocol_do_not_decay():
    net = student()

    groups = _optimizer(net, LOW).param_groups

    assert [(g["weight_decay"], {p.ndim > 1 for p in g["params"]}) for g in groups] == [
        (0.01, {True}),
        (0.0, {False}),
    ]
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


def test_all_weights_of_the_others_decay():
    (group,) = _optimizer(student(), HIGH).param_groups

    assert group["weight_decay"] == 0.01


def test_the_students_have_the_parameters_that_the_paper_counts():
    counted = {
        arch: sum(p.numel() for p in student(arch, 10, 224, 3).parameters())
        for arch in HARD.students
    }

    assert counted == {"convnet6": 754_570, "resnetap10": 4_910_922, "resnet18-in": 11_181_642}


def test_the_students_have_instance_norm_in_groups():
    for arch in HARD.students:
        norms = [
            m for m in student(arch, 10, 224, 3).modules() if isinstance(m, torch.nn.GroupNorm)
        ]

        assert norms, arch
        assert all(m.num_groups == m.num_channels for m in norms), arch


@pytest.mark.parametrize("name", ["dsco-soft-1", "dsco-in1k-1", "dsco-in1k-high-1"])
def test_online_protocols_have_the_loss_of_the_paper(name):
    protocol = protocols.get(name)

    assert (protocol.regimes, protocol.temperature, protocol.scaled, protocol.cutmix) == (
        ("soft_online",),
        20,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        # as published reports have them; new fields of a protocol must not move them
        ("digits-1", "676f7c6ee6322ee84eb678e78f4e1757e9fe9c1eba12ac8f92299b172f0a0d82"),
        ("full-1@hard-1", "594521663664e90fcb3d06d003f1ea366884a004e092d1d0056d72ce2c281282"),
    ],
)
def test_digests_of_the_first_protocols_stay(name, digest):
    assert protocols.get(name).sha256 == digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits-1", "676f7c6ee632"),
        ("smoke-cpu-1", "72e97f2e0ff1"),
        ("lowres-1", "6797d5f0a99c"),
        ("hard-1", "621f7135fc2a"),
        ("soft-1", "aea2f65a91c0"),
        ("smoke-online-1", "0e649d1b5db6"),
        ("dsco-hard-1", "3e1b9446990b"),
        ("dsco-hard-paper-1", "019089fcc3b7"),
        ("dsco-soft-1", "f61d948619c6"),
        ("dsco-soft-script-1", "89f440cc0c9f"),
        ("dsco-in1k-1", "10c5d9b0ff23"),
        ("dsco-in1k-high-1", "9bf334d5dbb8"),
    ],
)
def test_digests_of_published_protocols_stay(name, digest):
    assert protocols.get(name).sha256.startswith(digest)


def test_the_source_is_not_in_the_digest():
    assert HARD.model_copy(update={"source": "elsewhere"}).sha256 == HARD.sha256


def test_a_field_that_says_something_changes_the_digest():
    digits = protocols.get("digits-1")

    assert digits.model_copy(update={"jitter": 0.4}).sha256 != digits.sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crop": (0.5, 1.0)}, "needs a size"),
        ({"warmup": 5}, "belongs to schedule: warmup_cosine"),
        ({"test_side": 20}, "test_side needs a size"),
        ({"cutmix": True, "mixup": 0.8}, "both mix the batch"),
        ({"zeta": 2.0}, "zeta belongs to schedule: smoothing or ssrs or linear_smooth"),
        ({"marks": (0.5,)}, "marks belongs to schedule: multistep"),
        ({"gamma": 0.5}, "gamma belongs to schedule: multistep or alrs"),
        ({"schedule": "ssrs", "drop_after": None}, "schedule: ssrs needs zeta"),
        (
            {"schedule": "multistep", "drop_after": None, "marks": (0.5,)},
            "schedule: multistep needs gamma",
        ),
        (
            {"schedule": "multistep", "drop_after": None, "marks": (0.9, 0.5), "gamma": 0.5},
            "do not rise",
        ),
        ({"ce_weight": 0.1}, "ce_weight belongs to loss: mse_gt"),
        ({"loss": "mse_gt"}, "loss: mse_gt needs ce_weight"),
        ({"loss": "mse_gt", "ce_weight": 0.1, "regimes": ("hard",)}, "is for soft labels"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(change, words):
    fields = protocols.get("lowres-1").model_dump()

    with pytest.raises(ValueError, match=words):
        protocols.Protocol(**{**fields, **change})
