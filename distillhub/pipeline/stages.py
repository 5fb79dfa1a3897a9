"""The seven stages by name, and what surrounds every run of one."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from distillhub.digests import fingerprint, sha256_of
from distillhub.errors import PipelineError, UsageError
from distillhub.pipeline import judging, making
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, pin_threads
from distillhub.pipeline.files import storage_errors, write_json
from distillhub.pipeline.project import Project
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.resolve import resolve_recipe
from distillhub.pipeline.run import StageRun, pick_device
from distillhub.pipeline.versions import BLOCKS, READS, STAGES, WRITES
from distillhub.recipe.loading import load_resolved
from distillhub.recipe.schema import ResolvedRecipe

FUNCTIONS: dict[str, Callable[..., None]] = {
    "models": making.models,
    "synthesize": making.synthesize,
    "relabel": making.relabel,
    "package": making.package,
    "evaluate": judging.evaluate,
    "card": judging.card,
}


def run_stage(
    name: str, stem: str, project: Project, reporter: Reporter, *, of_dvc: bool = False
) -> None:
    """Run one stage of one build; earlier stages must have run.

    Args:
        name: Of the stage.
        stem: Of the recipe.
        project: Where the build is.
        reporter: Told how it goes.
        of_dvc: Whether DVC started this process, whose end is then the end of the stage too.

    Raises:
        UsageError: If there is no such stage, or an earlier one has not run.
        DistillhubError: What the stage itself raises; its output is then as it was.
    """
    if name not in STAGES:
        raise UsageError(f"no stage is called '{name}'", mend=f"one of {', '.join(STAGES)}")
    reporter.stage(name, stem)
    with storage_errors(project.artifacts(stem)):
        if name == "resolve":
            resolve_recipe(project.recipe(stem), project)
            return
        resolved = project.resolved(stem)
        if not resolved.exists():
            raise UsageError(
                f"{stem} is not resolved", where=name, mend=f"distillhub stage resolve {stem}"
            )
        stop = StopRequest()
        with stop.watched(parents=of_dvc):
            _run(name, stem, project, reporter, stop)


def _run(name: str, stem: str, project: Project, reporter: Reporter, stop: StopRequest) -> None:
    recipe = load_resolved(project.resolved(stem))
    missing = [folder for folder in READS[name] if not (project.artifacts(stem) / folder).is_dir()]
    if missing:
        raise UsageError(
            f"{missing[0]}/ of {stem} is missing",
            where=name,
            mend="run the stages before it, or `build`",
        )
    pin_threads()
    digest = work_digest(name, stem, project, recipe)
    with WorkFolder(project.state / "work", name, digest).held(reporter) as work:
        run = StageRun(project, stem, name, pick_device(), reporter, stop, work)
        try:
            if name == "card":
                judging.card(run, recipe)
            else:
                FUNCTIONS[name](run, **{block: getattr(recipe, block) for block in BLOCKS[name]})
            out = project.artifacts(stem) / WRITES[name]
            check_output(out)
            run.facts |= {"inputs": digest, "output": folder_digest(out)}
            write_json(project.stats(stem, name), run.stats())
        except BaseException:
            work.log_elapsed(run.seconds)
            raise


def check_output(folder: Path) -> None:
    """A stage that recorded success must have written something."""
    if not any(folder.iterdir()):
        raise PipelineError("the stage ended without output", where=str(folder))


def work_digest(name: str, stem: str, project: Project, recipe: ResolvedRecipe) -> str:
    """Key of a stage's scratch: changed parameters, inputs or code never resume what was begun."""
    content = json.loads(recipe.model_dump_json())
    blocks = content if name == "card" else {block: content[block] for block in BLOCKS[name]}
    inputs = {folder: folder_digest(project.artifacts(stem) / folder) for folder in READS[name]}
    return fingerprint(stem, name, blocks, inputs, recipe.code[name])[:32]


def folder_digest(folder: Path) -> str:
    """Digest of the names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint([(os.fspath(path.relative_to(folder)), sha256_of(path)) for path in files])
