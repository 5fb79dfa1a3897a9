"""Looking something up on the command line must not wait for torch."""

import subprocess
import sys

HEAVY = (
    "torch",
    "torchvision",
    "datasets",
    "diffusers",
    "timm",
    "matplotlib",
    "sklearn",
    "pyarrow",
    "dvc",
    "pydantic",
)


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_distillhub_imports_no_heavy_library():
    loaded = modules_after("import distillhub")

    assert loaded.isdisjoint(HEAVY)


def test_importing_the_command_line_imports_no_heavy_library():
    loaded = modules_after("import distillhub_cli.main")

    assert loaded.isdisjoint(HEAVY)


def test_listing_methods_imports_none_of_them():
    loaded = modules_after("from distillhub import methods\nmethods.names()")

    assert loaded.isdisjoint(HEAVY)


def test_help_reads_nothing_of_the_library_but_its_errors():
    shown = "from distillhub_cli.main import app\napp(['--help'], standalone_mode=False)"

    loaded = modules_after(shown)

    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("distillhub.")} == {"distillhub.errors"}
