"""Exit codes and errors of the command line."""

import errno

import pytest
import typer

from distillhub.errors import (
    ConflictError,
    DataError,
    Fault,
    PipelineError,
    RecipeError,
    UsageError,
    VerificationError,
)
from distillhub_cli import build
from distillhub_cli.main import app


@pytest.fixture
def failing(monkeypatch):
    """Makes `distillhub build` raise."""

    def install(error: BaseException) -> None:
        def fail(word: str) -> None:
            raise error

        monkeypatch.setattr(build, "recipe_file", fail)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (RecipeError("x"), 3),
        (PipelineError("x"), 4),
        (DataError("x"), 4),
        (VerificationError("x"), 5),
        (ConflictError("x"), 6),
    ],
)
def test_an_error_has_its_documented_exit_code(run, failing, error, code):
    failing(error)

    assert run("build", "any").exit_code == code


def test_an_error_says_what_where_and_mend_and_shows_no_traceback(run, failing):
    failing(RecipeError("ipc is 700", where="a.yaml:6: ipc", mend="set ipc to 612"))

    result = run("build", "any")

    assert result.stderr == "error: ipc is 700\n  where: a.yaml:6: ipc\n  mend:  set ipc to 612\n"
    assert result.stdout == ""


def test_all_faults_of_an_error_are_shown_under_their_number(run, failing):
    failing(RecipeError.of([Fault("one"), Fault("two")]))

    assert run("build", "any").stderr == "2 faults:\nerror: one\nerror: two\n"


def test_a_full_disk_is_a_pipeline_error_with_a_mend(run, failing):
    failing(OSError(errno.ENOSPC, "No space left on device", "/data/x"))

    result = run("build", "any")

    assert result.exit_code == 4
    assert "the disk is full" in result.stderr
    assert "/data/x" in result.stderr


def test_a_fault_of_ours_is_not_hidden(run, failing):
    failing(ZeroDivisionError("bug"))

    with pytest.raises(ZeroDivisionError, match="bug"):
        run("build", "any")


def test_an_unknown_option_is_a_usage_error(run):
    assert run("build", "--no-such-option").exit_code == 2


def test_an_unknown_command_offers_the_nearest(run):
    result = run("biuld")

    assert result.exit_code == 2
    assert "build" in result.stderr


def test_no_command_shows_the_help(run):
    assert "Usage" in run().output


def test_every_command_has_a_short_help_and_an_example_where_it_takes_arguments():
    group = typer.main.get_command(app)

    bare = [
        name
        for name, command in group.commands.items()
        if not command.help
        or (any(p.param_type_name == "argument" for p in command.params) and not command.epilog)
    ]

    assert bare == []


def test_the_version_is_printed_by_option_and_by_command(run):
    assert run("--version").stdout == run("version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(run, monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")

    result = run("--show-completion", shell)

    assert result.exit_code == 0
    assert "distillhub" in result.stdout or "COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("schema", "--out", "folder"), 4, "is a folder, a file is wanted"),
        (("schema", "--reference", "nowhere.md"), 2, "is no page with a table of keys"),
        (("schema", "--reference", "plain.md"), 2, "name docs/recipes.md"),
        (("init", "--project", "plain.md"), 4, "a file is in the way of a folder"),
        (("keygen", "plain.md/x"), 4, "a file is in the way of a folder"),
        (("evaluate", "folder", "--out", "folder"), 2, "name a JSON file"),
        (("import", "folder", "--out", "x", "--license", "other"), 2, "--license-name"),
        (("import", "folder", "--out", "x", "--license", "mit", "--author", ""), 2, "--author"),
    ],
)
def test_a_path_or_word_that_cannot_be_is_one_message(run, tmp_path, words, code, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain.md").write_text("nothing", encoding="utf-8")

    result = run(*words)

    text = " ".join((result.stdout + result.stderr).split())
    assert (result.exit_code, said in text) == (code, True), text
    assert "mend:" in text


def test_a_schema_goes_into_a_new_folder(run, tmp_path):
    assert run("schema", "--out", "new/folder/x.json").exit_code == 0
    assert (tmp_path / "new/folder/x.json").exists()
