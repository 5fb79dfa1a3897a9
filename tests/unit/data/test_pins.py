import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from distillhub.data.pins import Digester, PinCache, scan
from distillhub.data.rows import Digits


def _digest(*rows: tuple[bytes, int]) -> str:
    digester = Digester()
    digester.update([image for image, _ in rows], np.array([label for _, label in rows]))
    return digester.hexdigest()


def test_the_digest_is_what_its_docstring_says() -> None:
    streams = (b"abc", (2).to_bytes(8, "little") + (1).to_bytes(8, "little"), bytes(16))
    parts = b"".join(hashlib.sha256(stream).digest() for stream in streams)

    assert _digest((b"ab", 0), (b"c", 0)) == hashlib.sha256(parts).hexdigest()


def test_a_byte_cannot_move_to_the_next_row() -> None:
    assert _digest((b"ab", 0), (b"c", 0)) != _digest((b"a", 0), (b"bc", 0))


def test_labels_cannot_change_places() -> None:
    assert _digest((b"a", 0), (b"a", 1)) != _digest((b"a", 1), (b"a", 0))


def test_two_updates_are_as_good_as_one() -> None:
    digester = Digester()
    digester.update([b"a"], np.array([3]))
    digester.update([b"b"], np.array([4]))

    assert digester.hexdigest() == _digest((b"a", 3), (b"b", 4))


def test_parts_are_digested_apart_in_one_pass() -> None:
    digits = Digits()
    parts = [np.arange(0, 1797, 2), np.arange(1, 1797, 2)]

    together = scan(digits, parts).digests

    assert together == tuple(scan(digits, [part]).digests[0] for part in parts)


def test_only_the_rows_to_be_kept_are_kept() -> None:
    assert sorted(scan(Digits(), [], keep=[5, 1700]).kept) == [5, 1700]


def test_a_cache_without_a_file_remembers_nothing(tmp_path: Path) -> None:
    PinCache(None).store({"key": ["digest"]})

    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    PinCache(tmp_path / "file/pins.json").store({"key": ["digest"]})

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_entries_of_others_stay_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "deep/pins.json"
    PinCache(path).store({"one": ["a"]})
    PinCache(path).store({"two": ["b"]})

    assert json.loads(path.read_text()) == {"one": ["a"], "two": ["b"]}


@pytest.mark.parametrize("entry", [["a"], "ab", None])
def test_an_entry_of_another_form_is_not_used(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "pins.json"
    path.write_text(json.dumps({"key": entry}))

    assert PinCache(path).digests("key", 2) is None
