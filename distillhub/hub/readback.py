"""What a version looks like on the Hub, compared with the files that were sent."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from distillhub.errors import Fault, VerificationError
from distillhub.hub.client import RAISED, first_line, is_transient, retried, translated
from distillhub.hub.repository import LocalFile, RemoteFile, Repository
from distillhub.hub.versions import Version
from distillhub.records.streamed import first_row

MEND = "publish it again; if it stays so, tell the Hub's support"


def read_back(repository: Repository, version: Version, files: Mapping[str, LocalFile]) -> None:
    """Compare every file of a tag by its hash, and one row as `load_dataset` streams it.

    Raises:
        VerificationError: If anything differs; every file is named.
        HubError: If the Hub cannot be reached.
    """
    faults = list(unequal(files, repository.files(version.tag), MEND))
    if faults:
        raise VerificationError.of(faults)
    shards = sorted(name for name in files if name.startswith("data/"))
    if not shards:
        raise VerificationError("holds no rows", where=repository.name, mend=MEND)
    seen = _streamed(repository, version.tag)
    for column, value in _stored(files[shards[0]]).items():
        if seen.get(column) != value:
            raise VerificationError(
                f"column {column} of the first row differs when it is streamed",
                where=f"{repository.name}@{version.tag}",
                mend=MEND,
            )


def unequal(
    local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile], mend: str
) -> Iterator[Fault]:
    """Files that the Hub lacks, has in excess, or holds with another hash."""
    for name in sorted({*local, *remote}):
        mine, theirs = local.get(name), remote.get(name)
        if theirs is None:
            yield Fault("is not on the Hub", name, mend)
        elif mine is None:
            yield Fault("is on the Hub, but no part of the set", name, mend)
        elif not mine.equals(theirs):
            here, there = (
                (mine.sha256, theirs.sha256) if theirs.sha256 else (mine.blob, theirs.blob)
            )
            yield Fault(f"the Hub has hash {there}, the set {here}", name, mend)


def _streamed(repository: Repository, tag: str) -> Mapping[str, object]:
    where = f"{repository.name}@{tag}"
    try:
        return retried(lambda: first_row(repository.name, tag))
    except RAISED as error:
        if is_transient(error):
            raise translated(error, where) from None
        repository.files(tag)  # `datasets` hides why: without a Hub this says so
        raise VerificationError(
            f"is published, but load_dataset cannot stream it: {first_line(error)}",
            where=where,
            mend=MEND,
        ) from None


def _stored(file: LocalFile) -> Mapping[str, object]:
    """The first row of a Parquet file."""
    import pyarrow.parquet as pq

    if not isinstance(file.source, Path):
        raise TypeError("Parquet files are read from the folder of the set")
    batch = next(pq.ParquetFile(file.source).iter_batches(batch_size=1))
    row: Mapping[str, object] = batch.to_pylist()[0]
    return row
