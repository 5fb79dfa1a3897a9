"""What clean removes, and what it never does."""

import os
import time
from pathlib import Path

import pytest
import typer
from filelock import FileLock

from distillhub_cli.clean import parse_age, parse_size


def filled(folder: Path, *, size: int = 1000, days: float = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "content").write_bytes(b"x" * size)
    when = time.time() - 86_400 * days
    for path in (folder / "content", folder):
        os.utime(path, (when, when))
    return folder


@pytest.fixture
def state(project: Path) -> Path:
    return project / ".distillhub"


def test_scratch_goes_and_the_dataset_stays(run, project, state):
    work = filled(state / "work" / "models" / "abc")
    twin = filled(state / "resources" / "twin")
    built = filled(project / "artifacts" / "tiny")

    result = run("clean", "--yes")

    assert result.exit_code == 0
    assert not work.exists()
    assert not twin.exists()
    assert built.exists()


def test_a_dry_run_removes_nothing_and_says_how_much_it_would(run, state):
    work = filled(state / "work" / "models" / "abc")

    result = run("clean", "--dry-run")

    assert work.exists()
    assert "1.0 kB would be freed" in result.stdout


def test_only_what_is_old_goes(run, state):
    old = filled(state / "models" / "old", days=9)
    young = filled(state / "models" / "young", days=5)

    run("clean", "--older", "7d", "--yes")

    assert not old.exists()
    assert young.exists()


def test_a_store_that_was_used_lately_is_not_old(run, state):
    store = filled(state / "models" / "shared", days=9)
    os.utime(store)  # what the store does whenever a recipe takes a network from it

    run("clean", "--older", "7d", "--yes")

    assert store.exists()


def test_only_what_is_large_goes(run, state):
    large = filled(state / "resources" / "large", size=5000)
    small = filled(state / "resources" / "small", size=10)

    run("clean", "--larger", "1k", "--yes")

    assert not large.exists()
    assert small.exists()


def test_only_the_kinds_that_are_named_go(run, state):
    work = filled(state / "work" / "models" / "abc")
    model = filled(state / "models" / "m")

    run("clean", "--kind", "work", "--yes")

    assert not work.exists()
    assert model.exists()


def test_work_that_somebody_holds_is_kept(run, state):
    work = filled(state / "work" / "models" / "abc")

    with FileLock(work.with_name("abc.lock")):
        result = run("clean", "--yes")

    assert work.exists()
    assert "in use" in result.stdout


def test_a_build_goes_when_it_is_named(run, project):
    built = filled(project / "artifacts" / "tiny")

    run("clean", "--artifacts", "tiny", "--yes")

    assert not built.exists()


def test_a_name_that_leads_out_of_the_builds_is_refused(run, project):
    filled(project / "precious")

    result = run("clean", "--artifacts", "../precious", "--yes")

    assert result.exit_code == 2
    assert (project / "precious").exists()


def test_without_yes_it_asks(run, state):
    work = filled(state / "work" / "models" / "abc")

    result = run("clean", text="n\n")

    assert work.exists()
    assert result.exit_code == 1


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("7d", 168), ("2w", 336)])
def test_an_age_has_a_unit(text, hours):
    assert parse_age(text) == hours


@pytest.mark.parametrize(("text", "count"), [("500k", 5e5), ("100M", 1e8), ("2GB", 2e9), ("7", 7)])
def test_a_size_may_have_a_unit(text, count):
    assert parse_size(text) == count


def test_an_age_without_a_unit_is_refused():
    with pytest.raises(typer.BadParameter, match="write 12h"):
        parse_age("7")
