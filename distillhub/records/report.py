"""`eval.json`: what was measured, with which protocol, and what was not; the card is a view of it.

Accuracies are fractions in [0, 1]; a percentage is refused. A figure that was not measured is null
and its status says why. NaN and Infinity cannot be stored, unknown keys are errors.
"""

import json
import math
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from distillhub.data.specs import Digest
from distillhub.digests import digest_of
from distillhub.errors import Fault, VerificationError
from distillhub.records.card import CardBlock
from distillhub.records.doping import DopingBlock, ReferenceBlock
from distillhub.records.imported import ImportBlock
from distillhub.spec import Fraction, Spec

SCHEMA: Literal["distillhub.eval/1"] = "distillhub.eval/1"

Arm = Literal[
    "full_hard",
    "syn_hard",
    "syn_soft",
    "rnd_hard",
    "rnd_soft",
    "syn_hard_plain",
    "rnd_hard_plain",
    "syn_soft_online",
    "rnd_soft_online",
    "rnd_packed_hard",
    "rnd_packed_soft",
]
"""Images and labels of a training: full / distilled / random, hard / soft.

`packed`: mosaics of random images, as many as the distilled ones; only beside a set of mosaics.

`plain`: without augmentation. `online`: the teacher labels each batch as it is shown.
"""
Regime = Literal["hard", "soft_stored", "soft_online"]
"""`soft_stored`: only the labels inside the data set, no teacher at training time; `soft_online`:
the teacher of the build labels every augmented and mixed batch."""


def regime_of(arm: str) -> Regime:
    """The labels that an arm trains with."""
    if arm.endswith("_online"):
        return "soft_online"
    return "soft_stored" if arm.endswith("_soft") else "hard"


Status = Literal["measured", "not_run", "not_applicable", "cited"]
Unit = Literal["fraction", "difference", "ratio", "score", "nats"]
"""`fraction` in [0, 1], `difference` of two of them in [-1, 1]; ratios and scores have no unit."""


class Record(Spec):
    """Base of the records here: frozen, no unknown keys, no NaN, no Infinity."""

    model_config = ConfigDict(allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True)


class PlannedRun(Record):
    """One training that an evaluation asks for."""

    id: str = Field(pattern=r"^[A-Za-z0-9._@-]+$")
    """A safe file name: `digits-1.convnet3-w32.syn_hard.s0`."""
    protocol: str
    arm: Arm
    arch: str
    regime: Regime
    seed: int = Field(ge=0)
    """Of the network, the batches and the augmentation; all arms of run i share it."""
    subset_seed: int | None = Field(default=None, ge=0)
    """Of the random images; None for arms without any."""


class Run(PlannedRun):
    """One training and its test, after the last epoch."""

    steps: int = Field(gt=0)
    """Optimizer steps."""
    images_seen: int = Field(gt=0)
    train_images: int = Field(gt=0)
    test_images: int = Field(gt=0)
    resolution: tuple[int, int]
    """Height and width of the student's input in pixels."""
    top1: Fraction
    top5: Fraction | None
    """None where there are at most five classes."""
    nll: float = Field(ge=0)
    """Mean negative log likelihood of the true class, nats."""
    ece: Fraction
    """Expected calibration error, 15 equal bins."""
    brier: float = Field(ge=0, le=2)
    class_acc: tuple[Fraction | None, ...]
    """Recall per class; None for a class without test images."""
    best_top1: Fraction | None = None
    """Highest accuracy of the epochs that the protocol looks at: a selection on the test set, kept
    beside `top1` for papers that report it; None where only the last epoch was tested."""
    best_epoch: int | None = Field(default=None, gt=0)
    """Finished epochs of that one."""
    wall_s: float = Field(ge=0)
    device: str
    code_version: str

    @model_serializer(mode="wrap")
    def _without_what_was_not_looked_at(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Runs without `best_top1` have the text and the digest that they always had."""
        content: dict[str, object] = handler(self)
        return {k: v for k, v in content.items() if v is not None or k not in BEST}


BEST = frozenset({"best_top1", "best_epoch"})
"""Fields of a run that are left out where the protocol tests after the last epoch alone."""
TIMES_AND_HOSTS = frozenset({"wall_s", "device", "code_version"})
"""Fields of a run that differ between machines and say nothing about its result."""


class Metric(Record):
    """A figure with its spread, or the reason why there is none."""

    value: float | None = None
    ci95: tuple[float, float] | None = None
    """95 % t interval of the mean over the runs; None for fewer than three runs."""
    std: float | None = Field(default=None, ge=0)
    """Sample standard deviation over the runs (ddof = 1)."""
    n: int = Field(default=0, ge=0)
    """Runs, or pairs of runs, behind the value."""
    unit: Unit = "fraction"
    status: Status = "not_run"
    runs: tuple[str, ...] = ()
    source: str | None = None
    """Where a cited figure is from."""
    note: str = ""

    @model_validator(mode="after")
    def _value_and_status_agree(self) -> Self:
        if (self.value is None) != (self.status in ("not_run", "not_applicable")):
            raise ValueError(f"status is {self.status} but value is {self.value}")
        if self.status == "cited" and not self.source:
            raise ValueError("a cited figure needs its source")
        low = {"fraction": 0.0, "difference": -1.0, "ratio": 0.0}.get(self.unit, -math.inf)
        high = {"fraction": 1.0, "difference": 1.0}.get(self.unit, math.inf)
        if self.value is not None and not low <= self.value <= high:
            raise ValueError(
                f"{self.value} is no {self.unit} in [{low:g}, {high:g}]; "
                f"percentages are not stored, {self.value / 100:g} may be meant"
            )
        return self


class Expected(Record):
    """What a user should see when training with this protocol: mean -+ 3 standard deviations."""

    protocol: str
    arm: Arm
    arch: str
    low: Fraction
    high: Fraction


class PaperFigure(Record):
    """A published accuracy, cited by the recipe, beside ours."""

    top1: Fraction
    within: Fraction
    """Difference up to which the two are said to agree."""
    source: str = Field(min_length=1)
    arm: Arm
    difference: float | None = Field(default=None, ge=-1, le=1)
    """Ours - theirs; None where ours was not run."""
    agrees: bool | None = None


class Comparison(Record):
    """Every metric of one architecture under one protocol, or a pair of them (one per regime)."""

    protocols: dict[Regime, str]
    arch: str
    metrics: dict[str, Metric]
    """`top1.syn_hard`, `ior`, `gain_images_soft`, ...; the list is in `evaluation.summary`."""
    class_acc: dict[Arm, tuple[Fraction | None, ...]] = Field(default_factory=dict)
    """Mean recall per class and arm."""
    verdicts: dict[Regime, str] = Field(default_factory=dict)
    """One plain sentence per regime: do the images beat random ones?"""
    expected: Expected | None = None
    papers: dict[Regime, PaperFigure] = Field(default_factory=dict)
    """Published accuracies that the recipe cites for this student."""

    @model_validator(mode="before")
    @classmethod
    def _one_paper(cls, content: object) -> object:
        """Earlier reports have one figure, `paper`, in the regime of its arm."""
        if not isinstance(content, dict) or "paper" not in content:
            return content
        rest = {key: value for key, value in content.items() if key != "paper"}
        match content["paper"]:
            case None:
                return rest
            case {"arm": str(arm)} as paper:
                return {**rest, "papers": {regime_of(arm): paper}}
        raise ValueError("paper has no arm")


class DatasetBlock(Record):
    """The published set."""

    name: str
    version: str
    manifest_sha256: Digest | None
    """Digest of the manifest's content block; None until the manifest is made."""
    recipe_sha256: Digest
    ipc: int = Field(gt=0)
    """Images per class; of an imported set the largest number, see `imported.counts`."""
    classes: int = Field(gt=1)
    images: int = Field(gt=0)
    resolution: tuple[int, int]
    counts: tuple[int, ...] | None = None
    """Images per class where their numbers differ, with `ipc` as their mean; None: `ipc` each."""
    formation: int = Field(default=1, ge=1)
    """Sub-images per side of a stored image; each of them trains as an image."""


class SourceBlock(Record):
    """The real data."""

    id: str
    revision: str | None
    split_hashes: dict[str, Digest]
    test_hash: Digest | None
    class_order_sha256: Digest


class TeacherBlock(Record):
    """A network that labelled or guided."""

    role: str
    arch: str
    weights_sha256: Digest
    top1: Fraction | None
    """On the held-out part of the training split."""


class GeneratorBlock(Record):
    """A generative model behind the images."""

    id: str
    """Repository of its weights, or the architecture of one that was trained here."""
    revision: str | None
    sha256: Digest
    license: str | None = None
    """Of its weights; None: trained here, on the source alone."""


class MethodBlock(Record):
    """How the images were made."""

    name: str
    version: int | None
    """None: not known, as of imported sets."""
    real_pixels: bool | None
    """Whether the images are copies of real ones by construction; None: not known."""
    teacher: tuple[TeacherBlock, ...] = ()
    generator: GeneratorBlock | None = None
    label: str | None = None
    """How readers know it; None: by its name."""

    @property
    def shown(self) -> str:
        """Its label, or its name as code."""
        return self.label or f"`{self.name}`"


class ZcaBlock(Record):
    """A whitening that belongs to the images."""

    eps: float = Field(gt=0)
    matrix_sha256: Digest


class PreprocessBlock(Record):
    """What a student does with the stored pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    zca: ZcaBlock | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    channel_order: Literal["grey", "RGB"]
    label_names: tuple[str, ...]


class LabelsBlock(Record):
    """The regime the set is sold under, and what its labels are."""

    regime: Regime
    views_per_image: int | None = None
    classes_kept: int | None = None
    dtype: Literal["float16", "uint8"] | None = None
    temperature: float | None = None
    """None: logits are stored, any temperature can be applied."""
    bits_per_image: float | None = None
    teacher_agreement: Fraction | None = None
    """Share of views whose highest stored logit is the class of the image."""
    codec_kl: dict[str, float] = Field(default_factory=dict)
    """Mean KL(full || stored) in nats at a temperature: {"1": ..., "4": ..., "20": ...}."""
    codec_mse: float | None = None
    """Mean squared difference of full and stored logits; written where it was measured."""
    codec_top1_agreement: Fraction | None = None
    statistics: dict[str, float] = Field(default_factory=dict)
    """Of the stored labels, to be found again by `verify`."""
    networks: tuple[str, ...] = ()
    """Roles whose mean logits they are, stored and online; written where it is not the teacher."""

    @model_serializer(mode="wrap")
    def _what_came_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = handler(self)
        later = {"networks": bool(self.networks), "codec_mse": self.codec_mse is not None}
        return {key: value for key, value in content.items() if later.get(key, True)}


class ProtocolBlock(Record):
    """A protocol as it ran."""

    sha256: Digest
    publishable: bool
    summary: str


class StorageBlock(Record):
    """Bytes as published."""

    bytes_images: int = Field(ge=0)
    bytes_labels: int = Field(ge=0)
    bytes_aux: int = Field(ge=0)
    bytes_total: int = Field(ge=0)
    bytes_source: int | None = Field(default=None, ge=0)
    label_image_ratio: float = Field(ge=0)
    compression: float | None = Field(default=None, ge=0)
    """bytes_total / bytes_source."""

    @model_validator(mode="after")
    def _total_is_the_sum(self) -> Self:
        parts = self.bytes_images + self.bytes_labels + self.bytes_aux
        if parts != self.bytes_total:
            raise ValueError(f"bytes_total is {self.bytes_total}, the parts sum to {parts}")
        return self


class ComputeBlock(Record):
    """What one stage cost on the machine that ran it."""

    wall_seconds: float = Field(ge=0)
    cpu_seconds: float | None = Field(default=None, ge=0)
    gpu_seconds: float | None = Field(default=None, ge=0)
    peak_host_bytes: int | None = Field(default=None, ge=0)
    peak_gpu_bytes: int | None = Field(default=None, ge=0)
    device_name: str
    energy_kwh: float | None = Field(default=None, ge=0)
    energy_status: Literal["measured", "estimated", "not_available"] = "not_available"


class PrivacyBlock(Record):
    """Copies and attacks."""

    real_pixel_share: Fraction | None
    """Share of images that contain source pixels by construction; None: not known."""
    copy_rate: Metric = Metric(note="no copy detection was run")
    mia: Metric = Metric(unit="score", note="no membership attack was run")


class RightsBlock(Record):
    """Licences."""

    source_license: str | None = None
    output_license: str | None = None
    redistributable: Literal["yes", "no", "unknown"] = "unknown"


class EnvironmentBlock(Record):
    """The software that ran the evaluation."""

    python: str
    torch: str
    cuda: str | None = None
    driver: str | None = None
    os: str
    lock_sha256: Digest | None = None
    deterministic: bool
    threads: int = Field(gt=0)


class Warned(Record):
    """Something a reader must know before trusting a figure."""

    code: str
    text: str


def _unique(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    seen: set[str] = set()
    for run in runs:
        if run.id in seen:
            raise ValueError(f"run {run.id} is listed twice")
        seen.add(run.id)
    return runs


class EvalReport(Record):
    """The whole of `eval.json`."""

    schema_: Literal["distillhub.eval/1"] = Field(default=SCHEMA, alias="schema")
    dataset: DatasetBlock
    source: SourceBlock
    method: MethodBlock
    preprocess: PreprocessBlock
    labels: LabelsBlock
    protocols: dict[str, ProtocolBlock]
    planned: tuple[PlannedRun, ...]
    runs: Annotated[tuple[Run, ...], AfterValidator(_unique)]
    comparisons: tuple[Comparison, ...]
    """The first is the headline: the recipe's first entry and its first student."""
    cross_arch: dict[str, Metric] = Field(default_factory=dict)
    """top1 per architecture in the regime the set is sold under, `mean_other` and `gap`."""
    storage: StorageBlock | None = None
    compute: dict[str, ComputeBlock] = Field(default_factory=dict)
    privacy: PrivacyBlock | None = None
    rights: RightsBlock | None = None
    environment: EnvironmentBlock
    imported: ImportBlock | None = None
    """How the set came in; None: it was built here."""
    doping: DopingBlock | None = None
    """Base and real images of a doped set."""
    reference: ReferenceBlock | None = None
    """Real images that the set names, with or without their pixels; None: it names none."""
    card: CardBlock | None = None
    """None until the card is made."""
    limitations: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the card opens with; None where nothing was evaluated."""
        return self.comparisons[0] if self.comparisons else None

    @property
    def runs_sha256(self) -> str:
        """Digest of the results: see `runs_digest`."""
        return runs_digest(self.runs)


def runs_digest(runs: tuple[Run, ...]) -> str:
    """Sha256 over the runs ordered by id, without times and hosts."""
    content = [
        run.model_dump(mode="json", exclude=set(TIMES_AND_HOSTS))
        for run in sorted(runs, key=lambda run: run.id)
    ]
    return digest_of(content)


def dumps(report: EvalReport) -> str:
    """The text of `eval.json`; equal reports give equal text."""
    content = report.model_dump(mode="json")
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def loads(text: str | bytes, *, where: str = "eval.json") -> EvalReport:
    """Read the text of an `eval.json`.

    Raises:
        VerificationError: If it is not one; every fault names its key.
    """
    try:
        return EvalReport.model_validate_json(text)
    except ValidationError as error:
        raise VerificationError.of(
            Fault(fault["msg"], f"{where}: {'.'.join(map(str, fault['loc']))}")
            for fault in error.errors()
        ) from None
