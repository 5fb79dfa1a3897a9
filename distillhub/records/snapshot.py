"""The files of a Hub repository at one revision, also without a network."""

from pathlib import Path

from distillhub.errors import DataError


def snapshot(repo: str, revision: str | None, cache: Path | None) -> Path:
    """The files of a Hub repository at a revision.

    Not `load_dataset(repo, revision=...)`: without a network that ignores the revision and gives
    the version that was prepared last (datasets 5.2), whereas `snapshot_download` then knows the
    revisions it has and refuses others.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = repo if revision is None else f"{repo}@{revision}"
    try:
        return Path(
            snapshot_download(repo, repo_type="dataset", revision=revision, cache_dir=cache)
        )
    except LocalEntryNotFoundError as error:
        raise DataError(
            "the Hub cannot be reached, and this revision is not in the cache",
            where=where,
            mend="go online once, or give a local folder",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"the Hub does not give it: {reason}",
            where=where,
            mend="check id and revision; for a private or gated set log in with `hf auth login`",
        ) from error
