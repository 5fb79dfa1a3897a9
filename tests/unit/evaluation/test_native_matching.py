"""The protocols of EDC, RDED, SRe2L and G-VBSM against the tables of their papers and scripts."""

import pytest
import torch

from distillhub.evaluation import protocols
from distillhub.evaluation.runner import images_seen
from distillhub.evaluation.training import _optimizer
from distillhub.models.zoo import build, parse_arch

SETS = ("in1k", "imagenet10", "tiny", "cifar100", "cifar10")
NAMES = (
    *(f"edc-{name}-1" for name in SETS),
    *(f"edc-{name}-script-1" for name in ("in1k", "tiny", "cifar100")),
    *(f"rded-{name}-1" for name in SETS),
    *(f"{method}-{name}-1" for method in ("sre2l", "gvbsm") for name in SETS if name[-2:] != "10"),
    "sre2l-cifar10-1",
    "gvbsm-cifar10-1",
)
DIGITS = tuple(f"edc-digits-{name}1" for name in ("", "batch-", "cosine-", "student-", "plain-"))
STORED = {
    f"{name}-1" for name in ("edc-in1k", "edc-in1k-script", "sre2l-in1k", "gvbsm-in1k")
} | set(DIGITS)


def of(name, images, classes):
    return protocols.get(name).length(images, classes)


@pytest.mark.parametrize("name", [*NAMES, *DIGITS])
def test_labels_are_stored_on_imagenet_and_made_online_elsewhere(name):
    expected = ("hard", "soft_stored") if name in STORED else ("soft_online",)
    if name.startswith("rded"):
        expected = ("soft_online",)

    assert protocols.get(name).regimes == expected


@pytest.mark.parametrize(
    ("name", "images", "classes", "batch", "epochs"),
    [
        ("edc-in1k-1", 10_000, 1000, 100, 300),
        ("edc-imagenet10-1", 100, 10, 50, 1000),
        ("edc-tiny-1", 200, 200, 100, 1000),
        ("edc-tiny-1", 2000, 200, 100, 300),
        ("edc-cifar100-1", 1000, 100, 50, 1000),
        ("edc-cifar10-1", 10, 10, 10, 1000),
        ("edc-cifar10-1", 100, 10, 25, 1000),
        ("rded-cifar10-1", 10, 10, 10, 300),
        ("rded-cifar10-1", 100, 10, 50, 300),
        ("rded-imagenet10-1", 500, 10, 100, 300),
        ("rded-cifar100-1", 100, 100, 20, 300),
        ("rded-cifar100-1", 5000, 100, 200, 300),
        ("rded-in1k-1", 10_000, 1000, 100, 300),
        ("rded-in1k-1", 50_000, 1000, 200, 300),
        ("rded-tiny-1", 200, 200, 100, 300),
        ("sre2l-in1k-1", 50_000, 1000, 1024, 300),
        ("sre2l-tiny-1", 10_000, 200, 64, 100),
        ("sre2l-cifar100-1", 1000, 100, 128, 400),
        ("gvbsm-in1k-1", 10_000, 1000, 1024, 300),
        ("gvbsm-tiny-1", 10_000, 200, 100, 100),
        ("gvbsm-cifar10-1", 500, 10, 100, 1000),
        ("gvbsm-cifar100-1", 1000, 100, 64, 1000),
    ],
)
def test_batches_and_epochs_are_those_of_the_tables(name, images, classes, batch, epochs):
    length = of(name, images, classes)

    assert (length.batch, length.epochs) == (batch, epochs)


@pytest.mark.parametrize(
    ("name", "optimizer", "lr", "momentum", "decay"),
    [
        ("edc-in1k-1", "adamw", 1e-3, None, 0.01),
        ("edc-cifar100-1", "adamw", 1e-3, None, 0.01),
        ("edc-cifar100-script-1", "sgd", 0.1, 0.875, 5e-4),
        ("edc-tiny-script-1", "sgd", 0.1, 0.875, 5e-4),
        ("rded-in1k-1", "adamw", 1e-3, None, 0.01),
        ("sre2l-in1k-1", "adamw", 1e-3, None, 0.01),
        ("sre2l-tiny-1", "sgd", 0.2, 0.9, 1e-4),
        ("gvbsm-tiny-1", "sgd", 0.1, 0.875, 5e-4),
        ("gvbsm-cifar10-1", "adamw", 1e-3, None, 0.01),
    ],
)
def test_optimizers_are_those_of_the_tables(name, optimizer, lr, momentum, decay):
    protocol = protocols.get(name)

    found = (protocol.optimizer, protocol.lr, protocol.weight_decay)
    assert found == (optimizer, lr, decay)
    assert momentum is None or protocol.momentum == momentum


@pytest.mark.parametrize(
    ("name", "loss", "weight", "temperature"),
    [
        ("edc-in1k-1", "mse_gt", 0.025, None),
        ("edc-cifar10-1", "mse_gt", 0.025, None),
        ("gvbsm-in1k-1", "mse_gt", 0.1, None),
        ("gvbsm-tiny-1", "mse_gt", 0.1, None),
        ("gvbsm-cifar100-1", "mse_gt", 0.15, None),
        ("rded-cifar10-1", "kl", None, (20.0, False)),
        ("sre2l-in1k-1", "kl", None, (20.0, False)),
        ("sre2l-tiny-1", "kl", None, (20.0, True)),
        ("sre2l-cifar100-1", "kl", None, (30.0, False)),
    ],
)
def test_losses_are_those_of_the_tables(name, loss, weight, temperature):
    protocol = protocols.get(name)

    assert (protocol.loss, protocol.ce_weight) == (loss, weight)
    assert temperature is None or (protocol.temperature, protocol.scaled) == temperature


@pytest.mark.parametrize("name", NAMES)
def test_averaged_weights_and_randaugment_are_edcs(name):
    protocol = protocols.get(name)

    assert protocol.ema == (0.99 if name.startswith("edc") else None)
    assert protocol.randaugment == (name.startswith("edc") and "in1k" not in name)


@pytest.mark.parametrize(
    ("name", "crop", "cutmix", "mixup", "shuffled"),
    [
        ("edc-in1k-1", (0.5, 1.0), True, None, None),
        ("edc-cifar100-1", (0.5, 1.0), True, None, None),
        ("edc-cifar10-1", (0.08, 1.0), True, None, None),
        ("rded-cifar10-1", (1.0, 1.0), True, None, None),
        ("rded-in1k-1", (0.5, 1.0), True, None, 2),
        ("sre2l-in1k-1", (0.08, 1.0), True, None, None),
        ("sre2l-tiny-1", (0.08, 1.0), False, None, None),
        ("sre2l-cifar100-1", None, False, 0.8, None),
        ("gvbsm-cifar10-1", (0.08, 1.0), True, None, None),
    ],
)
def test_images_are_shown_as_the_tables_say(name, crop, cutmix, mixup, shuffled):
    protocol = protocols.get(name)

    found = (protocol.crop, protocol.cutmix, protocol.mixup, protocol.shuffle_patches)
    assert found == (crop, cutmix, mixup, shuffled)


@pytest.mark.parametrize("name", [f"rded-{name}-1" for name in SETS])
def test_rded_resizes_to_a_seventh_times_eight_and_takes_the_middle(name):
    protocol = protocols.get(name)

    assert (protocol.test_side or protocol.size) == protocol.size // 7 * 8


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("rded")])
def test_others_cut_large_images_and_test_small_ones_as_they_are(name):
    large = "imagenet10" in name or "in1k" in name

    assert protocols.get(name).test_side == (256 if large else None)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_for_gpus_and_have_one_student(name):
    protocol = protocols.get(name)

    (student,) = protocol.students
    assert protocol.gpu
    assert student.endswith("resnet18")
    assert all(parse_arch(arch) for arch in protocol.lr_by_student)


@pytest.mark.parametrize(("images", "steps"), [(10, 500), (30, 600), (100, 1000)])
def test_the_digits_protocols_show_equally_many_images(images, steps):
    seen = {images_seen(protocols.get(name), images, 10) for name in DIGITS}

    assert of("edc-digits-1", images, 10).steps == steps
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("edc-digits-batch-1", {"batch": 100}),
        ("edc-digits-cosine-1", {"zeta": 1.0}),
        ("edc-digits-student-1", {"ema": None}),
        ("edc-digits-plain-1", {"batch": 100, "zeta": 1.0, "ema": None}),
        (
            "edc-digits-online-1",
            {
                "augment": "rrc",
                "crop": (0.7, 1.0),
                "regimes": ("hard", "soft_stored", "soft_online"),
            },
        ),
        ("edc-in1k-script-1", {"schedule": "linear_smooth"}),
        ("edc-imagenet10-script-1", {"schedule": "ssrs"}),
    ],
)
def test_a_variant_differs_from_its_protocol_in_its_choice_alone(name, change):
    variant = protocols.get(name)
    said = {"name": variant.name, "summary": variant.summary, "source": variant.source}
    main = protocols.get(f"edc-{name.split('-')[1]}-1")

    assert variant == main.model_copy(update={**said, **change})


def test_biases_and_norms_do_not_decay_under_sgd_either():
    net = build(
        "convnet2-bn", num_classes=10, channels=1, height=8, width=8, mean=(0.5,), std=(0.5,),
        seed=0,
    )  # fmt: skip

    optimizer = _optimizer(net, protocols.get("edc-cifar100-script-1"))

    assert isinstance(optimizer, torch.optim.SGD)
    groups = [
        (g["weight_decay"], {p.ndim > 1 for p in g["params"]}) for g in optimizer.param_groups
    ]
    assert groups == [(5e-4, {True}), (0.0, {False})]


@pytest.mark.parametrize("name", [*NAMES, *DIGITS])
def test_the_reference_has_classes_and_crops_and_nothing_of_the_soft_labels(name):
    served, full = protocols.get(name), protocols.get(f"full-1@{name}")

    assert (full.size, full.test_side, full.students) == (
        served.size,
        served.test_side,
        served.students,
    )
    assert (full.augment, full.crop, full.regimes) == (served.augment, served.crop, ("hard",))
    assert (full.ema, full.randaugment, full.shuffle_patches) == (None, False, None)
    assert not full.mixes
    assert full.length(50_000, 10).epochs == 20
