"""From a recipe to a data set folder: resolve, stages, builds, plans.

What other code calls is here by name and imported on first use: the command line starts without
torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillhub.pipeline.building import build, export, status
    from distillhub.pipeline.plan import Plan, make_plan
    from distillhub.pipeline.project import Project, indexed
    from distillhub.pipeline.resolve import resolve_recipe
    from distillhub.pipeline.stages import run_stage
    from distillhub.pipeline.versions import STAGES

__all__ = [
    "STAGES",
    "Plan",
    "Project",
    "build",
    "export",
    "indexed",
    "make_plan",
    "resolve_recipe",
    "run_stage",
    "status",
]

_HOMES = {
    "STAGES": "versions",
    "Plan": "plan",
    "Project": "project",
    "build": "building",
    "export": "building",
    "indexed": "project",
    "make_plan": "plan",
    "resolve_recipe": "resolve",
    "run_stage": "stages",
    "status": "building",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'distillhub.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"distillhub.pipeline.{_HOMES[name]}"), name)
