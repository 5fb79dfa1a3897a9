"""`distillhub build`: from a recipe file to the folder of a finished data set."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from distillhub.digests import fingerprint
from distillhub.errors import RecipeError, UsageError
from distillhub.evaluation import protocols
from distillhub.pipeline.bases import WORKSPACE, Link, chain
from distillhub.pipeline.dvcfile import make_workspace, reproduce, write_index
from distillhub.pipeline.files import inheritable_lock, storage_errors, write_text
from distillhub.pipeline.project import LOCAL, Project, indexed
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.resolve import foresee, resolve_recipe
from distillhub.pipeline.run import pick_device
from distillhub.pipeline.stages import folder_digest, run_stage, work_digest
from distillhub.pipeline.versions import STAGES, WRITES
from distillhub.recipe.loading import load_recipe, load_resolved
from distillhub.recipe.schema import ResolvedRecipe


def build(
    recipe: Path,
    *,
    reporter: Reporter,
    direct: bool = False,
    keep: bool = False,
    replace: bool = False,
    update: bool = False,
    allow_cpu: bool = False,
    workspace: Path | None = None,
) -> Path:
    """Build a recipe and return its finished data set folder; what is up to date is not made again.

    The builds that it rests on are made first, each in its own place.

    Args:
        recipe: The recipe's file.
        reporter: Told how it goes.
        direct: Run the stages in this process, without DVC.
        keep: Add the recipe to its project's index, so that `dvc repro` keeps it built.
        replace: Take the place of another recipe of the same name in the workspace.
        update: Accept data that changed since the recipe was resolved.
        allow_cpu: Build on a CPU what is meant for a GPU.
        workspace: Where to build a recipe that its project does not keep; None:
            `.distillhub/workspace` of the project, or of the current folder.

    Raises:
        RecipeError: If the recipe or its data cannot be used; nothing was started.
        PipelineError: If a stage failed.
    """
    *bases, last = chain(recipe)
    if not allow_cpu and pick_device().type == "cpu":
        refuse_cpu([last, *bases])
    placed = {}
    for step in bases:
        placed[step.path] = place(step.path, keep=False, replace=replace, workspace=None)
    placed[last.path] = place(recipe, keep=keep, replace=replace, workspace=workspace)
    for step in (*bases, last) if bases else ():
        foresee(step, placed[step.path], update=update)
    for step in bases:
        reporter.note(f"{last.path.stem} rests on {step.path.stem}")
        build_placed(step.path.stem, placed[step.path], reporter, direct=direct, update=update)
    return build_placed(last.path.stem, placed[last.path], reporter, direct=direct, update=update)


def build_placed(
    stem: str, project: Project, reporter: Reporter, *, direct: bool, update: bool
) -> Path:
    """Build one recipe in the project that holds it, and return its data set; its bases are there.

    Raises:
        RecipeError: If the recipe or its data cannot be used; nothing was started.
        PipelineError: If a stage failed.
    """
    lock = project.state / "locks" / f"{fingerprint(str(project.root), stem)[:16]}.lock"
    with (
        storage_errors(project.state),
        inheritable_lock(
            lock, lambda: reporter.note(f"another build of {stem} is running; waiting for it")
        ) as handle,
    ):
        resolve_recipe(project.recipe(stem), project, update=update)
        if direct:
            _build_here(stem, project, reporter)
        else:
            refuse_missing_git(project)
            reproduce(project, stem, lock=handle)
    return project.artifacts(stem) / "dataset"


def refuse_cpu(steps: Sequence[Link]) -> None:
    """Recipes whose protocols are meant for GPUs would run for days here.

    Args:
        steps: The recipe and those that it rests on.

    Raises:
        RecipeError: Naming the first recipe, and all of its protocols of that kind.
    """
    for step in steps:
        blocks = [block.protocol for block in step.recipe.evaluate]
        heavy = list(dict.fromkeys(name for name in blocks if protocols.get(name).gpu))
        if heavy:
            word = "protocol" if len(heavy) == 1 else "protocols"
            raise RecipeError(
                f"{word} {', '.join(heavy)} {'is' if len(heavy) == 1 else 'are'} meant for a GPU, "
                "and there is none",
                where=f"{step.path}: evaluate.{blocks.index(heavy[0])}.protocol",
                mend="build on a machine with a CUDA device, choose a protocol for CPUs, "
                "or give --allow-cpu",
            )


def refuse_missing_git(project: Project) -> None:
    """DVC wants a git repository around a project, unless its settings say otherwise.

    Raises:
        UsageError: If there is none.
    """
    config = project.root / ".dvc" / "config"
    without = config.is_file() and "no_scm = true" in config.read_text(encoding="utf-8")
    if without or any((f / ".git").exists() for f in (project.root, *project.root.parents)):
        return
    raise UsageError(
        "DVC needs a git repository around the project, and there is none",
        where=str(project.root),
        mend="run `git init` there, or build with --direct, which does without DVC",
    )


def place(recipe: Path, *, keep: bool, replace: bool, workspace: Path | None) -> Project:
    """The project in which a recipe is built, with the recipe in its index."""
    recipe = recipe.resolve()
    owner = Project.find(recipe.parent)
    home = owner or Project.find(Path.cwd())
    state = home.state if home is not None else Path(".distillhub").resolve()
    with storage_errors(state), inheritable_lock(state / "locks" / "index.lock", lambda: None):
        return _place(recipe, owner, home, state, keep=keep, replace=replace, workspace=workspace)


def _place(
    recipe: Path,
    owner: Project | None,
    home: Project | None,
    state: Path,
    *,
    keep: bool,
    replace: bool,
    workspace: Path | None,
) -> Project:
    """`place`, while no other build changes an index."""
    inside = owner is not None and recipe.parent == owner.recipes
    if owner is not None and inside and workspace is None:
        kept = indexed(owner)
        if recipe.stem in kept:
            return owner
        if keep:
            write_index(owner, [*kept, recipe.stem])
            return owner
    elif keep:
        raise UsageError(
            "only a recipe in a project's recipes/ can be kept",
            where=str(recipe),
            mend="`distillhub init --project` makes a project",
        )
    space = make_workspace((workspace or state / WORKSPACE).resolve(), state)
    _bring(recipe, space, replace=replace)
    _bring_sources(recipe, home, space)
    return space


def _bring(recipe: Path, space: Project, *, replace: bool) -> None:
    """Copy a recipe into the workspace; another of the same name is not overwritten unasked."""
    origin = space.origin(recipe.stem)
    mine = space.recipe(recipe.stem)
    if (
        mine.exists()
        and origin.exists()
        and origin.read_text(encoding="utf-8") != str(recipe)
        and not replace
    ):
        raise UsageError(
            f"the workspace holds another recipe called {recipe.stem}, "
            f"from {origin.read_text(encoding='utf-8')}",
            where=str(recipe),
            mend="rename one of them, or build with --replace",
        )
    text = recipe.read_text(encoding="utf-8")
    if not mine.exists() or mine.read_text(encoding="utf-8") != text:
        write_text(mine, text)
        write_text(origin, str(recipe))
    stems = indexed(space)
    if recipe.stem not in stems:
        write_index(space, [*stems, recipe.stem])


def _bring_sources(recipe: Path, home: Project | None, space: Project) -> None:
    """Tell the workspace where data are.

    It knows the local copies that its project knows, and the folder that the recipe names.
    """
    path = space.root / LOCAL
    known = space.sources | (home.sources if home is not None else {})
    dataset = load_recipe(recipe).dataset
    if dataset.id.startswith("."):
        known[dataset.id] = (recipe.parent / dataset.id).resolve()
    lines = ["# Written by `distillhub build`.", "[sources]"]
    lines += [
        f"{json.dumps(name)} = {json.dumps(str(folder))}" for name, folder in sorted(known.items())
    ]
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _build_here(stem: str, project: Project, reporter: Reporter) -> None:
    """The stages one after another; one that is up to date is skipped."""
    for stage in STAGES[1:]:
        if state_of(stage, stem, project, load_resolved(project.resolved(stem))) != "up to date":
            run_stage(stage, stem, project, reporter)


def export(dataset: Path, out: Path, *, reporter: Reporter) -> None:
    """Copy a finished data set to `out`, which must not exist or be empty."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", where="--out", mend="name a new folder")
    with storage_errors(out):
        shutil.copytree(dataset, out, dirs_exist_ok=True)
    reporter.note(f"copied to {out}")


def status(project: Project, stems: Sequence[str]) -> list[tuple[str, str, str]]:
    """Recipe, stage and its state for every stage of the given recipes."""
    rows = []
    for stem in stems:
        resolved = project.resolved(stem)
        recipe = load_resolved(resolved) if resolved.exists() else None
        rows.append((stem, "resolve", "missing" if recipe is None else "up to date"))
        rows.extend(
            (stem, stage, "missing" if recipe is None else state_of(stage, stem, project, recipe))
            for stage in STAGES[1:]
        )
    return rows


def state_of(stage: str, stem: str, project: Project, recipe: ResolvedRecipe) -> str:
    """`up to date`, `changed`, `begun` or `missing`.

    Changed: its inputs or its output are not as after its last run.
    """
    digest = work_digest(stage, stem, project, recipe)
    out = project.artifacts(stem) / WRITES[stage]
    if (project.state / "work" / stage / digest).is_dir():
        return "begun"
    try:
        last = json.loads(project.stats(stem, stage).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return "missing"
    if not out.is_dir():
        return "missing"
    same = last.get("inputs") == digest and last.get("output") == folder_digest(out)
    return "up to date" if same else "changed"
