"""A cut or a full disk leaves the old output as it was."""

import errno
import multiprocessing

import pytest

from distillhub.errors import StorageError
from distillhub.pipeline.files import (
    inheritable_lock,
    replaced_folder,
    storage_errors,
    write_json,
    write_text,
)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "out"
    for name in ("one", "two"):
        with replaced_folder(target) as fresh:
            (fresh / name).touch()

    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    target = tmp_path / "out"
    with replaced_folder(target) as fresh:
        (fresh / "old").touch()

    def fail():
        with replaced_folder(target) as fresh:
            (fresh / "new").touch()
            raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(OSError, match="full"):
        fail()

    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_kill_between_the_two_renames_is_healed(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "old").touch()

    with pytest.raises(RuntimeError, match="cut"), replaced_folder(tmp_path / "out"):
        raise RuntimeError("cut")

    assert (tmp_path / "out" / "old").exists()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission to write")],
)
def test_a_disk_that_cannot_be_written_is_told_in_words(tmp_path, number, sentence):
    with pytest.raises(StorageError, match=sentence) as caught, storage_errors(tmp_path):
        raise OSError(number, "as the system says it", str(tmp_path / "file"))

    assert str(tmp_path / "file") in str(caught.value)


def test_an_error_that_is_not_about_storage_goes_through(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), storage_errors(tmp_path):
        (tmp_path / "absent").read_text()


def test_a_text_is_replaced_without_leftovers(tmp_path):
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")

    assert (tmp_path / "a").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def _hold(path, ready, release):
    with inheritable_lock(path, lambda: None):
        ready.set()
        release.wait(10)


def test_a_second_holder_is_told_that_it_waits(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", ready, release))
    holder.start()
    ready.wait(10)
    told = []

    def on_wait():
        told.append("waiting")
        release.set()

    with inheritable_lock(tmp_path / "lock", on_wait):
        holder.join(10)

    assert told == ["waiting"]
