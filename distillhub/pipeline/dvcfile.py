"""DVC: the pipeline file, and one run of it. DVC is only ever started as a command."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from distillhub.errors import PipelineError
from distillhub.pipeline.checkpoint import BUILDER
from distillhub.pipeline.files import write_text
from distillhub.pipeline.project import MARKER, Project
from distillhub.pipeline.resolve import to_yaml
from distillhub.pipeline.versions import BLOCKS, READS, STAGES, WRITES

_HEADER = """\
# The seven stages of every recipe in recipes/index.yaml. Written by `distillhub init --project`;
# distillhub/pipeline/versions.py says which blocks of the resolved recipe a stage reads.
# Code is no dependency: code.<stage> in the resolved recipe is.
"""
_DVC_CONFIG = (
    '[core]\n    analytics = false\n    no_scm = true\n[cache]\n    type = "reflink,copy"\n'
)
_IGNORED = "/artifacts\n/.distillhub\n/distillhub.local.toml\n"


def pipeline_text() -> str:
    """The text of `dvc.yaml`.

    Outputs persist: a stage replaces its folder in one move at its end, so that a failure leaves
    the old one.
    """
    resolved = "recipes/resolved/${item.recipe}.yaml"
    build = "artifacts/${item.recipe}"
    stages: dict[str, object] = {
        "resolve": {
            "matrix": {"recipe": "${recipes}"},
            "cmd": "distillhub stage resolve ${item.recipe}",
            "deps": ["recipes/${item.recipe}.yaml"],
            "outs": [{resolved: {"cache": False, "persist": True}}],
            "always_changed": True,
        }
    }
    for stage in STAGES[1:]:
        watched = [*BLOCKS[stage], f"code.{stage}"]
        deps = [f"{build}/{folder}" for folder in READS[stage]]
        if stage == "card":
            deps += ["recipes/${item.recipe}.yaml", resolved]
            deps += [f"{build}/stats/{other}.json" for other in STAGES[1:-1]]
        stages[stage] = {
            "matrix": {"recipe": "${recipes}"},
            "cmd": f"distillhub stage {stage} ${{item.recipe}}",
            **({"deps": deps} if deps else {}),
            "params": [{resolved: watched}],
            "outs": [
                {f"{build}/{WRITES[stage]}": {"persist": True}},
                {f"{build}/stats/{stage}.json": {"persist": True}},
            ],
        }
    return _HEADER + to_yaml({"vars": ["recipes/index.yaml"], "stages": stages})


def write_index(project: Project, stems: Sequence[str]) -> None:
    """Replace the list of recipes that `dvc repro` builds."""
    write_text(project.index, to_yaml({"recipes": list(stems)}))


def make_workspace(root: Path, state: Path) -> Project:
    """A project of our own for recipes that belong to none, or that a project does not keep.

    It is DVC without git.
    """
    (root / "recipes" / "resolved").mkdir(parents=True, exist_ok=True)
    (root / ".dvc").mkdir(exist_ok=True)
    files = {
        MARKER: "# A workspace of `distillhub build`; may be deleted.\n"
        f'[project]\nstate = "{os.path.relpath(state, root)}"\n',
        "dvc.yaml": pipeline_text(),
        ".dvc/config": _DVC_CONFIG,
        ".dvcignore": "/.distillhub\n",
        "recipes/index.yaml": "recipes: []\n",
    }
    for name, text in files.items():
        path = root / name
        if not path.exists() or (name == "dvc.yaml" and path.read_text(encoding="utf-8") != text):
            write_text(path, text)
    return Project.at(root)


def project_files() -> dict[str, str]:
    """What `distillhub init --project` puts into a folder of the user's git and DVC repository."""
    return {
        MARKER: "# Marks a distillhub project.\n[sources]\n"
        '# "org/name" = "folder"   # a local copy of a Hub data set\n',
        "dvc.yaml": pipeline_text(),
        "recipes/index.yaml": "recipes: []\n",
        ".gitignore": _IGNORED,
        ".dvcignore": "/.distillhub\n",
    }


def reproduce(project: Project, stem: str, *, lock: int) -> None:
    """`dvc repro` of everything after `resolve`, which the caller has just done in its own process.

    Args:
        project: Where dvc.yaml is.
        stem: The recipe.
        lock: Descriptor of the build's lock: DVC inherits it, so that a DVC that outlives a killed
            build keeps the next one waiting until its stage has stopped.

    Raises:
        PipelineError: If a stage failed; it has said why itself.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "--cd", str(project.root)]
    command += ["repro", "--downstream", f"models@{stem}"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", BUILDER: str(os.getpid())}
    done = subprocess.run(command, env=environment, pass_fds=(lock,), check=False)
    if done.returncode == 0:
        return
    if done.returncode in (252, -2, 130):
        raise KeyboardInterrupt
    raise PipelineError(
        f"DVC ended with exit code {done.returncode}",
        where=f"build of {stem}",
        mend="the failed stage says above what is wrong; finished work is kept, "
        "build again after mending it",
    )
