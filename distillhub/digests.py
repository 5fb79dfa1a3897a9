"""sha256 of files and of plain content."""

import hashlib
import json
from pathlib import Path


def canonical(content: object) -> bytes:
    """The one JSON text of plain content: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: If a number is NaN or infinite.
        TypeError: If something is not plain JSON content.
    """
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest_of(content: object) -> str:
    """sha256 of the canonical JSON of plain content, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(content)).hexdigest()


def fingerprint(*content: object) -> str:
    """`digest_of` the list of all arguments."""
    return digest_of(list(content))


def sha256_of(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
