"""The sets of an organisation: their reports, cards and pictures, without their rows."""

from pathlib import Path

from huggingface_hub import snapshot_download

from distillhub.errors import HubError
from distillhub.hub.client import client, hub_errors, retried
from distillhub.packaging.card import ARMS, CARD, CONTACT_SHEET, REPORT
from distillhub.records.manifest import MANIFEST

TAG = "distillhub"
"""On every card that distillhub renders."""
WANTED = (CARD, REPORT, MANIFEST, CONTACT_SHEET, ARMS)


def fetch_texts(organisation: str, into: Path) -> tuple[Path, ...]:
    """What a catalog needs of all sets of an organisation or a person, newest versions.

    Args:
        organisation: Its name on the Hub.
        into: A folder per set is made there.

    Raises:
        HubError: If the Hub does not answer, or has no set of distillhub's there.
    """
    with hub_errors(organisation):
        listed = retried(lambda: list(client().list_datasets(author=organisation, filter=TAG)))
        found = sorted(one.id for one in listed)
        if not found:
            raise HubError(
                "has no set made by distillhub",
                where=organisation,
                mend="check the name; sets of others come in with distillhub import",
            )
        return tuple(_texts(repo, into / repo.rpartition("/")[2]) for repo in found)


def _texts(repo: str, folder: Path) -> Path:
    retried(
        lambda: snapshot_download(
            repo, repo_type="dataset", local_dir=folder, allow_patterns=list(WANTED)
        )
    )
    return folder
