"""What is installed is what is in the repository."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"distillhub": "distillhub", "cli": "distillhub_cli", "recipes": "distillhub_recipes"}
"""Folder of the repository -> name it is installed under."""


def folders_with_init() -> set[str]:
    found = set()
    for folder, name in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((name, *inside)))
    return found


def test_every_folder_with_init_is_listed_as_a_package():
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == folders_with_init()


def test_every_folder_with_python_files_has_init():
    bare = {
        str(path.parent.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }

    assert bare == set()


def test_the_version_is_the_same_everywhere():
    import distillhub

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")

    assert SETTINGS["project"]["version"] == distillhub.__version__
    assert f"\nversion: {distillhub.__version__}\n" in citation


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("source")
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *FOLDERS,
    ):  # build/ of the checkout stays out
        subprocess.run(["cp", "-R", str(ROOT / name), str(copy)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(copy)], check=True)
    return next(out.glob("distillhub-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = set()
    for folder, name in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            if (
                path.is_file()
                and not {"__pycache__", "resolved"} & set(inside.parts)
                and path.name != ".gitignore"
            ):
                wanted.add(f"{name}/{inside.as_posix()}")

    assert wanted - packed == set()


@pytest.mark.slow
def test_an_installed_wheel_answers_help(wheel, tmp_path):
    # Its dependencies are reached in this environment: what is tested is our own packaging.
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = _dependencies_only(tmp_path)

    done = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "distillhub"), "--help"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where = subprocess.run(
        [
            str(python),
            "-c",
            "import distillhub_cli, distillhub_recipes; print(distillhub_cli.__file__)",
        ],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "build" in done.stdout
    assert str(tmp_path) in where.stdout


def _dependencies_only(tmp_path: Path) -> str:
    """A folder that shows all installed packages but our own editable ones."""
    shown = tmp_path / "dependencies"
    shown.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "distillhub" not in entry.name:
            (shown / entry.name).symlink_to(entry)
    return str(shown)


def test_make_demo_and_make_test_set_up_by_themselves():
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert "\ndemo: $(READY)" in rules
    assert "\ntest: $(READY)" in rules


def test_the_automatic_check_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert script.rstrip().endswith("make test")
    assert "make test" in readme
