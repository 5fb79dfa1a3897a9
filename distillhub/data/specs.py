"""What a recipe says of its data set, its image files, and what `resolve` pins of them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from distillhub.spec import Fraction, Spec

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Channels = Literal[1, 3]


class SplitPin(Spec):
    """What a split was when the recipe was resolved."""

    rows: int
    sha256: Digest
    """Over (image bytes, label) in row order; see `data.pins.Digester`."""


class DataPin(Spec):
    """Everything `resolve` found out about a source; later stages trust it and check it."""

    revision: str | None
    """Commit of the Hub repository; None for folders and built-in sets."""
    train: SplitPin
    test: SplitPin | None
    """None only where the source has no test split at hand (then nothing can be evaluated)."""
    class_names: tuple[str, ...]
    """In label order of the distilled set."""
    counts: tuple[int, ...]
    """Training images per class, the held-out part included."""
    channels: Channels
    height: int
    width: int
    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]; what networks normalise with."""
    std: tuple[float, ...]


def _test_split(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < 1:
        hint = f"; did you mean {value / 100:g}?" if 1 <= value < 100 else ""
        raise ValueError(f"a share of the training split lies between 0 and 1, not {value}{hint}")
    return value


class SourceSpec(Spec):
    """A data set of labelled images: `dataset:` of a recipe."""

    id: str = Field(min_length=1)
    """Hub id, local folder, or `sklearn:digits`."""
    config: str | None = None
    """Configuration of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set; `resolve` pins it."""
    train: str = "train"
    """Name of the training split."""
    test: Annotated[str | float | None, BeforeValidator(_test_split)] = "test"
    """Name of the test split, or the share of the training split to set apart as one."""
    image: str | None = None
    """Image column; None: the only column of type Image."""
    label: str | None = None
    """Label column; None: the only column of type ClassLabel, else `label`."""
    classes: str | tuple[str, ...] | None = None
    """A named subset (`imagenette`, ...), or class names in label order; None: all."""
    size: int | None = Field(default=None, ge=4, le=1024)
    """Side of the stored images in pixels; None: as they are, all must agree."""
    resize: Literal["crop", "squash"] = "crop"
    """`crop`: the largest centered square to `size`; `squash`: both sides to `size`."""
    channels: Channels | None = None
    """1 grey, 3 RGB; None: as the source is."""
    holdout: Fraction = Field(default=0.1, gt=0, lt=1)
    """Share of the training split kept out of network training, for choosing anything."""
    mean: tuple[float, ...] | None = None
    """Normalisation per channel; None: published values of a known set, else measured."""
    std: tuple[float, ...] | None = None
    pin: DataPin | None = None
    """Written by `resolve`."""

    @model_validator(mode="after")
    def _mean_and_std_together(self) -> "SourceSpec":
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        return self

    @property
    def pinned(self) -> DataPin:
        """The pin; only resolved recipes have one."""
        if self.pin is None:
            raise ValueError(f"{self.id} has not been resolved")
        return self.pin


class ImageFormat(Spec):
    """How distilled images are stored: `images:` of a recipe."""

    codec: Literal["png", "webp", "jpeg"] = "png"
    """`png` and `webp` are lossless; `jpeg` is not."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """JPEG quality; None: 95."""

    @model_validator(mode="after")
    def _quality_needs_jpeg(self) -> "ImageFormat":
        if self.quality is not None and self.codec != "jpeg":
            raise ValueError(f"{self.codec} is lossless here and takes no quality")
        return self
