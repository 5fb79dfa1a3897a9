"""How a student is trained and tested: named, numbered values; another value has another name.

| name | student | length | optimizer | images |
|---|---|---|---|---|
| `digits-1` | convnet3-w32 at 16 px | 500 steps | SGD, x 0.1 after 250 | DSA without flip |
| `smoke-cpu-1` | convnet3-w16 at 32 px | 20 epochs | SGD, x 0.1 after 10 | DSA without flip |
| `lowres-1` | ConvNet of the side's depth | 1001 epochs | SGD, x 0.1 after 502 | DSA |
| `hard-1` | resnet18 | 300 epochs | AdamW, cosine | random resized crop, flip |
| `soft-1` | resnet18 | 300 epochs | AdamW, cosine | the stored views |
| `full-1@<name>` | as `<name>` | 20 epochs, 400 steps at least | AdamW, cosine | as `<name>` |

Soft arms train as long as hard ones and replay the stored views, each image a new one per epoch
until all are used; nothing is drawn on top, as a label belongs to its view. Labels of whole images
(one view without geometry) stand for the image as a hard label does, so these images are augmented
as in the hard arm. The loss is KL at `temperature`, times its square under SGD (without it the soft
arm of `digits-1` stops at 85 % instead of 97 %; 10 random images per class, held-out training
images, one seed). `full-1` is the reference on the real data: long enough for its size, whatever
the IPC of the set it stands beside.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from distillhub.digests import digest_of
from distillhub.models.specs import Arch
from distillhub.ops.schedules import cosine
from distillhub.records.report import Regime
from distillhub.spec import Spec, nearest

REFERENCE = "full-1@"
"""Prefix of the protocol of the `full_hard` arm; the name of the protocol it serves follows."""


class Length(NamedTuple):
    """How long a run is on a given number of images, in optimizer steps."""

    steps: int
    per_epoch: int
    drop: int | None
    """Steps before the rate falls to a tenth; None for a cosine."""


class Protocol(Spec):
    """A training and a test; frozen, its digest stands in every report."""

    name: str
    summary: str
    gpu: bool = False
    """Whether it is meant for GPUs; `build` refuses it on a CPU unless told otherwise."""
    publishable: bool = True
    """Whether its figures mean anything; `smoke-cpu-1` only shows that the pipeline works."""
    regimes: tuple[Regime, ...] = ("hard", "soft_stored")
    students: tuple[Arch, ...] = ()
    """Students of an evaluation that names none; empty: the one of `convnet_for`."""
    runs: int = Field(default=5, ge=1)
    size: int | None = Field(default=None, ge=4)
    """Side in pixels to which all images are resized (bilinear); None: as stored."""
    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    """Either `steps`, or `epochs` (and then at least `min_steps` steps)."""
    min_steps: int = Field(default=0, ge=0)
    batch: int = Field(gt=0)
    """Images per step; the last batch of an epoch holds the rest."""
    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(ge=0)
    schedule: Literal["drop", "cosine"]
    """`drop`: a tenth of the rate and a fresh optimizer after `drop_after`; `cosine`: to 0."""
    drop_after: int | None = Field(default=None, gt=0)
    """In the unit of the length: steps or epochs."""
    augment: str = Field(pattern=r"^(none|rrc_flip|dsa:[a-z_]+)$")
    """`rrc_flip`: random resized crop (8 to 100 % of the area) and flip; `dsa:` and families."""
    temperature: float = Field(default=4.0, gt=0)
    """Of the soft loss."""
    scaled: bool = True
    """Whether the soft loss is multiplied by its temperature squared, which keeps the size of the
    gradients (Hinton et al. 2015); SGD at a fixed rate needs it, AdamW does not notice."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast in training; weights and the test are float32."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if (self.schedule == "drop") != (self.drop_after is not None):
            raise ValueError("drop_after belongs to schedule: drop, and to no other")
        return self

    def length(self, images: int) -> Length:
        """How many steps a run on `images` training images takes."""
        per_epoch = math.ceil(images / self.batch)
        if self.epochs is None:
            return Length(self.steps or 0, per_epoch, self.drop_after)
        steps = max(self.epochs * per_epoch, self.min_steps)
        drop = None if self.drop_after is None else self.drop_after * per_epoch
        return Length(steps, per_epoch, drop)

    def rate(self, step: int, length: Length) -> float:
        """Learning rate of step 0 .. length.steps - 1."""
        if length.drop is not None:
            return self.lr if step < length.drop else self.lr / 10
        return self.lr * cosine(step, length.steps)

    def resolution(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the student's input for images of the given size, pixels."""
        return (height, width) if self.size is None else (self.size, self.size)

    def students_for(self, height: int, width: int) -> tuple[str, ...]:
        """The students of an evaluation that names none."""
        return self.students or (convnet_for(min(self.resolution(height, width))),)

    def plain(self) -> Self:
        """The same without augmentation, for the `_plain` arms."""
        return self.model_copy(update={"augment": "none"})

    @property
    def sha256(self) -> str:
        """Digest of all fields."""
        return digest_of(self.model_dump(mode="json"))


def convnet_for(side: int) -> str:
    """The ConvNet that ends at about 4 pixels: depth 3 for sides of 28 and 32, 4 for 64."""
    return f"convnet{max(1, round(math.log2(side)) - 2)}"


_DSA = "dsa:color_crop_cutout_flip_scale_rotate"
_DSA_NO_FLIP = "dsa:color_crop_cutout_scale_rotate"

_BUILT_IN = (
    Protocol(
        name="digits-1",
        summary="ConvNet-3, width 32, 16 pixels; 500 steps of SGD, DSA without flip; KL at T = 4.",
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
    """The protocol of arm `full_hard` beside `served`: same student, size and augmentation."""
    return Protocol(
        name=REFERENCE + served.name,
        summary="The real training images: 20 epochs of AdamW, cosine, at least 400 steps.",
        publishable=served.publishable,
        regimes=("hard",),
        students=served.students,
        runs=served.runs,
        size=served.size,
        epochs=20,
        min_steps=400,
        batch=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        augment=served.augment,
        precision=served.precision,
    )
