"""The methods: the folder is the registry, `method.name: dm` means `distillhub/methods/dm.py`.

Methods of other packages come in through the entry-point group `distillhub.methods`
(name -> method class).
"""

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillhub.methods._base import Method

ENTRY_POINTS = "distillhub.methods"


def names() -> tuple[str, ...]:
    """The known methods, sorted; imports none of them."""
    ours = {m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")}
    return tuple(sorted(ours | {point.name for point in entry_points(group=ENTRY_POINTS)}))


def load(name: str) -> "type[Method]":
    """The class of a method.

    Raises:
        KeyError: If there is no method of that name.
    """
    if name not in names():
        raise KeyError(name)
    for point in entry_points(group=ENTRY_POINTS, name=name):
        method: type[Method] = point.load()
        return method
    loaded: type[Method] = importlib.import_module(f"distillhub.methods.{name}").METHOD
    return loaded
