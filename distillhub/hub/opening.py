"""A published version as a folder for as long as somebody looks at it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillhub.hub.addresses import needed_address
from distillhub.hub.fetch import fetch


@contextmanager
def fetched(word: str) -> Iterator[Path]:
    """The folder of a version, checked as `fetch` checks it; gone when the block ends.

    Args:
        word: `org/name` or `org/name@revision`.

    Raises:
        UsageError: If the word is no address.
        HubError: If there is no such version, or neither Hub nor cache can be reached.
        VerificationError: If a file is not what Hub and manifest say.
    """
    name = needed_address(word).repo.split("/")[1]
    with tempfile.TemporaryDirectory(prefix="distillhub-set-") as temporary:
        yield fetch(word, Path(temporary) / name).folder
