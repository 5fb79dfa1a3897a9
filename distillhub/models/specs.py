"""Which network, with which weights, or how it is to be trained."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from distillhub.models.dit_arch import parse_dit
from distillhub.spec import Fraction, GrownSpec, Spec

Arch = Annotated[str, Field(min_length=1)]
"""Name of an architecture: `convnet3`, `convnet3-w32-bn`, `resnet18`, `timm:resnet50`, ...

`models.zoo.parse_arch` explains the grammar and refuses unknown names with the nearest known one.
"""


class ModelSpec(GrownSpec):
    """A network with existing weights, pinned by content."""

    LATER: ClassVar[frozenset[str]] = frozenset({"top1"})
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
    top1: Fraction | None = None
    """Accuracy that the weights are known for, as a fraction; far less on the held-out images of
    the data set is refused, since then the order of the classes is another one."""


class TrainSpec(GrownSpec):
    """A network and how it is trained on the real training split, its held-out part excluded."""

    LATER: ClassVar[frozenset[str]] = frozenset({"epochs", "checkpoint_epoch"})
    kind: Literal["train"] = "train"
    arch: Arch
    steps: int | None = Field(default=1000, gt=0)
    """Optimizer steps; null where `epochs` are given."""
    epochs: int | None = Field(default=None, gt=0)
    """The length in epochs, in place of `steps`; the incomplete last batch of one is dropped."""
    checkpoint_epoch: int | None = Field(default=None, gt=0)
    """The weights after this epoch are the result, under the schedule of all `epochs`; null: the
    last one."""
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

    @model_validator(mode="before")
    @classmethod
    def _epochs_in_place_of_steps(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("epochs") is not None:
            return {"steps": None, **content}
        return content

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSpec":
        if (self.steps is None) == (self.epochs is None):
            both = "both are given" if self.epochs is not None else "both are null"
            raise ValueError(f"the length is given by steps or by epochs; {both}")
        last = self.checkpoint_epoch
        if last is not None and self.epochs is None:
            raise ValueError(
                "checkpoint_epoch counts epochs; give the length in epochs, not in steps"
            )
        if last is not None and self.epochs is not None and last > self.epochs:
            raise ValueError(
                f"checkpoint_epoch is {last} but there are {self.epochs} epochs; "
                f"set it to {self.epochs} or less, or to null"
            )
        return self

    def epoch_steps(self, images: int) -> int:
        """Whole batches of an epoch of so many images; a set smaller than a batch is one batch."""
        return images // min(self.batch, images)

    def total_steps(self, images: int) -> int:
        """Steps that the schedule is made for, with so many training images."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * self.epoch_steps(images)

    def taken_steps(self, images: int) -> int:
        """Steps after which the weights are taken, with so many training images."""
        if self.checkpoint_epoch is None:
            return self.total_steps(images)
        return self.checkpoint_epoch * self.epoch_steps(images)


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


def _dit(name: str) -> str:
    parse_dit(name)
    return name


class VaeTrainSpec(Spec):
    """A small autoencoder of images, trained before the generator on the same images."""

    channels: int = Field(default=4, gt=0)
    """Of the latents."""
    widths: tuple[int, ...] = Field(default=(32, 64), min_length=1)
    """Channels per resolution, in multiples of 8; each but the last halves the sides."""
    steps: int = Field(default=1000, gt=0)
    batch: int = Field(default=64, gt=0)
    lr: float = Field(default=1e-3, gt=0)
    kl: float = Field(default=1e-4, ge=0)
    """Weight of the divergence from a standard normal, beside the squared error of the pixels."""

    @field_validator("widths")
    @classmethod
    def _in_groups(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"widths {widths} are no multiples of 8")
        return widths


class GeneratorTrainSpec(Spec):
    """A diffusion transformer and how it is trained on the real training split.

    The held-out part is excluded.
    """

    kind: Literal["train"] = "train"
    arch: Annotated[str, AfterValidator(_dit)]
    """Width, depth, heads and patch: `dit-w128-d4-h4-p2`."""
    steps: int = Field(default=2400, gt=0)
    batch: int = Field(default=64, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    """Of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` ends at 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: Fraction = 0.05
    """Share of the steps with a linearly rising learning rate."""
    ema: float = Field(default=0.995, ge=0, lt=1)
    """Decay per step of the average of the weights, which is the result; it begins as a plain mean,
    so that the random start is soon forgotten. 0: the last weights."""
    label_dropout: Fraction = 0.1
    """Share of the images that are shown without their label, for guidance."""
    variance: Literal["learned", "fixed"] = "learned"
    """`learned`: half of the channels interpolate the log variance, trained by the variational
    bound; `fixed`: the posterior variance."""
    vae: VaeTrainSpec | None = None
    """None: the pixels themselves are the latents."""
    augment: Literal["none", "flip"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast; weights stay float32."""
    seed: int = Field(default=0, ge=0)


class DiffusionSpec(Spec):
    """A diffusion transformer with existing weights: a checkpoint of diffusers."""

    kind: Literal["pretrained"] = "pretrained"
    transformer: str = Field(min_length=1)
    """Hub repository or local folder with a `DiTTransformer2DModel`, in it or in `transformer/`."""
    revision: str | None = None
    vae: str | None = "stabilityai/sd-vae-ft-mse"
    """Hub repository or local folder with an `AutoencoderKL`, in it or in `vae/`; null: the
    transformer works on pixels."""
    vae_revision: str | None = None
    scaling: float = Field(default=0.18215, gt=0)
    """Factor of the autoencoder's latents."""
    classes: Literal["auto"] | tuple[int, ...] = "auto"
    """The transformer's label of each class of the data set; `auto`: those of ImageNet-1k."""
    license: str | None = None
    """Of the weights; null: the known one of a well-known checkpoint."""
    transformer_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Over the files of a local folder; written by `resolve`, checked before use."""
    vae_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


GeneratorSpec = Annotated[GeneratorTrainSpec | DiffusionSpec, Field(discriminator="kind")]
