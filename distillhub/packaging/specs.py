"""What a recipe says of the published set: its version, its card and where it goes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillhub.spec import Spec

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]*$")]
"""Text without line breaks: a fault in the card can then be named by its line."""


class PackageSpec(Spec):
    """The published form of the data: `package:` of a recipe."""

    version: str = Field(default="1.0.0", pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$")
    """Semantic: schema or source data . images or labels made anew . card or evaluation."""


class CardSpec(Spec):
    """What cannot be measured and stands on the card: `card:` of a recipe."""

    license: Line
    """Of the distilled set, as the Hub spells it: `cc-by-4.0`; `other` needs a name and a link."""
    license_name: Line | None = None
    license_link: Line | None = None
    source_license: Line | None = None
    """License of the real images; None: not known."""
    redistributable: Literal["yes", "no", "unknown"] = "unknown"
    """Whether the real images may be published again; decides whether copies of them may."""
    pretty_name: Line | None = None
    """Title of the card; None: source, method and images per class."""
    authors: tuple[Line, ...] = ()
    tags: tuple[Line, ...] = ()
    """Beside `dataset-distillation`, `distillhub` and the method's name."""
    notes: tuple[Line, ...] = ()
    """Limits and remarks; one paragraph each on the card."""

    @model_validator(mode="after")
    def _other_license_is_named(self) -> "CardSpec":
        if self.license == "other" and not (self.license_name and self.license_link):
            raise ValueError("license: other needs license_name and license_link")
        return self


class PublishSpec(Spec):
    """Where `distillhub publish` sends the set: `publish:` of a recipe."""

    repo_id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """`organisation/name` on the Hub."""
    private: bool = True
    """Whether a repository made by the first publication is private."""
