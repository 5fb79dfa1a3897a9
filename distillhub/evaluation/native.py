"""The protocols of 224-pixel data set distillation, as Dataset Concentration was evaluated.

Where the paper (arXiv 2603.27987) and the authors' code differ, a name stands for one of them:
`dsco-hard-1` and `dsco-soft-script-1` have the batches of the code, `dsco-hard-paper-1` and, above
100 images per class, `dsco-soft-1` those of the paper. In all of them colours are jittered image by
image, as the operations are meant; the code draws once per batch. The accuracy is that of the last
epoch; the paper's is the best of those that were looked at, which is kept as `best_top1`.
"""

from collections.abc import Mapping

from distillhub.evaluation.protocol import Protocol

_SMALL = ("resnetap10", "convnet6", "resnet18-in")
"""Instance norm in all three (GroupNorm with a group per channel)."""
_LARGE = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:efficientnet_b0")
_PAPER = "Dataset Concentration (arXiv 2603.27987)"

_COMMON: Mapping[str, object] = {
    "gpu": True,
    "size": 224,
    "test_side": 256,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "augment": "rrc_flip",
    "crop": (0.5, 1.0),
    "cutmix": True,
    "best_every": 10,
}
_HARD: Mapping[str, object] = {
    **_COMMON,
    "regimes": ("hard",),
    "students": _SMALL,
    "epochs": 1000,
    "epochs_by_ipc": ((10, 2000), (50, 1500)),
    "batch": 64,
    "schedule": "milestones",
    "jitter": 0.4,
    "lighting": 0.1,
}
_ONLINE: Mapping[str, object] = {
    **_COMMON,
    "regimes": ("soft_online",),
    "temperature": 20.0,
    "scaled": False,
}
_SOFT: Mapping[str, object] = {
    **_ONLINE,
    "students": _SMALL,
    "batch": 64,
    "schedule": "half_cosine",
    "jitter": 0.4,
    "lighting": 0.1,
    "whole_batches": True,
}

NATIVE = (
    Protocol.model_validate(
        {
            **_HARD,
            "name": "dsco-hard-1",
            "summary": "ConvNet-6, ResNetAP-10, ResNet-18 at 224 pixels; 2000, 1500 or 1000 epochs "
            "of AdamW, x 0.2 at 2/3 and 5/6, CutMix; batches that divide the set.",
            "source": f"{_PAPER}, hard labels; batch rule of the authors' code",
            "whole_batches": True,
            "whole_batches_ipc": 100,
        }
    ),
    Protocol.model_validate(
        {
            **_HARD,
            "name": "dsco-hard-paper-1",
            "summary": "As dsco-hard-1 with batches of 64 at the full rate, as the paper says.",
            "source": f"{_PAPER}, hard labels",
        }
    ),
    Protocol.model_validate(
        {
            **_SOFT,
            "name": "dsco-soft-1",
            "summary": "The students of dsco-hard-1; 1000 epochs up to 200 images per class, else "
            "500, half a cosine, CutMix; labels made online by the teacher, KL at T = 20.",
            "source": f"{_PAPER}, soft labels; batch rule of the authors' code up to 100 images "
            "per class",
            "epochs": 500,
            "epochs_by_ipc": ((200, 1000),),
            "whole_batches_ipc": 100,
        }
    ),
    Protocol.model_validate(
        {
            **_SOFT,
            "name": "dsco-soft-script-1",
            "summary": "As dsco-soft-1 with what the authors' doping script passes on: 1000 epochs "
            "and batches that divide the set, whatever its size.",
            "source": f"{_PAPER}, script of the authors' code",
            "epochs": 1000,
        }
    ),
    Protocol.model_validate(
        {
            **_ONLINE,
            "name": "dsco-in1k-1",
            "summary": "ImageNet-1k, 10 or 50 images per class: 300 epochs of AdamW, half a "
            "cosine, CutMix; labels made online by the teacher, KL at T = 20.",
            "source": f"{_PAPER}, ImageNet-1k; batches and weight decay of the authors' "
            "RDED-style script",
            "students": _LARGE,
            "lr_by_student": {
                "torchvision:mobilenet_v2": 2.5e-3,
                "torchvision:efficientnet_b0": 2e-3,
            },
            "epochs": 300,
            "batch": 200,
            "batch_by_ipc": ((10, 100),),
            "schedule": "half_cosine",
            "decay_vectors": False,
            "best_last": 0.2,
        }
    ),
    Protocol.model_validate(
        {
            **_ONLINE,
            "name": "dsco-in1k-high-1",
            "summary": "ImageNet-1k, doped sets: 100 epochs of AdamW, 10 of them warm-up, then a "
            "cosine, CutMix; labels made online by the teacher, KL at T = 20.",
            "source": f"{_PAPER}, ImageNet-1k; batch of the authors' code, the paper is silent",
            "students": ("torchvision:resnet18",),
            "epochs": 100,
            "batch": 64,
            "schedule": "warmup_cosine",
            "warmup": 10,
        }
    ),
)
"""Their full values are in docs/protocols.md."""
