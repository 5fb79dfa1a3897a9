"""What stands on a card and was not measured: a block of `eval.json`.

With it there, the card is a view of that file alone.
"""

from pydantic import Field, JsonValue

from distillhub.spec import Spec


class CitedPaper(Spec):
    """Where a method, a protocol or a data set comes from."""

    title: str
    authors: str
    venue: str
    arxiv: str | None = None
    code: str | None = None


class CardBlock(Spec):
    """Title, rights, citations and the front matter's own block."""

    title: str
    license: str
    license_name: str | None = None
    license_link: str | None = None
    authors: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    papers: tuple[CitedPaper, ...] = ()
    repo_id: str | None = None
    """Where the set is published; None: it is opened from its folder."""
    recipe: str
    """File stem of the recipe."""
    rendering: int = 1
    """Version of the renderer that wrote the card; see `packaging.rendering`."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """`configs`, `dataset_info` and `distillhub` of the front matter; readers of a set need it."""
