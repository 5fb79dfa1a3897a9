"""Arrays from other people's files: nothing in a file is run, and its sizes are not believed.

A `.pt` file is a zip archive with a pickle. Its pickle is first read as a list of operations, and
every name that it would call must be one of a few that build tensors. Then `torch.load` reads it
with `weights_only=True`, from a mapped file: a storage that claims more bytes than the file has is
cut at the file's end, and the tensor that does not fit is refused. Scalars of NumPy, which many
files hold beside their tensors, become plain numbers without NumPy being called.
"""

import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillhub.errors import DataError

MAX_BYTES = 8 << 30
"""Arrays of one file, decoded; more are refused before memory is asked for."""
MAX_PICKLE_BYTES = 64 << 20
_TENSORS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "UntypedStorage"),
        ("_codecs", "encode"),
    }
)
_SCALARS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
    }
)
_NUMBERS = {"b1": "?", "i1": "b", "i2": "<h", "i4": "<i", "i8": "<q", "u1": "B"}
_NUMBERS |= {"f2": "<e", "f4": "<f", "f8": "<d"}
_MAGIC_ZIP = b"PK\x03\x04"


def load_pt(path: Path) -> object:
    """The tensors, numbers, lists and dictionaries of a file that `torch.save` wrote.

    Raises:
        DataError: If the file is no such archive, would call anything, or claims impossible sizes.
    """
    where = str(path)
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_stand_ins()):
            content: object = torch.load(  # noqa: TID251 - names were checked, weights_only too
                path, map_location="cpu", weights_only=True, mmap=True
            )
    except DataError:
        raise
    except Exception as error:  # any bytes may be in a file
        raise _unreadable(error, where) from error
    return content


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name; pickled ones are refused.

    Raises:
        DataError: If the file is no such archive, or claims impossible sizes.
    """
    where = str(path)
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > MAX_BYTES:
                raise _too_large(total, where)
            for entry in entries:
                with archive.open(entry) as file:
                    _check_header(file, entry, where)
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                found[name] = np.asarray(arrays[name])
    except DataError:
        raise
    except Exception as error:  # any bytes may be in a file
        raise _unreadable(error, where) from error
    return found


class _Call(NamedTuple):
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _check_archive(path: Path) -> None:
    """Refuse an archive that would call something, or is not as `torch.save` writes it.

    Raises:
        DataError: Says which call, or what else.
    """
    where = str(path)
    with path.open("rb") as file:
        if file.read(4) != _MAGIC_ZIP:
            raise DataError(
                "not a file of torch.save, or one from before torch 1.6",
                where=where,
                mend="save it again where you trust it: "
                "torch.save(torch.load(OLD, weights_only=True), NEW)",
            )
    with zipfile.ZipFile(path) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"holds {len(pickles)} pickles instead of one", where=where)
        packed = [entry for entry in archive.infolist() if entry.compress_type]
        if packed:
            raise DataError(f"{packed[0].filename!r} is compressed, torch never does", where=where)
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise _too_large(pickles[0].file_size, where)
        for call in _calls(archive.read(pickles[0])):
            if not _allowed(call):
                raise DataError(
                    f"the file would call {call}; it was not opened",
                    where=where,
                    mend="images and labels need tensors alone: save those, arrays as .npz",
                )


def _calls(content: bytes) -> Iterator[_Call]:
    """Every name that a pickle looks up."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            yield _Call(module, name)
        elif operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            yield _Call("a name that is put together", operation.name)


def _allowed(call: _Call) -> bool:
    storage = call.module == "torch" and call.name.endswith("Storage")
    return storage or tuple(call) in _TENSORS or tuple(call) in _SCALARS


class _Type:
    """Stands for `numpy.dtype`: remembers its code and does nothing."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = str(code).lstrip("<|=")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|"):
            self.code = ""  # numbers of another byte order are not read


def _number(kind: object, raw: object = b"") -> int | float | bool:
    """Stands for `numpy.core.multiarray.scalar`.

    Raises:
        ValueError: If the type is none of the plain numbers, or the bytes are too few.
    """
    if not isinstance(kind, _Type) or kind.code not in _NUMBERS or not isinstance(raw, bytes):
        raise ValueError("a scalar of NumPy that is no plain number")
    try:
        value: int | float | bool = struct.unpack(_NUMBERS[kind.code], raw)[0]
    except struct.error as error:
        raise ValueError("a scalar of NumPy with the wrong number of bytes") from error
    return value


def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    scalars: list[tuple[Callable[..., Any], str]] = [
        (_number, f"{module}.{name}") for module, name in _SCALARS if name == "scalar"
    ]
    return [*scalars, (_Type, "numpy.dtype")]


def _check_header(file: IO[bytes], entry: zipfile.ZipInfo, where: str) -> None:
    """Refuse an array whose header promises another number of bytes than the archive has.

    Raises:
        DataError: Says how many.
        ValueError: If the header is none.
    """
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise DataError(f"{entry.filename!r} has an unknown header", where=where)
    shape, _, dtype = reader(file)
    if dtype.hasobject:
        raise DataError(
            f"{entry.filename!r} holds pickled objects; it was not opened",
            where=where,
            mend="save plain arrays: numpy.savez(file, images=..., labels=...)",
        )
    claimed = dtype.itemsize
    for side in shape:
        claimed *= side
    if claimed != entry.file_size - file.tell():
        raise DataError(
            f"{entry.filename!r} promises {claimed:,} bytes of numbers "
            f"and has {entry.file_size - file.tell():,}",
            where=where,
            mend="fetch or save the file again",
        )


def as_tensor(value: object, what: str, where: str) -> Tensor:
    """An array as a dense tensor of numbers.

    Raises:
        DataError: If it is no array, is sparse or complex, or repeats its memory.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise DataError(f"{what} are of type {value.dtype}, not numbers", where=where)
        native = value.astype(value.dtype.newbyteorder("="))
        value = torch.from_numpy(np.ascontiguousarray(native))
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        raise DataError(f"{what} are no array", where=where)
    tensor = value.detach()
    if tensor.is_complex() or tensor.device.type != "cpu":
        raise DataError(f"{what} are of type {tensor.dtype}, not numbers", where=where)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise DataError(f"{what} have shape {tuple(tensor.shape)} without that memory", where=where)
    if tensor.numel() * 4 > MAX_BYTES:
        raise _too_large(tensor.numel() * 4, where)
    return tensor


def _too_large(size: int, where: str) -> DataError:
    return DataError(
        f"{size:,} bytes, more than the {MAX_BYTES:,} that are opened",
        where=where,
        mend="store it as image files in class folders",
    )


def _unreadable(error: Exception, where: str) -> DataError:
    lines = str(error).strip().splitlines()
    return DataError(
        f"cannot be read: {(lines[0] if lines else type(error).__name__)[:200]}",
        where=where,
        mend="fetch or save the file again",
    )
