"""How a student is trained and tested: named, numbered values; another value has another name.

| name | student | length | optimizer | images |
|---|---|---|---|---|
| `digits-1` | convnet3-w32 at 16 px | 500 steps | SGD, x 0.1 after 250 | DSA without flip |
| `smoke-cpu-1` | convnet3-w16 at 32 px | 20 epochs | SGD, x 0.1 after 10 | DSA without flip |
| `lowres-1` | ConvNet of the side's depth | 1001 epochs | SGD, x 0.1 after 502 | DSA |
| `hard-1` | resnet18 | 300 epochs | AdamW, cosine | random resized crop, flip |
| `soft-1` | resnet18 | 300 epochs | AdamW, cosine | the stored views |
| `smoke-online-1` | convnet2-w8 at 16 px | 12 epochs | AdamW, half cosine | crops, CutMix |
| `edc-digits-...` | convnet3-w32 at 16 px | 100 to 500 epochs | AdamW | DSA without flip |
| `dsco-...`, `edc-...`, `rded-...` ... | see `native*.py` | | | |
| `full-1@<name>` | as `<name>` | 20 epochs, 400 steps at least | AdamW, cosine | as `<name>` |

Soft arms train as long as hard ones and replay the stored views, each image a new one per epoch
until all are used; nothing is drawn on top, as a label belongs to its view. Labels of whole images
(one view without geometry) stand for the image as a hard label does, so these images are augmented
as in the hard arm. The loss is KL at `temperature`, times its square under SGD (without it the soft
arm of `digits-1` stops at 85 % instead of 97 %; 10 random images per class, held-out training
images, one seed). `full-1` is the reference on the real data: long enough for its size, whatever
the IPC of the set it stands beside.
"""

from collections.abc import Mapping
from types import MappingProxyType

from distillhub.evaluation.native import NATIVE
from distillhub.evaluation.native_edc import EDC
from distillhub.evaluation.native_rded import RDED
from distillhub.evaluation.native_sre2l import GVBSM, SRE2L
from distillhub.evaluation.protocol import Length, Protocol, convnet_for
from distillhub.spec import nearest

__all__ = ["REFERENCE", "Length", "Protocol", "convnet_for", "get", "names", "reference"]

REFERENCE = "full-1@"
"""Prefix of the protocol of the `full_hard` arm; the name of the protocol it serves follows."""

_DSA = "dsa:color_crop_cutout_flip_scale_rotate"
_DSA_NO_FLIP = "dsa:color_crop_cutout_scale_rotate"

_BUILT_IN: tuple[Protocol, ...] = (
    Protocol(
        name="digits-1",
        summary="ConvNet-3, width 32, 16 pixels; 500 steps of SGD, DSA without flip; KL at T = 4.",
        source="our own; a small lowres-1",
        students=("convnet3-w32",),
        size=16,
        steps=500,
        batch=256,
        optimizer="sgd",
        lr=0.01,
        weight_decay=5e-4,
        schedule="drop",
        drop_after=250,
        augment=_DSA_NO_FLIP,
    ),
    Protocol(
        name="smoke-cpu-1",
        summary="ConvNet-3, width 16, at 32 pixels; 20 epochs; only shows that all works.",
        source="our own",
        publishable=False,
        students=("convnet3-w16",),
        size=32,
        epochs=20,
        batch=64,
        optimizer="sgd",
        lr=0.01,
        weight_decay=5e-4,
        schedule="drop",
        drop_after=10,
        augment=_DSA_NO_FLIP,
    ),
    # The evaluation of the DatasetCondensation code: epoch indices 0..1000; the rate falls after
    # index 501, by building a new optimizer (momentum is lost).
    Protocol(
        name="lowres-1",
        summary="ConvNet at the stored size; 1001 epochs of SGD, DSA; KL at T = 4.",
        source="the DatasetCondensation code (DC, DSA, DM): 1001 epochs, lr falls after 501",
        epochs=1001,
        batch=256,
        optimizer="sgd",
        lr=0.01,
        weight_decay=5e-4,
        schedule="drop",
        drop_after=502,
        augment=_DSA,
    ),
    Protocol(
        name="hard-1",
        gpu=True,
        summary="ResNet-18, 300 epochs of AdamW, cosine, random resized crops and flips.",
        source="our own; AdamW as in the evaluation of SRe2L and RDED",
        regimes=("hard",),
        students=("resnet18",),
        epochs=300,
        batch=128,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        augment="rrc_flip",
        precision="bfloat16",
    ),
    Protocol(
        name="soft-1",
        gpu=True,
        summary="ResNet-18, 300 epochs of AdamW, cosine, stored views and CutMix; KL at T = 20.",
        source="our own; CutMix and T = 20 as in SRe2L and RDED, on stored views",
        regimes=("soft_stored",),
        students=("resnet18",),
        epochs=300,
        batch=128,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        augment="rrc_flip",
        temperature=20.0,
        scaled=False,
        precision="bfloat16",
    ),
    # Every part of the native protocols with online labels, at the size of a test.
    Protocol(
        name="smoke-online-1",
        summary="ConvNet-2, width 8, at 16 pixels; 12 epochs, labels made online by the teacher; "
        "only shows that all works.",
        source="our own; a small dsco-soft-1",
        publishable=False,
        regimes=("hard", "soft_online"),
        students=("convnet2-w8",),
        runs=2,
        size=16,
        test_side=18,
        epochs=10,
        epochs_by_ipc=((50, 12),),
        batch=64,
        whole_batches=True,
        optimizer="adamw",
        lr=1e-3,
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
        best_every=5,
    ),
    *NATIVE,
    *RDED,
    *SRE2L,
    *GVBSM,
    *EDC,
)

_BY_NAME: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in _BUILT_IN})


def names() -> tuple[str, ...]:
    """The protocols a recipe may name; `full-1@...` comes along with each of them."""
    return tuple(_BY_NAME)


def get(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        ValueError: If there is none; the message offers the nearest.
    """
    if name.startswith(REFERENCE):
        return reference(get(name.removeprefix(REFERENCE)))
    if name not in _BY_NAME:
        raise ValueError(f"no protocol is called '{name}'; {nearest(name, _BY_NAME)}")
    return _BY_NAME[name]


def reference(served: Protocol) -> Protocol:
    """The protocol of arm `full_hard` beside `served`: same student, size and augmentation.

    What belongs to soft labels and to collages is left out: RandAugment, mixing, shuffled patches
    and averaged weights, for which 20 epochs are too few.
    """
    return Protocol(
        name=REFERENCE + served.name,
        summary="The real training images: 20 epochs of AdamW, cosine, at least 400 steps.",
        publishable=served.publishable,
        regimes=("hard",),
        students=served.students,
        runs=served.runs,
        size=served.size,
        test_side=served.test_side,
        epochs=20,
        min_steps=400,
        batch=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        augment=served.augment,
        crop=served.crop,
        jitter=served.jitter,
        lighting=served.lighting,
        precision=served.precision,
    )
