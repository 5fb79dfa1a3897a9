"""The protocols of RDED: labels made online by the observer, KL at T = 20, half a cosine.

Source: Sun et al. (CVPR 2024, arXiv 2312.03526) and the authors' code. The code also puts every
batch through the student a second time, in train mode and without gradients, which moves the
batch-norm statistics twice; here there is one pass. Its accuracy is the best of the epochs that
were looked at in the last fifth, which is kept as `best_top1`.
"""

from collections.abc import Mapping

from distillhub.evaluation.protocol import Protocol

_PAPER = "RDED (arXiv 2312.03526, CVPR 2024), as in the authors' code"

_COMMON: Mapping[str, object] = {
    "gpu": True,
    "regimes": ("soft_online",),
    "epochs": 300,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "decay_vectors": False,
    "schedule": "smoothing",
    "zeta": 2.0,
    "augment": "rrc_flip",
    "cutmix": True,
    "temperature": 20.0,
    "scaled": False,
    "best_every": 10,
    "best_last": 0.2,
}
_SMALL: Mapping[str, object] = {
    **_COMMON,
    "students": ("resnet18",),
    "lr_by_student": {"mobilenetv2": 2.5e-3, "vgg11-bn": 5e-4, "vgg11": 5e-4, "alexnet": 1e-4},
    "crop": (1.0, 1.0),
}
"""Images that are one patch are shown whole."""
_LARGE: Mapping[str, object] = {
    **_COMMON,
    "students": ("torchvision:resnet18",),
    "lr_by_student": {
        "torchvision:efficientnet_b0": 2e-3,
        "torchvision:mobilenet_v2": 2.5e-3,
        "torchvision:vgg11": 5e-4,
        "torchvision:alexnet": 1e-4,
        "torchvision:vit_b_16": 1e-4,
        "torchvision:swin_v2_t": 1e-4,
    },
    "size": 224,
    "test_side": 256,
    "crop": (0.5, 1.0),
    "shuffle_patches": 2,
}
_TEN_CLASSES: Mapping[str, object] = {"batch": 100, "batch_by_ipc": ((1, 10), (10, 50))}
_MORE_CLASSES: Mapping[str, object] = {"batch": 200, "batch_by_ipc": ((1, 20), (10, 100))}

RDED = (
    Protocol.model_validate(
        {
            **_LARGE,
            **_MORE_CLASSES,
            "name": "rded-in1k-1",
            "summary": "ResNet-18 at 224 pixels; 300 epochs of AdamW, batch 20, 100 or 200, a "
            "cosine to half; patches shuffled, CutMix, labels made online, KL at T = 20.",
            "source": f"{_PAPER}, ImageNet-1k",
        }
    ),
    Protocol.model_validate(
        {
            **_LARGE,
            **_TEN_CLASSES,
            "name": "rded-imagenet10-1",
            "summary": "As rded-in1k-1 with batches of 10, 50 or 100.",
            "source": f"{_PAPER}, ImageNet subsets of ten classes",
        }
    ),
    Protocol.model_validate(
        {
            **_SMALL,
            "name": "rded-tiny-1",
            "summary": "ResNet-18 at 64 pixels; 300 epochs of AdamW, batch 100, a cosine to half; "
            "CutMix, labels made online, KL at T = 20; tested on the middle of 72 pixels.",
            "source": f"{_PAPER}, Tiny-ImageNet",
            "size": 64,
            "test_side": 72,
            "batch": 100,
        }
    ),
    Protocol.model_validate(
        {
            **_SMALL,
            **_MORE_CLASSES,
            "name": "rded-cifar100-1",
            "summary": "ResNet-18; 300 epochs of AdamW, batch 20, 100 or 200, a cosine to half; "
            "CutMix, labels made online, KL at T = 20.",
            "source": f"{_PAPER}, CIFAR-100 with ResNet-18",
            "size": 32,
        }
    ),
    Protocol.model_validate(
        {
            **_SMALL,
            **_TEN_CLASSES,
            "name": "rded-cifar10-1",
            "summary": "As rded-cifar100-1 with batches of 10, 50 or 100.",
            "source": f"{_PAPER}, CIFAR-10",
            "size": 32,
        }
    ),
)
"""Their full values are in docs/protocols.md."""
