"""What a protocol is: length, batches, rates, augmentation and test of a training, as data."""

import math
from itertools import pairwise
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from distillhub.digests import digest_of
from distillhub.evaluation.pace import FIELDS, Schedule, epoch_factor
from distillhub.models.specs import Arch
from distillhub.ops.schedules import cosine
from distillhub.records.report import Regime
from distillhub.spec import Fraction, Spec

ByIpc = tuple[tuple[int, int], ...]
"""(images per class up to which it holds, value), rising; above the last the plain field holds."""


class Length(NamedTuple):
    """How long a run is on a given set, in optimizer steps."""

    steps: int
    per_epoch: int
    drop: int | None
    """Steps before the rate falls to a tenth; None for the other schedules."""
    batch: int
    """Images per step; the last batch of an epoch holds the rest."""
    lr: float
    """Rate that the schedule starts from, or warms up to."""

    @property
    def epochs(self) -> int:
        """Begun epochs."""
        return math.ceil(self.steps / self.per_epoch)


class Protocol(Spec):
    """A training and a test; frozen, its digest stands in every report."""

    name: str
    summary: str
    source: str = ""
    """Where the values are from; not in the digest."""
    gpu: bool = False
    """Whether it is meant for GPUs; `build` refuses it on a CPU unless told otherwise."""
    publishable: bool = True
    """Whether its figures mean anything; those of `smoke-cpu-1` only show that all works."""
    regimes: tuple[Regime, ...] = ("hard", "soft_stored")
    students: tuple[Arch, ...] = ()
    """Students of an evaluation that names none; empty: the one of `convnet_for`."""
    runs: int = Field(default=5, ge=1)
    size: int | None = Field(default=None, ge=4)
    """Side in pixels to which all images are resized (bilinear); None: as stored."""
    test_side: int | None = Field(default=None, ge=4)
    """Shorter side in pixels that test images are resized to before their central `size` pixels
    are taken; None: they are resized to `size` as they are."""
    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    """Either `steps`, or `epochs` (and then at least `min_steps` steps)."""
    epochs_by_ipc: ByIpc = ()
    """Epochs of small sets, instead of `epochs`."""
    min_steps: int = Field(default=0, ge=0)
    batch: int = Field(gt=0)
    """Images per step; the last batch of an epoch holds the rest."""
    batch_by_ipc: ByIpc = ()
    """Batch of small sets, instead of `batch`."""
    whole_batches: bool = False
    """Lower the batch until it divides the number of images, and the rate in proportion."""
    whole_batches_ipc: int | None = Field(default=None, gt=0)
    """Images per class up to which `whole_batches` holds; None: always."""
    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    lr_by_student: dict[Arch, float] = Field(default_factory=dict)
    """Rates of single students, instead of `lr`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(ge=0)
    decay_vectors: bool = True
    """Whether biases and the scales of norms decay too."""
    schedule: Schedule
    """See `evaluation.pace`."""
    drop_after: int | None = Field(default=None, gt=0)
    """In the unit of the length: steps or epochs."""
    warmup: int | None = Field(default=None, gt=0)
    """Epochs."""
    zeta: float | None = Field(default=None, ge=1)
    """How far the cosine of `smoothing` and `ssrs` is stretched."""
    marks: tuple[Fraction, ...] = ()
    """Shares of the epochs after which `multistep` lowers the rate, rising."""
    gamma: float | None = Field(default=None, gt=0, lt=1)
    """By which `multistep` and `alrs` lower it."""
    ema: float | None = Field(default=None, ge=0, le=1)
    """Share that a step leaves of the average of the weights, which then is what is tested, with
    the batch-norm buffers of the student; None: the last weights are tested."""
    augment: str = Field(pattern=r"^(none|rrc|rrc_flip|shift_flip|dsa:[a-z_]+)$")
    """`rrc`: random resized crop (8 to 100 % of the area); `rrc_flip`: the same and flip;
    `shift_flip`: by up to an eighth of the side, and flip; `dsa:` and families."""
    crop: tuple[Fraction, Fraction] | None = None
    """Share of the area of `rrc` and `rrc_flip`, whose crops are then those of torchvision: out of
    the image as stored, enlarged to `size`."""
    randaugment: bool = False
    """Two RandAugment operations of magnitude 9 on the image as stored, before all else."""
    shuffle_patches: int | None = Field(default=None, ge=2)
    """Parts per side of the stored image whose columns, then rows, are permuted before the crop;
    for collages."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """Largest change of brightness, contrast and saturation, drawn per image."""
    lighting: float = Field(default=0.0, ge=0)
    """Standard deviation of a shift along the principal colours of ImageNet, drawn per image."""
    cutmix: bool = False
    """CutMix in every batch, one box with a share of the area drawn uniformly (Beta(1, 1)). Stored
    views are shown as they are: they carry their own mixing."""
    mixup: float | None = Field(default=None, gt=0, le=1)
    """Mixup in every batch, with one share drawn from Beta(a, a); this is a."""
    loss: Literal["kl", "mse_gt"] = "kl"
    """Of soft labels. `kl` at `temperature`; `mse_gt`: squared error of the logits, and `ce_weight`
    times the cross-entropy with the class, that of the base image where images are mixed."""
    ce_weight: float | None = Field(default=None, ge=0)
    """Of `mse_gt`."""
    temperature: float = Field(default=4.0, gt=0)
    """Of `kl`."""
    scaled: bool = True
    """Whether the soft loss is multiplied by its temperature squared, which keeps the size of the
    gradients (Hinton et al. 2015); SGD at a fixed rate needs it, AdamW does not notice."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast in training; weights and the test are float32."""
    best_every: int | None = Field(default=None, gt=0)
    """Also test after every so many epochs of the last part, for `best_top1` of a run; None:
    test after the last step alone."""
    best_last: Fraction = 1 / 3
    """Share of the epochs that is this last part."""

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        for name, schedules in FIELDS.items():
            given = getattr(self, name) not in (None, ())
            if given and self.schedule not in schedules:
                theirs = " or ".join(schedules)
                raise ValueError(f"{name} belongs to schedule: {theirs}, and to no other")
            if not given and self.schedule in schedules:
                raise ValueError(f"schedule: {self.schedule} needs {name}")
        if any(b <= a for a, b in pairwise(self.marks)):
            raise ValueError(f"marks {self.marks} do not rise")
        if self.crop is not None and (self.size is None or not self.augment.startswith("rrc")):
            raise ValueError("crop is that of augment: rrc or rrc_flip, and needs a size")
        if self.cutmix and self.mixup is not None:
            raise ValueError("cutmix and mixup both mix the batch: give one of them")
        if self.loss == "mse_gt" and self.regimes == ("hard",):
            raise ValueError("loss: mse_gt is for soft labels, and regimes has hard ones alone")
        if self.loss == "mse_gt" and self.ce_weight is None:
            raise ValueError("loss: mse_gt needs ce_weight")
        if self.loss != "mse_gt" and self.ce_weight is not None:
            raise ValueError("ce_weight belongs to loss: mse_gt, and to no other")
        if self.test_side is not None and (self.size is None or self.size > self.test_side):
            raise ValueError("test_side needs a size, which is not larger")
        return self

    def length(self, images: int, classes: int | None = None) -> Length:
        """How many steps of how many images a run on `images` training images takes.

        Args:
            images: Of the training set.
            classes: Of the data set; where batch or epochs go by images per class.

        Raises:
            ValueError: If they do and `classes` is not given.
        """
        batch = self._by_ipc(self.batch_by_ipc, self.batch, images, classes)
        lr = self.lr
        if self.whole_batches and self._is_small(self.whole_batches_ipc, images, classes):
            allowed, batch = batch, largest_divisor(images, batch)
            lr = lr * batch / allowed
        per_epoch = math.ceil(images / batch)
        if self.epochs is None:
            return Length(self.steps or 0, per_epoch, self.drop_after, batch, lr)
        epochs = self._by_ipc(self.epochs_by_ipc, self.epochs, images, classes)
        steps = max(epochs * per_epoch, self.min_steps)
        drop = None if self.drop_after is None else self.drop_after * per_epoch
        return Length(steps, per_epoch, drop, batch, lr)

    def _by_ipc(self, table: ByIpc, above: int, images: int, classes: int | None) -> int:
        small = (value for ipc, value in table if self._is_small(ipc, images, classes))
        return next(small, above)

    def _is_small(self, ipc: int | None, images: int, classes: int | None) -> bool:
        if ipc is None:
            return True
        if classes is None:
            raise ValueError(f"{self.name} goes by images per class; the classes are not given")
        return images <= ipc * classes

    def rate(self, step: int, length: Length) -> float:
        """Learning rate of step 0 .. length.steps - 1; that of `alrs` before the loss lowers it."""
        if length.drop is not None:
            return length.lr if step < length.drop else length.lr / 10
        if self.schedule == "cosine":
            return length.lr * cosine(step, length.steps)
        return length.lr * epoch_factor(
            self.schedule,
            step // length.per_epoch,
            length.epochs,
            warmup=self.warmup or 0,
            zeta=self.zeta or 1.0,
            marks=self.marks,
            gamma=self.gamma or 1.0,
        )

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return self.cutmix or self.mixup is not None

    def looks(self, length: Length) -> frozenset[int]:
        """Finished steps, the last left out, after which the test accuracy is looked at."""
        if self.best_every is None:
            return frozenset()
        epochs = range(self.best_every, length.epochs, self.best_every)
        late = (epoch for epoch in epochs if epoch > length.epochs * (1 - self.best_last))
        return frozenset(epoch * length.per_epoch for epoch in late)

    def resolution(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the student's input for images of the given size, pixels."""
        return (height, width) if self.size is None else (self.size, self.size)

    def students_for(self, height: int, width: int) -> tuple[str, ...]:
        """The students of an evaluation that names none."""
        return self.students or (convnet_for(min(self.resolution(height, width))),)

    def plain(self) -> Self:
        """The same without augmentation, for the `_plain` arms."""
        nothing = {
            "augment": "none",
            "crop": None,
            "randaugment": False,
            "shuffle_patches": None,
            "jitter": 0.0,
            "lighting": 0.0,
            "cutmix": False,
            "mixup": None,
        }
        return self.model_copy(update=nothing)

    def for_student(self, arch: str) -> Self:
        """The same with the rate of that student."""
        if arch not in self.lr_by_student:
            return self
        return self.model_copy(update={"lr": self.lr_by_student[arch]})

    @property
    def sha256(self) -> str:
        """Digest of all fields; one that came later counts only where it says something."""
        fields = type(self).model_fields
        unsaid = {
            n
            for n in _LATER
            if getattr(self, n) == fields[n].get_default(call_default_factory=True)
        }
        return digest_of(self.model_dump(mode="json", exclude={"source", *unsaid}))


_LATER = (
    "test_side",
    "epochs_by_ipc",
    "batch_by_ipc",
    "whole_batches",
    "whole_batches_ipc",
    "lr_by_student",
    "decay_vectors",
    "warmup",
    "crop",
    "jitter",
    "lighting",
    "cutmix",
    "best_every",
    "best_last",
    "zeta",
    "marks",
    "gamma",
    "ema",
    "randaugment",
    "shuffle_patches",
    "mixup",
    "loss",
    "ce_weight",
)
"""Fields that the first protocols did not have; their digests stand in published reports."""


def largest_divisor(images: int, most: int) -> int:
    """The largest number up to `most` that divides `images`."""
    return next(batch for batch in range(min(most, images), 0, -1) if images % batch == 0)


def convnet_for(side: int) -> str:
    """The ConvNet that ends at about 4 pixels: depth 3 for sides of 28 and 32, 4 for 64."""
    return f"convnet{max(1, round(math.log2(side)) - 2)}"
