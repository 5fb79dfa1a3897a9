"""The protocols of SRe2L and of G-VBSM.

Sources: Yin et al. (NeurIPS 2023, arXiv 2306.13092), Shao et al. (CVPR 2024, arXiv 2311.17950), and
the authors' code. On ImageNet-1k stored views with CutMix are replayed; on the small sets labels
are made online. G-VBSM's code stores them there too, of the same views, as many as epochs.
"""

from collections.abc import Mapping

from distillhub.evaluation.protocol import Protocol

_SRE2L = "SRe2L (arXiv 2306.13092, NeurIPS 2023)"
_GVBSM = "G-VBSM (arXiv 2311.17950, CVPR 2024), as in the authors' code"

_COMMON: Mapping[str, object] = {
    "gpu": True,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "smoothing",
    "zeta": 1.0,
}
_IN1K: Mapping[str, object] = {
    **_COMMON,
    "regimes": ("hard", "soft_stored"),
    "students": ("torchvision:resnet18",),
    "size": 224,
    "test_side": 256,
    "epochs": 300,
    "batch": 1024,
    "decay_vectors": False,
    "augment": "rrc_flip",
    "crop": (0.08, 1.0),
    "cutmix": True,
}
_ONLINE: Mapping[str, object] = {
    **_COMMON,
    "regimes": ("soft_online",),
    "students": ("resnet18",),
}
_SRE2L_CIFAR: Mapping[str, object] = {
    **_ONLINE,
    "epochs": 400,
    "batch": 128,
    "augment": "shift_flip",
    "mixup": 0.8,
    "temperature": 30.0,
    "scaled": False,
}
_GVBSM_ONLINE: Mapping[str, object] = {
    **_ONLINE,
    "decay_vectors": False,
    "augment": "rrc_flip",
    "crop": (0.08, 1.0),
    "cutmix": True,
    "loss": "mse_gt",
    "ce_weight": 0.15,
}
_GVBSM_CIFAR: Mapping[str, object] = {**_GVBSM_ONLINE, "size": 32, "epochs": 1000}
_GVBSM_SGD: Mapping[str, object] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.875}

SRE2L = (
    Protocol.model_validate(
        {
            **_IN1K,
            "name": "sre2l-in1k-1",
            "summary": "ResNet-18 at 224 pixels; 300 epochs of AdamW, batch 1024, a cosine; stored "
            "views with CutMix, KL at T = 20.",
            "source": f"{_SRE2L}, ImageNet-1k",
            "temperature": 20.0,
            "scaled": False,
        }
    ),
    Protocol.model_validate(
        {
            **_ONLINE,
            "name": "sre2l-tiny-1",
            "summary": "ResNet-18 at 64 pixels; 100 epochs of SGD, batch 64, a cosine; labels made "
            "online, KL at T = 20 times its square.",
            "source": f"{_SRE2L}, Tiny-ImageNet, as LPLD evaluates it",
            "size": 64,
            "epochs": 100,
            "batch": 64,
            "optimizer": "sgd",
            "lr": 0.2,
            "weight_decay": 1e-4,
            "augment": "rrc_flip",
            "crop": (0.08, 1.0),
            "temperature": 20.0,
        }
    ),
    Protocol.model_validate(
        {
            **_SRE2L_CIFAR,
            "name": "sre2l-cifar100-1",
            "summary": "ResNet-18; 400 epochs of AdamW, batch 128, a cosine; shifts, flips, Mixup, "
            "labels made online, KL at T = 30.",
            "source": f"{_SRE2L}, CIFAR-100; augmentation of the authors' code",
        }
    ),
    Protocol.model_validate(
        {
            **_SRE2L_CIFAR,
            "name": "sre2l-cifar10-1",
            "summary": "As sre2l-cifar100-1, for CIFAR-10.",
            "source": f"our own: {_SRE2L} has no CIFAR-10, the values are those of CIFAR-100",
        }
    ),
)
GVBSM = (
    Protocol.model_validate(
        {
            **_IN1K,
            "name": "gvbsm-in1k-1",
            "summary": "ResNet-18 at 224 pixels; 300 epochs of AdamW, batch 1024, a cosine; stored "
            "views with CutMix, MSE and 0.1 CE.",
            "source": f"{_GVBSM}, ImageNet-1k",
            "loss": "mse_gt",
            "ce_weight": 0.1,
        }
    ),
    Protocol.model_validate(
        {
            **_GVBSM_ONLINE,
            **_GVBSM_SGD,
            "name": "gvbsm-tiny-1",
            "summary": "ResNet-18 at 64 pixels; 100 epochs of SGD, batch 100, a cosine; CutMix, "
            "labels made online, MSE and 0.1 CE.",
            "source": f"{_GVBSM}, Tiny-ImageNet",
            "size": 64,
            "epochs": 100,
            "batch": 100,
            "weight_decay": 5e-4,
            "ce_weight": 0.1,
        }
    ),
    Protocol.model_validate(
        {
            **_GVBSM_CIFAR,
            **_GVBSM_SGD,
            "name": "gvbsm-cifar100-1",
            "summary": "ResNet-18; 1000 epochs of SGD, batch 64, a cosine; CutMix, labels made "
            "online, MSE and 0.15 CE.",
            "source": f"{_GVBSM}, CIFAR-100; weight decay of its script's default",
            "batch": 64,
            "weight_decay": 3e-5,
        }
    ),
    Protocol.model_validate(
        {
            **_GVBSM_CIFAR,
            "name": "gvbsm-cifar10-1",
            "summary": "ResNet-18; 1000 epochs of AdamW, batch 100, a cosine; CutMix, labels made "
            "online, MSE and 0.15 CE.",
            "source": f"{_GVBSM}, CIFAR-10",
            "batch": 100,
        }
    ),
)
"""Their full values are in docs/protocols.md."""
