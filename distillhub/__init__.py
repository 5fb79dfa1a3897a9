"""distillhub: from a recipe to a distilled dataset that loads, is scored and can be verified.

`load` opens a distilled set with its soft labels, `load_recipe` reads a recipe, `build` makes a
dataset. They are imported on first use, so that `import distillhub` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillhub.pipeline import build
    from distillhub.recipe.loading import load_recipe
    from distillhub.records.distilled import load

__version__ = "0.1.0"
__all__ = ["__version__", "build", "load", "load_recipe"]

_HOMES = {
    "build": "distillhub.pipeline",
    "load": "distillhub.records.distilled",
    "load_recipe": "distillhub.recipe.loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'distillhub' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
