"""The first row of a published set, as `load_dataset(..., streaming=True)` gives it to a user."""

from collections.abc import Mapping


def first_row(repo: str, revision: str, split: str = "train") -> Mapping[str, object]:
    """One row, read over the network; images stay encoded.

    Args:
        repo: `org/name`.
        revision: Tag or commit.
        split: Name of the split.

    Raises:
        OSError, ValueError, DatasetsError: What `load_dataset` raises.
    """
    import datasets

    rows = datasets.load_dataset(repo, revision=revision, split=split, streaming=True)
    row: Mapping[str, object] = next(iter(rows.decode(enable=False)))
    return row
