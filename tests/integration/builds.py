"""A build small enough for tests, run in this process or as a user would run it."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from distillhub.pipeline.building import build
from distillhub.pipeline.reporting import Silent

TINY = """\
schema_version: 1
name: digits-tiny
dataset: {id: "sklearn:digits"}
ipc: 2
method: {name: dm, version: 1, iterations: 3, arch: convnet2-w8, batch_real: 16}
teacher: {arch: convnet2-w8, steps: 20}
relabel: {views: {}, count: 2, budget: 9.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard, rnd_hard, syn_soft, rnd_soft],
     runs: 2}
card: {license: cc-by-4.0}
"""


class Log(Silent):
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, stem: str) -> None:
        self.stages.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_recipe(folder: Path, text: str = TINY, stem: str = "tiny") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def build_here(recipe: Path, log: Log | None = None, *, folder: Path | None = None) -> Path:
    """Build without DVC, from the recipe's folder, in the workspace of a user without a project."""
    with contextlib.chdir(folder or recipe.parent):
        return build(recipe, reporter=log or Log(), direct=True)


def digest_of(dataset: Path) -> str:
    return json.loads((dataset / "manifest.json").read_text())["digest"]


def runs_of(dataset: Path) -> str:
    return json.loads((dataset / "manifest.json").read_text())["runs_sha256"]


def start_build(
    recipe: Path, *words: str, cwd: Path, log: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """`distillhub build` as a process of its own; what it says goes to a file."""
    command = [str(Path(sys.executable).with_name("distillhub")), "build", str(recipe), *words]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"DISTILLHUB_THREADS": "1", **environment},
        )
