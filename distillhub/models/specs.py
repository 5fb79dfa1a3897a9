"""Which network, with which weights, or how it is to be trained."""

from typing import Annotated, Literal

from pydantic import Field

from distillhub.spec import Fraction, Spec

Arch = Annotated[str, Field(min_length=1)]
"""Name of an architecture: `convnet3`, `convnet3-w32-bn`, `resnet18`, `timm:resnet50`, ...

`models.zoo.parse_arch` explains the grammar and refuses unknown names with the nearest known one.
"""


class ModelSpec(Spec):
    """A network with existing weights, pinned by content."""

    kind: Literal["pretrained"] = "pretrained"
    arch: Arch
    weights: str
    """`default` (what timm or torchvision ship), a tag of theirs, or a .safetensors file."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the weights file; written by `resolve` or the recipe, checked before use."""
    class_names: tuple[str, ...] | None = None
    """Classes of the outputs in order.

    None: ImageNet-1k order for 1000 outputs, else the data set's.
    """


class TrainSpec(Spec):
    """A network and how it is trained on the real training split, its held-out part excluded."""

    kind: Literal["train"] = "train"
    arch: Arch
    steps: int = Field(default=1000, gt=0)
    """Optimizer steps."""
    batch: int = Field(default=128, gt=0)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    nesterov: bool = False
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` ends at 0."""
    warmup: Fraction = 0.0
    """Share of the steps with a linearly rising learning rate."""
    label_smoothing: Fraction = 0.0
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of the exponential average of the weights, which then is the result."""
    augment: Literal["none", "shift", "flip_shift", "crop_flip"] = "none"
    """`shift`: up to 1/8 of the side; `flip_shift`: with horizontal flips too; `crop_flip`: random
    resized crops (8 to 100 % of the area) and flips."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast; weights stay float32."""
    seed: int = Field(default=0, ge=0)


class FileFacts(Spec):
    """What a weights file of ours says of itself, in its own header."""

    arch: Arch
    num_classes: int
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]; the network normalises with it."""
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None
    """Of the outputs, in order."""


NetworkSpec = Annotated[ModelSpec | TrainSpec, Field(discriminator="kind")]
