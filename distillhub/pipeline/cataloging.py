"""`distillhub catalog`: any number of artifacts as a static site."""

from collections.abc import Sequence
from pathlib import Path

from distillhub.errors import UsageError
from distillhub.packaging.catalog import Catalog, gather
from distillhub.packaging.catalog_pages import is_catalog, write_site
from distillhub.pipeline.files import replaced_folder, storage_errors


def make_catalog(folders: Sequence[Path], out: Path, *, title: str) -> Catalog:
    """Write the site of all artifacts in and below some folders.

    Args:
        folders: Artifacts, or folders that hold some; what cannot be read is named on the page.
        out: The site; a catalog that is there is replaced in one move.
        title: Of the site.

    Returns:
        What was found, the folders that could not be read among it.

    Raises:
        UsageError: If `out` holds something else, or there is nothing at all to show.
        StorageError: If the site cannot be written.
    """
    if out.exists() and not (out.is_dir() and is_catalog(out)):
        raise UsageError(
            "holds something else than a catalog",
            where=str(out),
            mend="name a new or empty folder with --out",
        )
    found = gather([folder for folder in folders if folder.resolve() != out.resolve()])
    if not found.entries and not found.broken:
        raise UsageError("no folder was given", mend="distillhub catalog DIR...")
    with storage_errors(out), replaced_folder(out) as fresh:
        write_site(found, fresh, title=title)
    return found
