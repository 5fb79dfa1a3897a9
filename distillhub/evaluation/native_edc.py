"""The protocols of EDC, and small ones for the 8 x 8 digits that differ in one choice each.

Paper and authors' code differ in places. The plain names stand for the paper; `-script-1` for what
the code's scripts run, where that is another optimizer or schedule. The paper gives no weight
decay: it is 0.01 with AdamW, as in the code. Crops of CIFAR-10 are the code's (8 to 100 %), not the
paper's. The augmented images of small sets are labelled online by the mean of the observers'
logits; those of ImageNet-1k replay stored views, which carry their own CutMix. The accuracy is that
of the last epoch; the code's is the best of those that were looked at, which is kept as
`best_top1`.

Of the digits, the wide batch, the plain cosine and the last weights stand each for one evaluation
choice of EDC undone (PE1, PE2, PE3), `edc-digits-plain-1` for all three. `edc-digits-online-1`
shows what storing labels costs: the same crops are labelled online and stored.
"""

from collections.abc import Mapping

from distillhub.evaluation.protocol import Protocol

_PAPER = "EDC (arXiv 2404.13733, NeurIPS 2024)"

_COMMON: Mapping[str, object] = {
    "gpu": True,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "decay_vectors": False,
    "schedule": "smoothing",
    "zeta": 2.0,
    "ema": 0.99,
    "augment": "rrc_flip",
    "crop": (0.5, 1.0),
    "cutmix": True,
    "loss": "mse_gt",
    "ce_weight": 0.025,
}
_SGD: Mapping[str, object] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.875,
    "weight_decay": 5e-4,
}
_LARGE: Mapping[str, object] = {
    **_COMMON,
    "students": ("torchvision:resnet18",),
    "size": 224,
    "test_side": 256,
    "best_every": 30,
    "best_last": 1.0,
}
_IN1K: Mapping[str, object] = {
    **_LARGE,
    "regimes": ("hard", "soft_stored"),
    "lr_by_student": {"torchvision:swin_t": 1e-4},
    "epochs": 300,
    "batch": 100,
}
_ONLINE: Mapping[str, object] = {"regimes": ("soft_online",), "randaugment": True}
_TINY: Mapping[str, object] = {
    **_COMMON,
    **_ONLINE,
    "students": ("resnet18",),
    "size": 64,
    "epochs": 300,
    "epochs_by_ipc": ((1, 1000),),
    "batch": 100,
    "best_every": 30,
    "best_last": 1.0,
}
_CIFAR100: Mapping[str, object] = {
    **_COMMON,
    **_ONLINE,
    "students": ("resnet18",),
    "size": 32,
    "epochs": 1000,
    "batch": 50,
    "best_every": 100,
    "best_last": 1.0,
}
_DIGITS: Mapping[str, object] = {
    "regimes": ("hard", "soft_stored"),
    "students": ("convnet3-w32",),
    "size": 16,
    "epochs": 100,
    "epochs_by_ipc": ((1, 500), (3, 200)),
    "batch": 10,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "decay_vectors": False,
    "schedule": "smoothing",
    "zeta": 2.0,
    "ema": 0.99,
    "augment": "dsa:color_crop_cutout_scale_rotate",
    "loss": "mse_gt",
    "ce_weight": 0.025,
    "source": "our own; the evaluation choices of EDC beside digits-1",
}

EDC = (
    Protocol.model_validate(
        {
            **_IN1K,
            "name": "edc-in1k-1",
            "summary": "ResNet-18 at 224 pixels; 300 epochs of AdamW, batch 100, a cosine to half, "
            "tested with averaged weights; stored views with CutMix, MSE and 0.025 CE.",
            "source": f"{_PAPER}, ImageNet-1k; weight decay of the authors' code",
        }
    ),
    Protocol.model_validate(
        {
            **_IN1K,
            "name": "edc-in1k-script-1",
            "summary": "As edc-in1k-1 with the schedule that the authors' script runs: a straight "
            "line to half of the rate.",
            "source": f"{_PAPER}, ImageNet-1k; schedule of the authors' code",
            "schedule": "linear_smooth",
        }
    ),
    Protocol.model_validate(
        {
            **_LARGE,
            **_ONLINE,
            "name": "edc-imagenet10-1",
            "summary": "ResNet-18 at 224 pixels; 1000 epochs of AdamW, batch 50, a cosine to half, "
            "tested with averaged weights; RandAugment, CutMix, labels made online.",
            "source": f"{_PAPER}, ImageNet-10; weight decay of the authors' code",
            "epochs": 1000,
            "batch": 50,
        }
    ),
    Protocol.model_validate(
        {
            **_LARGE,
            **_ONLINE,
            "name": "edc-imagenet10-script-1",
            "summary": "As edc-imagenet10-1 with the schedule that the authors' script runs: the "
            "rate falls to a sixth after five sixths of the epochs, then to 0.",
            "source": f"{_PAPER}, ImageNet-10; schedule of the authors' code",
            "epochs": 1000,
            "batch": 50,
            "schedule": "ssrs",
        }
    ),
    Protocol.model_validate(
        {
            **_TINY,
            "name": "edc-tiny-1",
            "summary": "ResNet-18 at 64 pixels; 300 epochs of AdamW (1000 at one image per class), "
            "batch 100, a cosine to half, averaged weights; RandAugment, CutMix, online labels.",
            "source": f"{_PAPER}, Tiny-ImageNet; weight decay as on the other sets",
        }
    ),
    Protocol.model_validate(
        {
            **_TINY,
            **_SGD,
            "name": "edc-tiny-script-1",
            "summary": "As edc-tiny-1 with the optimizer of the authors' script: SGD at 0.1.",
            "source": f"{_PAPER}, Tiny-ImageNet; optimizer of the authors' code",
        }
    ),
    Protocol.model_validate(
        {
            **_CIFAR100,
            "name": "edc-cifar100-1",
            "summary": "ResNet-18; 1000 epochs of AdamW, batch 50, a cosine to half, tested with "
            "averaged weights; RandAugment, CutMix, labels made online.",
            "source": f"{_PAPER}, CIFAR-100; weight decay as on the other sets",
        }
    ),
    Protocol.model_validate(
        {
            **_CIFAR100,
            **_SGD,
            "name": "edc-cifar100-script-1",
            "summary": "As edc-cifar100-1 with the authors' script: SGD at 0.1, and SSRS.",
            "source": f"{_PAPER}, CIFAR-100; optimizer and schedule of the authors' code",
            "schedule": "ssrs",
        }
    ),
    Protocol.model_validate(
        {
            **_COMMON,
            **_ONLINE,
            "name": "edc-cifar10-1",
            "summary": "ResNet-18; 1000 epochs of AdamW, batch 25 (10 at one image per class), "
            "x 0.5 at 800, 900 and 950, averaged weights; RandAugment, CutMix, online labels.",
            "source": f"{_PAPER}, CIFAR-10, Table 21; crops and batch of one image per class of "
            "the authors' code",
            "students": ("resnet18",),
            "size": 32,
            "epochs": 1000,
            "batch": 25,
            "batch_by_ipc": ((1, 10),),
            "schedule": "multistep",
            "zeta": None,
            "marks": (0.8, 0.9, 0.95),
            "gamma": 0.5,
            "crop": (0.08, 1.0),
            "best_every": 10,
            "best_last": 0.2,
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-1",
            "summary": "ConvNet-3, width 32, 16 pixels; 100 epochs of AdamW (200 up to 3, 500 at "
            "one image per class), batch 10, a cosine to half, averaged weights; MSE and 0.025 CE.",
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-batch-1",
            "summary": "As edc-digits-1 with batches of 100, as many images seen.",
            "batch": 100,
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-cosine-1",
            "summary": "As edc-digits-1 with a cosine to 0.",
            "zeta": 1.0,
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-student-1",
            "summary": "As edc-digits-1, tested with the last weights.",
            "ema": None,
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-plain-1",
            "summary": "As edc-digits-1 with batches of 100, a cosine to 0 and the last weights.",
            "batch": 100,
            "zeta": 1.0,
            "ema": None,
        }
    ),
    Protocol.model_validate(
        {
            **_DIGITS,
            "name": "edc-digits-online-1",
            "summary": "As edc-digits-1 with crops of 70 to 100 % in place of DSA, and labels made "
            "online beside the stored ones.",
            "regimes": ("hard", "soft_stored", "soft_online"),
            "augment": "rrc",
            "crop": (0.7, 1.0),
        }
    ),
)
"""Their full values are in docs/protocols.md."""
