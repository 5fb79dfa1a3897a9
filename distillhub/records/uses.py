"""`continual.json` and `slim.json`: what a set was used for, and what came of it.

As in `eval.json`, accuracies are fractions, and what was not measured says why.
"""

from typing import Annotated, Literal

from pydantic import Field

from distillhub.data.specs import Digest
from distillhub.records.report import Arm, Metric, Record, Regime, Run
from distillhub.spec import Fraction

CONTINUAL: Literal["distillhub.continual/1"] = "distillhub.continual/1"
SLIM: Literal["distillhub.slim/1"] = "distillhub.slim/1"


class UsedSet(Record):
    """The set, by content."""

    name: str
    revision: str | None
    manifest_sha256: Digest | None
    """Digest of the artifact, labels included; None: the set has no manifest."""
    images_sha256: Digest
    """Over stored image files and labels in row order."""
    images: int = Field(gt=0)
    """As stored."""
    class_names: tuple[str, ...]


class Use(Record):
    """What every use of a set has in common."""

    dataset: UsedSet
    data: str
    """Real images: those tested on, and those that random ones were drawn from."""
    test_sha256: Digest
    protocol: str
    protocol_sha256: Digest
    publishable: bool
    """Whether figures of this protocol mean anything."""
    arch: str
    regime: Regime
    """Labels of the distilled images; random ones have hard labels."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Of the runs; distilled and random images share them."""
    device: str
    threads: int = Field(gt=0)
    code_version: str
    notes: tuple[str, ...] = ()
    """What a reader must know before trusting the figures."""


class Stage(Record):
    """After some classes have come: students trained on all images of the classes seen so far."""

    new: tuple[int, ...] = Field(min_length=1)
    """Classes that came with this stage."""
    seen: int = Field(gt=0)
    """Classes so far: outputs of the students."""
    top1: dict[Arm, Metric]
    """On the test images of the classes seen so far."""
    gain: Metric
    """Distilled minus random, paired by seed."""
    runs: tuple[Run, ...]


class ContinualReport(Use):
    """The whole of `continual.json`."""

    schema_: Literal["distillhub.continual/1"] = Field(default=CONTINUAL, alias="schema")
    order_seed: int = Field(ge=0)
    class_order: tuple[int, ...]
    """Classes in the order in which they came; one order for all runs."""
    stages: tuple[Stage, ...]
    mean_top1: dict[Arm, Metric]
    """Mean over the stages."""
    mean_gain: Metric


class SlimRun(Record):
    """One pruned and fine-tuned network."""

    arm: Arm
    seed: int = Field(ge=0)
    ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of all channels that was to go."""
    channels: tuple[int, ...]
    """That are left, layer by layer."""
    pruned: Fraction
    """Share of all channels that went."""
    spared: tuple[int, ...]
    """Layers, counted from 0, that the ratio would have emptied; each keeps its largest channel."""
    parameters: int = Field(gt=0)
    flops: int = Field(gt=0)
    """Of one image forward: convolutions and matrix products, 2 per multiply-add."""
    top1_pruned: Fraction
    """Before fine-tuning."""
    top1: Fraction
    """After it."""
    steps: int = Field(gt=0)
    """Of fine-tuning."""


class SlimPoint(Record):
    """The networks of one pruning ratio."""

    ratio: float
    parameters: dict[Arm, float]
    """Mean over the runs: which channels go depends on the training."""
    flops: dict[Arm, float]
    top1_pruned: dict[Arm, Metric]
    top1: dict[Arm, Metric]
    gain: Metric
    """Distilled minus random after fine-tuning, paired by seed."""


class SlimReport(Use):
    """The whole of `slim.json`."""

    schema_: Literal["distillhub.slim/1"] = Field(default=SLIM, alias="schema")
    sparsity: float = Field(ge=0)
    """Weight of the L1 norm of the scales of the batch norms."""
    finetune: float = Field(gt=0)
    """Length of fine-tuning as a share of the protocol's."""
    resolution: tuple[int, int]
    """Height and width of the network's input in pixels."""
    layers: tuple[int, ...]
    """Channels of the network before pruning."""
    parameters: int = Field(gt=0)
    flops: int = Field(gt=0)
    points: tuple[SlimPoint, ...]
    runs: tuple[SlimRun, ...]
