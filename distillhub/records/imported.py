"""How a set that was not built here came in: a block of `eval.json`."""

from typing import Literal

from pydantic import Field

from distillhub.data.specs import Digest
from distillhub.spec import Spec

ImportKind = Literal["folder", "pt", "npz", "hub"]
"""Where images come from; label folders stand beside any of them."""


class ImportBlock(Spec):
    """What was read, what was taken for granted, and what nobody said."""

    kind: ImportKind
    origin: str
    """Name of the file or folder, or Hub id with its commit; never a path of the machine."""
    inputs: dict[str, Digest]
    """sha256 of what was read: files by name, of folders one over all files."""
    assumed: tuple[str, ...] = ()
    """A sentence each."""
    unknown: tuple[str, ...] = ()
    """`method`, `license`, ...: what a set built here would say."""
    counts: tuple[int, ...] = Field(min_length=1)
    """Images per class; classes may have different numbers."""
    normalization: Literal["given", "own images"]
    """Where mean and standard deviation of the card are from."""
