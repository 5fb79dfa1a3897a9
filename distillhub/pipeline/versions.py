"""The version of each stage's results, and what each stage reads of a resolved recipe.

Code is no dependency in DVC: a changed comment would make a week of GPU time stale. These integers
stand for it. Bump one when the results of its stage may change; `tests/test_versions.py` notices
when the modules behind it did.
"""

STAGES = ("resolve", "models", "synthesize", "relabel", "package", "evaluate", "card")

CODE: dict[str, int] = {
    "models": 1,
    "synthesize": 1,
    "relabel": 1,
    "package": 1,
    "evaluate": 1,
    "card": 1,
}

BLOCKS: dict[str, tuple[str, ...]] = {
    "models": ("dataset", "teacher", "observers", "generator"),
    "synthesize": ("seed", "dataset", "ipc", "method", "images", "bases"),
    "relabel": ("dataset", "relabel"),
    "package": ("name", "dataset", "ipc", "method", "images", "package"),
    "evaluate": ("seed", "dataset", "ipc", "images", "relabel", "evaluate"),
    "card": (),
}
"""Blocks that DVC watches (`params`).

The stage's function gets these and nothing else of the recipe.

`card` depends on the whole resolved file, because it prints it.
"""

READS: dict[str, tuple[str, ...]] = {
    "models": (),
    "synthesize": ("models",),
    "relabel": ("images", "models"),
    "package": ("images", "labels"),
    "evaluate": ("package", "models"),
    "card": ("package", "labels", "reports", "models"),
}
"""Folders of the build that a stage reads."""

WRITES: dict[str, str] = {
    "models": "models",
    "synthesize": "images",
    "relabel": "labels",
    "package": "package",
    "evaluate": "reports",
    "card": "dataset",
}
"""The folder that a stage writes."""
