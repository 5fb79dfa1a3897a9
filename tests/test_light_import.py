"""Looking something up on the command line must not wait for torch."""

import resource
import subprocess
import sys
from pathlib import Path

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


def test_help_takes_less_than_0_4_seconds_of_processor_time():
    # Not of the clock: the machine may be busy with other tests.
    command = [str(Path(sys.executable).with_name("distillhub")), "--help"]
    subprocess.run(command, check=True, capture_output=True)  # bytecode is compiled once
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    subprocess.run(command, check=True, capture_output=True)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.4
