"""The first row of a published set, as `load_dataset(..., streaming=True)` gives it to a user."""

from collections.abc import Mapping


def first_row(repo: str, revision: str, split: str = "train") -> Mapping[str, object]:
    """One row, read over the network; images stay encoded.

    Args:
        repo: `org/name`.
        revision: Tag or commit.
        split: Name of the split.

    Raises:
        OSError, ValueError: If `load_dataset` cannot open it, or there is no row.
    """
    import datasets

    try:
        rows = datasets.load_dataset(repo, revision=revision, split=split, streaming=True)
        row: Mapping[str, object] | None = next(iter(rows.decode(enable=False)), None)
    except datasets.exceptions.DatasetsError as error:
        raise OSError(str(error)) from error
    if row is None:
        raise ValueError("there is no row")
    return row
