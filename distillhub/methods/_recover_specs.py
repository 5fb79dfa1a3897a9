"""The choices of the statistical-matching family: batches, statistics, losses, views, faults."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillhub.spec import Fraction, Spec

Guides = Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...]
"""Numbers of observers, counted from 0."""
Weight = Annotated[float, Field(ge=0)]
"""Of a loss; 0 leaves its work out."""


class BatchSpec(Spec):
    """Which images are optimised together: statistics are those of a batch."""

    order: Literal["class_major", "interleaved", "one_class"] = "class_major"
    """`class_major`: class after class, cut into batches (EDC, G-VBSM); `interleaved`: different
    classes, image after image (SRe2L); `one_class`: batches never hold two classes (LPLD)."""
    size: Annotated[int, Field(gt=0)] | Literal["all"] = 100
    """Images per batch at most; `all`: as many as the order allows."""


class MatchSpec(Spec):
    """How statistics of a batch are compared with those of the real images."""

    alpha: Fraction = 0.5
    """Share of the whole training set's statistics; the rest is for those of the classes."""
    category_matching: Literal["batch_mixture", "per_class"] = "batch_mixture"
    """`batch_mixture`: the batch as a whole with the mean of the classes of its images (the
    authors' code); `per_class`: every class in the batch with its own (EDC, Eq. 5)."""
    class_variance: Literal["within_image", "total"] = "within_image"
    """`within_image`: mean over the images of a class of their own variances (the authors' code);
    `total`: what lies between the images counts, too."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Of the batch's running statistics; 0: those of the step alone."""
    momentum_reset: Literal["batch", "never"] = "batch"
    """`never`: they go on from one batch to the next, which ties all images into one unit."""
    layer_norm: Literal["sum", "mean", "per_channel"] = "sum"
    """Of the distances of the layers: `mean` divides by the number of layers; `per_channel` does
    that and takes root mean squares for norms, so that a weight fits networks of any size."""
    first_multiplier: Weight = 10.0
    """Weight of the first layer, whose input is the image where convolutions are matched."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a convolution is left out of a step."""


class DensifySpec(Spec):
    """G-VBSM's densification: the images of a class in a batch are made to differ."""

    weight: Weight = 0.0
    tau: float = Field(default=4.0, gt=0)
    """The eigenvalues' softmax at this temperature is the goal."""
    side: int = Field(default=32, gt=0)
    """Pixels to which a view is pooled."""


class FlatnessSpec(Spec):
    """EDC's regulariser: the logits stay near those of the images' own moving average."""

    weight: Weight = 0.25
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the average, per step."""
    tau: float = Field(default=4.0, gt=0)
    direction: Literal["ema_teacher", "paper"] = "ema_teacher"
    """`ema_teacher`: KL(average || images), as in the authors' code; `paper`: KL(images || average)
    of EDC's Eq. 7."""
    reduction: Literal["batchmean", "mean"] = "batchmean"
    """`mean`: over images and classes, as in the authors' code."""


class LossesSpec(Spec):
    """Weights of the terms; a term of weight 0 costs nothing."""

    ce: Weight = 1.0
    """Cross-entropy with the image's class."""
    stat: Weight = 0.01
    """Distances of statistics."""
    densify: DensifySpec = DensifySpec()
    flatness: FlatnessSpec = FlatnessSpec()
    tv: Weight = 0.0
    """Differences of neighbouring pixels."""
    l2: Weight = 0.0
    """Norm of the images."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not any((self.ce, self.stat, self.densify.weight, self.tv, self.l2)):
            raise ValueError("every weight is 0, so the images would stay as they are")
        return self


class CurriculumSpec(Spec):
    """CDA: the smallest crop shrinks from the whole image to the lower end of `crop`."""

    mode: Literal["cosine", "linear", "step"] = "cosine"
    """`step`: whole images until the milestone."""
    milestone: Fraction = 1.0
    """Share of the iterations after which crops are as small as they get; 0: from the start."""


class LookSpec(Spec):
    """The random look that an observer gets at a batch: one for all its images."""

    crop: tuple[Fraction, Fraction] | None = (0.5, 1.0)
    """Share of the image's area that is cut out and enlarged; null: no crop."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Width / height of a crop, drawn log-uniformly."""
    curriculum: CurriculumSpec | None = None
    flip: bool = True
    """Mirrored with probability 1/2."""
    roll: int = Field(default=0, ge=0)
    """Shift to the right and down by up to this many pixels, what leaves coming in again."""
    per_image: bool = False
    """A crop and a flip per image, which is no published method."""

    @model_validator(mode="after")
    def _ranges_rise_from_above_zero(self) -> Self:
        for name, found in (("crop", self.crop), ("ratio", self.ratio)):
            if found is not None and not 0 < found[0] <= found[1]:
                raise ValueError(
                    f"{name} is [{found[0]}, {found[1]}]; the first above 0, the second not below"
                )
        if self.curriculum is not None and (self.crop is None or self.crop[1] != 1):
            raise ValueError("a curriculum starts at whole images: crop must end at 1.0")
        return self


class RecoverCompatSpec(Spec):
    """Faults of EDC's published code, to reproduce what it made."""

    swap_class_patch_stats: bool = False
    """Means and variances of the classes' patches changed places when they were saved."""
    leak_momentum: bool = False
    """Running statistics start at 0 and are never reset: all images are one unit."""
    ema_before_step: bool = False
    """The moving average takes in the images before their step."""


def over(default: object, given: object) -> object:
    """A block as it is written in a recipe over a default block, key by key."""
    if not isinstance(default, Spec) or not isinstance(given, Mapping):
        return given
    own = {name: getattr(default, name) for name in default.model_fields_set}
    return own | {
        name: over(getattr(default, str(name), None), value) for name, value in given.items()
    }
