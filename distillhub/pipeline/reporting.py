"""What long work says while it runs; the command line decides how it looks."""

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Receives the news of a build."""

    def stage(self, name: str, stem: str) -> None:
        """A stage begins."""

    def progress(self, label: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """`done` of `total` steps of one piece of work are finished; called often."""

    def note(self, text: str) -> None:
        """A sentence worth keeping in a log."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, stem: str) -> None:
        """Nothing."""

    def progress(self, label: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
