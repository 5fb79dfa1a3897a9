"""What a recipe asks to be scored: an entry of `evaluate:`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from distillhub.evaluation import protocols
from distillhub.models.specs import Arch
from distillhub.records.report import Arm, Regime, regime_of
from distillhub.spec import Fraction, Spec


def _known(name: str) -> str:
    if name.startswith(protocols.REFERENCE):
        raise ValueError(f"'{name}' is not chosen; arm full_hard of its protocol brings it along")
    return protocols.get(name).name


class Cited(Spec):
    """A published accuracy."""

    top1: Fraction
    source: str = Field(min_length=1)
    """Paper and table."""


class Expectation(Cited):
    """A published accuracy of the method, to stand beside ours."""

    within: Fraction = 0.01
    """Difference up to which ours is said to agree."""
    regime: Regime | None = None
    """Labels of the published training; None: the regime the set is sold under, where the protocol
    has it, else the protocol's first."""


class EvalSpec(Spec):
    """One protocol on one or more students."""

    protocol: Annotated[str, AfterValidator(_known)]
    students: tuple[Arch, ...] = ()
    """Empty: the protocol's own. The first of the first entry is the headline of the card."""
    arms: Literal["auto"] | tuple[Arm, ...] = "auto"
    """`auto`: distilled and random images with every label that set and protocol have, and the
    real data."""
    runs: int | None = Field(default=None, ge=1)
    """Paired seeds; None: the protocol's number."""
    full_runs: int | None = Field(default=None, ge=1)
    """Runs of arm full_hard where it is dear; None: as many as of the others."""
    full_cited: dict[Arch, Cited] = Field(default_factory=dict)
    """Published accuracy of a student on the real data; arm full_hard then is not run."""
    augment_arms: bool = False
    """Also train the hard arms without augmentation, which `ars` needs."""
    expect: dict[Arch, Expectation] = Field(default_factory=dict)
    """Published accuracy of the distilled set per student; another regime is another entry of
    `evaluate:`, with the protocol of that regime."""

    @model_validator(mode="after")
    def _arms_fit_the_protocol(self) -> Self:
        regimes = protocols.get(self.protocol).regimes
        for arch, theirs in self.expect.items():
            if theirs.regime is not None and theirs.regime not in regimes:
                raise ValueError(
                    f"expect.{arch} is for {theirs.regime} labels; "
                    f"protocol {self.protocol} trains with {', '.join(regimes)} labels"
                )
        if self.arms == "auto":
            return self
        if not self.arms:
            raise ValueError("arms is empty; leave it out for all of them")
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"an arm is named twice in {', '.join(self.arms)}")
        for arm in self.arms:
            regime = regime_of(arm)
            if arm != "full_hard" and regime not in regimes:
                raise ValueError(
                    f"protocol {self.protocol} has no {regime} arms, so not {arm}; "
                    f"it trains with {', '.join(regimes)} labels"
                )
        return self
