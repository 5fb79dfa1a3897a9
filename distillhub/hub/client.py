"""How the Hub is reached: the client, its token, small retries, and errors that say the mend.

The token is the client's own: `HF_TOKEN`, or what `hf auth login` stored. It is never passed on,
printed or written here, and texts of errors are searched for it before they are shown.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from distillhub import __version__
from distillhub.errors import DistillhubError, HubError, OfflineError

T = TypeVar("T")
logger = logging.getLogger(__name__)

TransportError: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the client's HTTP library raises when a connection fails; its name differs by release."""
RAISED = (TransportError, OSError, RuntimeError, ValueError)
"""What the client raises: a failed upload is a RuntimeError, a refused name a ValueError."""
WAITS = (1.0, 4.0)
"""Seconds before the second and the third attempt; the client retries uploads by itself."""
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be gone at the next attempt."""
LOGIN = "set HF_TOKEN, or log in with `hf auth login`"
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|\b(Bearer\s+)\S+", re.IGNORECASE)


def client() -> HfApi:
    """The Hub's client, at `HF_ENDPOINT`, with the user's own token."""
    return HfApi(library_name="distillhub", library_version=__version__)


def needs_token(where: str) -> None:
    """Refuse before any work what the Hub would refuse at its end.

    Raises:
        HubError: If the client has no token.
    """
    if get_token() is None:
        raise HubError("the Hub takes publications from known users only", where=where, mend=LOGIN)


def scrubbed(text: str) -> str:
    """A text without tokens, for messages and logs."""
    token = get_token()
    if token:
        text = text.replace(token, "[token]")
    return _TOKEN.sub(lambda found: f"{found[1] or ''}[token]", text)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, also behind one that the client wrapped."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, HfHubHTTPError):
            return int(found.response.status_code)
        found = found.__cause__
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the next attempt may do: a connection that failed, a server that was busy."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OfflineModeIsEnabled):
            return False
        if isinstance(found, HfHubHTTPError):
            return found.response.status_code in BUSY
        if isinstance(found, TransportError | ConnectionError | TimeoutError | JSONDecodeError):
            return True  # a busy server's page is no JSON
        found = found.__cause__
    return False


def retried(call: Callable[[], T]) -> T:
    """The result of a call that may be repeated, after at most three attempts."""
    for wait in WAITS:
        try:
            return call()
        except RAISED as error:
            if not is_transient(error):
                raise
            logger.info("tried again in %g s: %s", wait, first_line(error))
        time.sleep(wait)
    return call()


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Errors of the client as ours; the original, which may quote headers, is not chained."""
    try:
        yield
    except DistillhubError:
        raise
    except RAISED as error:
        raise translated(error, where) from None


def translated(error: Exception, where: str) -> HubError:
    """An error of the client as what, where and mend.

    Args:
        error: Of the client.
        where: The repository, with the revision where one was asked for.
    """
    what, mend = _told(error)
    kind = OfflineError if is_out_of_reach(error) else HubError
    return kind(what, where=where, mend=mend)


def is_out_of_reach(error: BaseException) -> bool:
    """Whether no answer came at all, so that the cache may give one."""
    offline = isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError)
    return offline or (is_transient(error) and status_of(error) is None)


def first_line(error: BaseException) -> str:
    """What an error says, on one line and without tokens."""
    lines = [line for line in scrubbed(str(error)).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:300]


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, OfflineModeIsEnabled):
        return "the Hub is out of reach: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
    if isinstance(error, GatedRepoError):
        return "access to this data set must be asked for", "ask on its page, then log in"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision", "see its versions: distillhub history"
    if isinstance(error, RepositoryNotFoundError):
        return "no such data set, or it is private", f"check the name; {LOGIN}"
    if isinstance(error, LocalEntryNotFoundError):
        return "the Hub cannot be reached, and the cache does not hold it", "go online once"
    if isinstance(error, EntryNotFoundError):
        return f"lacks a file: {first_line(error)}", "name a set that distillhub published"
    if isinstance(error, HFValidationError):
        return f"no name of a data set: {first_line(error)}", "names are org/name"
    status = status_of(error)
    if status in (401, 403):
        return f"the Hub refuses: {_server(error)}", f"the token must allow writing; {LOGIN}"
    if is_transient(error):
        said = f"status {status}" if status else first_line(error)
        return f"the Hub cannot be reached: {said}", "check the network and run it again"
    return f"the Hub refuses: {_server(error)}", "mend what it names and run it again"


def _server(error: BaseException) -> str:
    """The server's own words where there are some, also behind an error that the client wrapped."""
    found: BaseException | None = error
    while found is not None:
        said = getattr(found, "server_message", None)
        if said:
            return scrubbed(str(said))
        found = found.__cause__
    return first_line(error)
