"""Files of others are read without running anything that is in them."""

import io
import os
import pickle  # noqa: TID251 - to make what must be refused
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from distillhub.errors import DataError
from distillhub.records.restricted import as_tensor, load_npz, load_pt
from tests.foreign_sets import arrays, save


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def archive(path: Path, content: bytes, *, compress=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as out:
        out.writestr("a/data.pkl", content)
        out.writestr("a/version", "3\n")
        out.writestr("a/byteorder", "little")
    return path


def test_a_pickle_that_would_run_code_is_refused_and_did_not_run(tmp_path):
    canary = tmp_path / "canary"
    path = save({"images": torch.zeros(2, 1, 4, 4), "x": Canary(canary)}, tmp_path / "bad.pt")

    with pytest.raises(DataError, match=r"would call (posix|nt)\.system"):
        load_pt(path)

    assert not canary.exists()


def test_the_canary_sings_where_nobody_guards(tmp_path):
    canary = tmp_path / "canary"

    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301 - our own

    assert canary.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_is_refused_in_every_version_of_pickle(tmp_path, protocol):
    canary = tmp_path / "canary"
    path = archive(tmp_path / "bad.pt", pickle.dumps(Canary(canary), protocol=protocol))

    with pytest.raises(DataError, match="would call"):
        load_pt(path)

    assert not canary.exists()


def test_a_bare_pickle_is_refused_and_did_not_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps(Canary(canary)))

    with pytest.raises(DataError, match=r"not a file of torch\.save"):
        load_pt(path)

    assert not canary.exists()


def test_code_in_an_object_array_is_refused_and_did_not_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "bad.npz"
    np.savez(path, images=np.array([Canary(canary)], dtype=object))

    with pytest.raises(DataError, match="pickled objects"):
        load_npz(path)

    assert not canary.exists()


def test_scalars_of_numpy_become_plain_numbers(tmp_path):
    values = [np.float64(0.25), np.int64(-3), np.uint8(7), np.bool_(True), np.float32(1.5)]
    path = save(values, tmp_path / "a.pt")

    assert load_pt(path) == [0.25, -3, 7, True, 1.5]


def test_tensors_come_back_as_they_were(tmp_path):
    images, labels = arrays()
    path = save([images.half(), labels], tmp_path / "a.pt")

    found = load_pt(path)

    assert torch.equal(found[0], images.half())
    assert torch.equal(found[1], labels)


def test_a_storage_that_claims_more_than_the_file_has_is_refused(tmp_path):
    path = save([torch.zeros(1000)], tmp_path / "a.pt")
    content = path.read_bytes()
    count = struct.pack("<H", 1000)  # BININT2 operand: of the storage and of the shape
    at = content.index(b"M" + count)
    huge = content[: at + 1] + struct.pack("<H", 65535) + content[at + 3 :]
    shape = huge.rindex(b"M" + count, 0, huge.index(b"PK", at))
    path.write_bytes(huge[: shape + 1] + struct.pack("<H", 65535) + huge[shape + 3 :])

    with pytest.raises(DataError):
        load_pt(path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = archive(tmp_path / "a.pt", pickle.dumps([1]), compress=zipfile.ZIP_DEFLATED)

    with pytest.raises(DataError, match="compressed"):
        load_pt(path)


def test_an_array_that_promises_more_than_it_has_is_refused_before_memory_is_asked_for(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 3, 1000, 1000)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("images.npy", header.getvalue() + b"\0" * 100)

    with pytest.raises(DataError, match=r"promises 12,000,000,000,000 bytes .* has 100"):
        load_npz(path)


def test_an_entry_that_declares_another_size_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros(4))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)  # size in the directory
    path.write_bytes(content)

    with pytest.raises(DataError):
        load_npz(path)


def test_a_tensor_that_repeats_one_number_is_refused():
    with pytest.raises(DataError, match="without that memory"):
        as_tensor(torch.zeros(1).expand(10**9), "images", "x")
