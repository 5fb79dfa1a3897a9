"""Changes of one line that must each turn a test red: `python -m tests.mutations [PAGE...]`.

The list is `tests/assets/mutations.toml`, by the pages of the specification. Each is made in a copy
of the working tree, where the tests that it names then run; before, all of them must pass in a copy
without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).parent / "assets" / "mutations.toml"
COPIED = ("distillhub", "cli", "recipes", "tests", "pyproject.toml")
OFFLINE = "not gpu and not network and not browser"
"""Slow tests, too."""
GREEN, RED = 0, 1
"""Exit codes of pytest: all tests passed; some failed."""


class Mutation(NamedTuple):
    """A change and the tests that notice it."""

    page: str
    check: str
    """Number of the invariant."""
    file: str
    line: str
    """Text that stands in the file once."""
    becomes: str
    tests: str
    """Files, with spaces between them."""
    select: str
    """For `pytest -k`; empty: all."""


def mutations(pages: Sequence[str] = ()) -> Iterator[Mutation]:
    """Those of the list, of some pages or of all."""
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    for page in pages or listed:
        for entry in listed[page]:
            yield Mutation(page, **entry)


def _copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def _tried(folder: Path, tests: Sequence[str], select: str = "") -> int:
    """The exit code of some tests in a copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [*tests, "-k", select, "-m", OFFLINE]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def _control(chosen: Sequence[Mutation]) -> int:
    """The exit code of all the tests in a copy without a mutation."""
    with tempfile.TemporaryDirectory() as name:
        _copy(Path(name))
        return _tried(Path(name), sorted({path for one in chosen for path in one.tests.split()}))


def _verdict(mutation: Mutation) -> str:
    """What became of a mutation: `red` is as it should be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        path = folder / mutation.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutation.line, mutation.becomes), encoding="utf-8")
        code = _tried(folder, mutation.tests.split(), mutation.select)
    return {GREEN: "NOT NOTICED", RED: "red"}.get(code, f"the tests did not run (exit {code})")


def main(pages: Sequence[str]) -> int:
    """Try them all, as many at a time as there are processors; 0 if every one was noticed."""
    chosen = list(mutations(pages))
    if (code := _control(chosen)) != GREEN:
        sys.stdout.write(f"the tests do not pass without a mutation (exit {code})\n")
        return 1
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutation, verdict in zip(chosen, pool.map(_verdict, chosen), strict=True):
            missed += verdict != "red"
            line = (mutation.becomes.strip() or "nothing").splitlines()[0]
            sys.stdout.write(f"{mutation.page} {mutation.check}: {verdict}: {line}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} were noticed\n")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
