"""Tensors in a safetensors file: equal tensors give equal bytes, a file appears whole or not."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor, nn

from distillhub.digests import sha256_of
from distillhub.errors import DataError, StorageError

HEADER = "distillhub"
"""The one key of the file's own metadata; more than one would be written in an arbitrary order."""


def file_digest(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, JsonValue]
) -> str:
    """Write a file under a temporary name, rename it, and return its sha256.

    Raises:
        StorageError: If the folder cannot be written.
    """
    from safetensors.torch import save

    flat = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    content = save(flat, {HEADER: json.dumps(header, sort_keys=True, separators=(",", ":"))})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically, making its folder where needed.

    Raises:
        StorageError: If the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            mend="free space or choose another folder",
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
    """The tensors of a file on the CPU, and our header; an empty one for files of others.

    Raises:
        DataError: If the file is missing, cut short, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(
            "no such weights file",
            where=str(path),
            mend="check the path, or train the network again",
        )
    try:
        with safe_open(path, framework="pt") as stored:
            # The reader has keys(), but it is no mapping.
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            header = json.loads((stored.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"not a whole safetensors file: {error}",
            where=str(path),
            mend="fetch or train the weights again",
        ) from error
    return tensors, header


def fill(net: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Put weights into a network; every name and shape must agree.

    Raises:
        DataError: If they do not.
    """
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if own != given:
        faults = sorted(
            name for name in own.keys() | given.keys() if own.get(name) != given.get(name)
        )
        first = faults[0]
        raise DataError(
            f"{len(faults)} tensors do not fit the network, the first is {first}: "
            f"stored {given.get(first, 'not')}, wanted {own.get(first, 'not')}",
            where=where,
            mend="give the architecture that these weights were made for",
        )
    net.load_state_dict(dict(tensors))
