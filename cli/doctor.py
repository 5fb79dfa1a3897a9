"""doctor: what this machine can run, and what is missing, each with a mend."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from distillhub_cli.output import output, size
from distillhub_cli.places import here

State = Literal["good", "note", "bad"]
LEAST_DISK = 5e9
"""Bytes below which a build may not fit."""
LEAST_MEMORY = 4e9
TELLING = ("torch", "torchvision", "timm", "datasets", "huggingface_hub", "pyarrow")


class Finding(NamedTuple):
    """One fact about the machine."""

    topic: str
    state: State
    text: str
    mend: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say what this machine can run, what is missing, and how to mend it.

    Ends with exit code 4 when something that every build needs is missing.
    """
    findings = list(examine())
    out = output()
    if as_json:
        out.json([finding._asdict() for finding in findings])
    else:
        marks = {"good": "ok", "note": "note", "bad": "BAD"}
        out.table(("", "topic", "finding"), [(marks[f.state], f.topic, f.text) for f in findings])
        mends = [(f.topic, f.mend) for f in findings if f.mend]
        if mends:
            out.say()
            out.say("to mend:")
            out.facts(mends)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(4)


def examine() -> Iterator[Finding]:
    """Everything worth knowing, the basic things first."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _device,
        _threads,
        _memory,
        _disk,
        _tools,
        _project,
        _caches,
    )
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    state: State = "good" if sys.version_info >= (3, 11) else "bad"
    where = (
        f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"
    )
    yield Finding("python", state, where, "" if state == "good" else "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in TELLING:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", "good", ", ".join(found))
    if missing:
        yield Finding(
            "packages", "bad", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}"
        )


def _device() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding(
            "device",
            "bad",
            f"torch cannot be imported: {error}",
            "pip install --force-reinstall torch",
        )
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding(
                "device", "good", f"cuda:{index} {facts.name}, {size(facts.total_memory)}"
            )
    else:
        yield Finding(
            "device",
            "note",
            "CPU only; recipes for small images run, those for ImageNet take too long",
            "on a machine with an NVIDIA GPU, install its driver; this torch then uses it"
            if torch.version.cuda
            else "this torch was built without CUDA: pip install --force-reinstall torch",
        )


def _threads() -> Iterator[Finding]:
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    limit = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        "threads", "good", f"{usable} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    )


def _memory() -> Iterator[Finding]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        yield Finding("memory", "note", "cannot be asked for on this system")
        return
    if total < LEAST_MEMORY:
        yield Finding(
            "memory",
            "note",
            size(total),
            "image sets are kept in memory; below 4 GB use the small ones",
        )
    else:
        yield Finding("memory", "good", size(total))


def _disk() -> Iterator[Finding]:
    project = here()
    place = project.root if project else Path.cwd()
    free = shutil.disk_usage(place).free
    if free < LEAST_DISK:
        yield Finding(
            "disk",
            "note",
            f"{size(free)} free at {place}",
            "`distillhub clean --dry-run` shows what can go",
        )
    else:
        yield Finding("disk", "good", f"{size(free)} free at {place}")
    if not os.access(place, os.W_OK):
        yield Finding(
            "disk", "bad", f"{place} cannot be written", "change into a folder of your own"
        )


def _tools() -> Iterator[Finding]:
    git = shutil.which("git")
    if git:
        yield Finding("git", "good", _first_line([git, "--version"]))
    else:
        yield Finding(
            "git", "note", "not found", "install git; without it use `distillhub build --direct`"
        )
    try:
        importlib.metadata.version("dvc")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "dvc", "note", "not installed", "pip install dvc, or use `distillhub build --direct`"
        )
    else:
        yield Finding("dvc", "good", _first_line([sys.executable, "-m", "dvc", "--version"]))


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "answers nothing"


def _project() -> Iterator[Finding]:
    project = here()
    if project is None:
        yield Finding(
            "project",
            "note",
            "none here; `build` then works in ./.distillhub/workspace",
            "distillhub init --project .",
        )
        return
    yield Finding("project", "good", str(project.root))
    if not (project.root / ".dvc").is_dir() and not any(
        (p / ".dvc").is_dir() for p in project.root.parents
    ):
        yield Finding(
            "project",
            "note",
            "no DVC here",
            f"cd {project.root} && dvc init, or build with --direct",
        )
    for name, folder in project.sources.items():
        if folder.is_dir():
            yield Finding("sources", "good", f"{name} at {folder}")
        else:
            yield Finding(
                "sources",
                "bad",
                f"{name}: {folder} is no folder",
                "correct [sources] in distillhub.local.toml",
            )


def _caches() -> Iterator[Finding]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    offline = " (HF_HUB_OFFLINE is set: nothing is downloaded)" if constants.HF_HUB_OFFLINE else ""
    state = "there" if cache.is_dir() else "not there yet"
    yield Finding("hub cache", "good", f"{cache}, {state}{offline}")
    token = bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()
    if token:
        yield Finding("hub login", "good", "a token is set up")
    else:
        yield Finding(
            "hub login",
            "note",
            "none; public data can be read",
            "to read gated sets or publish: hf auth login",
        )
