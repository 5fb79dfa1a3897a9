"""A data set named by a recipe -> its pin and its images.

`pin_source` finds out everything about a source once; `open_split` trusts the pin, and checks it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from distillhub.data.columns import find_columns
from distillhub.data.folders import LocalFolder, no_split
from distillhub.data.looks import sample
from distillhub.data.parts import Part, choose, class_faults
from distillhub.data.pins import PinCache, examine
from distillhub.data.pixels import Geometry, open_pixels
from distillhub.data.real import RealData
from distillhub.data.rows import Digits, EncodedRows
from distillhub.data.specs import DataPin, SourceSpec, SplitPin
from distillhub.data.splits import stratified
from distillhub.data.subsets import resolve_classes
from distillhub.data.tables import ArrowRows
from distillhub.errors import DataError, Fault, RecipeError

if TYPE_CHECKING:
    import datasets

__all__ = ["RealData", "geometry_of", "open_split", "pin_source", "stored_rows"]

DIGITS = "sklearn:digits"
SplitName = Literal["train", "test"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOCAL_COPY = (
    "name a local copy under [sources] of distillhub.toml or in DISTILLHUB_SOURCES, "
    "or try again with a network"
)


class Place(Protocol):
    """A data set that was found; its splits are opened by name."""

    revision: str | None
    """Commit of a Hub repository; None elsewhere."""

    def rows(self, split: str) -> EncodedRows:
        """One split as stored.

        Raises:
            RecipeError: If there is no such split or column; holds every fault.
        """


class BuiltIn:
    """The digits of scikit-learn; `train` holds all of them, the test rows are drawn from it."""

    revision: str | None = None

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec

    def rows(self, split: str) -> EncodedRows:
        """All 1797 digits."""
        if split != "train":
            raise no_split(self._spec, split, ["train"])
        return Digits()


class HubRepository:
    """A data set on the Hub at one commit, prepared by `datasets` in its own cache."""

    def __init__(self, spec: SourceSpec, pinned: str | None) -> None:
        """Settle the commit; ask the Hub for it where none is pinned.

        Args:
            spec: `dataset:` of a recipe.
            pinned: A commit that was settled before.

        Raises:
            RecipeError: If there is no network, no such data set, or no such revision.
        """
        self._spec = spec
        self.revision: str | None = pinned or _commit(spec.id, spec.revision or "main")

    def rows(self, split: str) -> EncodedRows:
        """Download and prepare one split, or open it from the cache.

        Raises:
            RecipeError: If there is no such split, column or configuration, or no network.
        """
        import datasets

        spec, where = self._spec, f"dataset.id: {self._spec.id}"
        try:
            prepared = datasets.load_dataset(spec.id, spec.config, revision=self.revision)
        except OSError as error:
            raise RecipeError(_first_line(error), where=where, mend=_LOCAL_COPY) from error
        except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise RecipeError(
                f"`datasets` cannot prepare it: {_first_line(error)}",
                where=where,
                mend="see dataset.config and dataset.revision, or use a copy in Hub layout",
            ) from error
        if split not in prepared:
            raise no_split(spec, split, list(prepared))
        table = prepared[split]
        folder = Path(table.cache_files[0]["filename"]).parent.name if table.cache_files else ""
        if _COMMIT.fullmatch(folder) and folder != self.revision:
            # Without a network `datasets` opens its latest version, whatever was asked for.
            raise RecipeError(
                f"commit {self.revision} is not in the cache, another one is: {folder}",
                where=where,
                mend=_LOCAL_COPY,
            )
        return prepared_rows(spec, split, table, fingerprint=f"{self.revision}")


def _commit(name: str, revision: str) -> str:
    """The commit that a revision of a Hub data set stands for; a commit also without a network."""
    import huggingface_hub
    from huggingface_hub import errors

    where = f"dataset.id: {name}"
    try:
        found = huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=10).sha
    except errors.RevisionNotFoundError as error:
        raise RecipeError(
            f"'{name}' has no revision '{revision}'",
            where="dataset.revision",
            mend=f"choose one of https://huggingface.co/datasets/{name}/commits, or `main`",
        ) from error
    except errors.GatedRepoError as error:
        raise RecipeError(
            f"access to '{name}' is restricted",
            where=where,
            mend="accept its terms on its Hub page, then run `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RecipeError(
            f"the Hub has no data set '{name}' that you may read",
            where=where,
            mend="check the spelling; a local folder starts with ./ or /; private: `hf auth login`",
        ) from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        if _COMMIT.fullmatch(revision):
            return revision
        raise RecipeError(
            f"the Hub cannot be asked for '{name}': {_first_line(error)}",
            where=where,
            mend=_LOCAL_COPY,
        ) from error
    return str(found)


def prepared_rows(
    spec: SourceSpec, split: str, table: "datasets.Dataset", *, fingerprint: str
) -> ArrowRows:
    """One split that `datasets` prepared.

    Args:
        spec: May name the columns.
        split: Its name.
        table: Its rows.
        fingerprint: Changes with the repository's content.

    Raises:
        RecipeError: If a column or a label is missing; holds every fault.
    """
    columns = find_columns(spec, table.features.arrow_schema, {})
    arrow = table.select_columns([columns.image]).with_format("arrow")
    return ArrowRows(
        lambda rows: arrow[rows],
        table.data.column(columns.label),
        columns,
        place=spec.id,
        split=split,
        fingerprint=repr((spec.id, spec.config, split, fingerprint)),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find(spec: SourceSpec, sources: Mapping[str, Path], pinned: str | None) -> Place:
    """The place of a data set: built in, a local copy, a local folder, or the Hub.

    Raises:
        RecipeError: If it is not there.
    """
    if spec.id == DIGITS:
        return BuiltIn(spec)
    if spec.id in sources:
        if not sources[spec.id].is_dir():
            raise RecipeError(
                f"the local copy of {spec.id} is not there: {sources[spec.id]}",
                where="[sources]",
                mend="correct the path in distillhub.toml or DISTILLHUB_SOURCES, or remove it",
            )
        return LocalFolder(spec, sources[spec.id])
    folder = Path(spec.id).expanduser()
    if folder.is_dir():
        return LocalFolder(spec, folder)
    if folder.is_absolute() or not _HUB_ID.fullmatch(spec.id):
        raise RecipeError(
            f"there is no folder '{spec.id}'",
            where="dataset.id",
            mend=f"give a Hub id as owner/name, an existing folder, or {DIGITS}",
        )
    return HubRepository(spec, pinned)


def _part(spec: SourceSpec, place: Place, split: SplitName) -> Part:
    """Open the rows of one split.

    A share, and the test rows of the digits, are drawn from the training split.
    """
    if split == "test" and isinstance(spec.test, str) and spec.id != DIGITS:
        rows = place.rows(spec.test)
        return Part(rows, np.arange(len(rows.labels)))
    if split == "test" and isinstance(spec.test, str) and spec.test != "test":
        raise no_split(spec, spec.test, ["test"])
    rows = place.rows(spec.train)
    count = 0
    if spec.id == DIGITS and isinstance(spec.test, str):
        count = Digits.TEST_ROWS
    elif isinstance(spec.test, float):
        count = max(1, round(spec.test * len(rows.labels)))
    kept, drawn = stratified(torch.from_numpy(rows.labels), count)
    return Part(rows, (kept if split == "train" else drawn).numpy())


def pin_source(spec: SourceSpec, sources: Mapping[str, Path], cache: Path | None) -> DataPin:
    """Find out what a source is: digests of its splits, classes, sizes, normalization.

    Args:
        spec: `dataset:` of a recipe; an existing pin is ignored.
        sources: Local copies by Hub id; their paths are no part of the result.
        cache: JSON file with the digests of files that have not changed since; None: no cache.

    Raises:
        RecipeError: If the source cannot be used; holds every fault found.
    """
    place = _find(spec, sources, None)
    faults: list[Fault] = []
    if spec.test == spec.train:
        faults.append(
            Fault(
                f"train and test are the same split '{spec.train}'",
                "dataset.test",
                "name another split, or set apart a share of it (test: 0.2)",
            )
        )

    def opened(split: SplitName) -> Part | None:
        try:
            return _part(spec, place, split)
        except RecipeError as error:
            faults.extend(error.faults)
            return None

    train = opened("train")
    test = opened("test") if spec.test is not None else None
    class_names: tuple[str, ...] = ()
    if train is not None:
        try:
            picked = resolve_classes(spec.classes, train.rows.names)
            class_names = tuple(train.rows.names[label] for label in picked)
        except RecipeError as error:
            faults.extend(error.faults)
    if faults or train is None:
        raise RecipeError.of(dict.fromkeys(faults))

    chosen = choose(train, class_names)
    counts = np.bincount(chosen.labels, minlength=len(class_names))
    faults = class_faults(spec, train, test, class_names, counts)
    if faults:
        raise RecipeError.of(faults)

    look_at = chosen.rows[sample(chosen.labels)]
    found, digests = examine(spec, train, test, look_at, PinCache(cache))
    return DataPin(
        revision=place.revision,
        train=SplitPin(rows=len(train.numbers), sha256=digests[0]),
        test=SplitPin(rows=len(test.numbers), sha256=digests[1]) if test is not None else None,
        class_names=class_names,
        counts=tuple(counts.tolist()),
        channels=found.channels,
        height=found.height,
        width=found.width,
        mean=found.mean,
        std=found.std,
    )


def open_split(spec: SourceSpec, split: SplitName, sources: Mapping[str, Path]) -> RealData:
    """The images of one split of a resolved recipe.

    Args:
        spec: `dataset:` of a resolved recipe.
        split: `train` or `test`; neither holds a row of the other.
        sources: Local copies by Hub id.

    Raises:
        DataError: If the source is gone or is no longer what was pinned, or an image cannot be
            decoded; names the row.
    """
    pin = spec.pinned
    try:
        part = _part(spec, _find(spec, sources, pin.revision), split)
        picked = resolve_classes(spec.classes, part.rows.names) if split == "train" else None
    except RecipeError as error:
        raise DataError.of(error.faults) from error
    expected = pin.train if split == "train" else pin.test
    names = tuple(part.rows.names[label] for label in picked) if picked is not None else None
    if expected is None or len(part.numbers) != expected.rows:
        raise _changed(spec, f"split '{split}' has {len(part.numbers)} images")
    if names is not None and names != pin.class_names:
        raise _changed(spec, "its classes have other names")

    chosen = choose(part, pin.class_names)
    return RealData(
        source=open_pixels(part.rows, chosen.rows, geometry_of(spec)),
        labels=torch.from_numpy(chosen.labels),
        class_names=pin.class_names,
        channels=pin.channels,
        height=pin.height,
        width=pin.width,
        mean=pin.mean,
        std=pin.std,
        source_rows=torch.from_numpy(chosen.rows),
        origin=torch.arange(len(chosen.rows)),
        holdout=spec.holdout if split == "train" else None,
    )


def geometry_of(spec: SourceSpec) -> Geometry:
    """What every image of a resolved recipe's data set is turned into."""
    pin = spec.pinned
    return Geometry(
        channels=pin.channels,
        height=pin.height,
        width=pin.width,
        size=spec.size,
        resize=spec.resize,
        grey_only=spec.channels is None and pin.channels == 1,
    )


def stored_rows(spec: SourceSpec, sources: Mapping[str, Path]) -> EncodedRows:
    """The training split as it is stored, before any choice of rows and classes.

    Args:
        spec: `dataset:` of a recipe.
        sources: Local copies by Hub id.

    Raises:
        DataError: If the source is gone, or has no such split.
    """
    try:
        return _find(spec, sources, None if spec.pin is None else spec.pin.revision).rows(
            spec.train
        )
    except RecipeError as error:
        raise DataError.of(error.faults) from error


def _changed(spec: SourceSpec, what: str) -> DataError:
    return DataError(
        f"the data set is not the one that was pinned: {what}",
        where=f"dataset.id: {spec.id}",
        mend="run `distillhub resolve --update` if the change is meant",
    )
