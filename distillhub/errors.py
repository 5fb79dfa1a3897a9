"""Every exception of distillhub: what is wrong, where, and how to mend it.

DistillhubError            exit 1   (never raised itself)
|-- UsageError             exit 2   a command was given arguments that do not fit together
|-- RecipeError            exit 3   a recipe, or what it names, cannot be used; holds every fault
|-- PipelineError          exit 4   a stage failed while working
|   |-- DataError          exit 4   real data cannot be read: corrupt image, no network, folder gone
|   |-- DivergedError      exit 4   a loss or an image became NaN or infinite
|   |-- StorageError       exit 4   a folder cannot be written: full disk, no permission
|   `-- HubError           exit 4   the Hub refuses
|       `-- OfflineError   exit 4   there is no way to the Hub
|-- VerificationError      exit 5   an artifact is not what its manifest says; holds every fault
|   `-- RefusedError       exit 5   an artifact may not be published as it is
`-- ConflictError          exit 6   a publication met a newer one
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong."""

    what: str
    where: str = ""
    mend: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.mend:
            lines.append(f"    mend: {self.mend}")
        return "\n".join(lines)


class DistillhubError(Exception):
    """Base of all errors meant for a user; `faults` is never empty."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.faults: tuple[Fault, ...] = (Fault(what, where, mend),)
        super().__init__(what, where, mend)

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> "DistillhubError":
        """The same error for several faults, reported together."""
        found = tuple(faults)
        error = cls(found[0].what, where=found[0].where, mend=found[0].mend)
        error.faults = found
        return error

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class UsageError(DistillhubError):
    """The arguments of a command do not fit together."""

    exit_code = 2


class RecipeError(DistillhubError):
    """A recipe, or something that it names, cannot be used."""

    exit_code = 3


class PipelineError(DistillhubError):
    """A stage failed while it was working."""

    exit_code = 4


class DataError(PipelineError):
    """Real data cannot be read."""


class DivergedError(PipelineError):
    """A loss or an image became NaN or infinite; nothing of it was written."""


class StorageError(PipelineError):
    """A folder cannot be written."""


class HubError(PipelineError):
    """The Hub refuses."""


class OfflineError(HubError):
    """There is no way to the Hub: no network, or HF_HUB_OFFLINE is set."""


class VerificationError(DistillhubError):
    """An artifact is not what its manifest says."""

    exit_code = 5


class RefusedError(VerificationError):
    """An artifact may not be published as it is."""


class ConflictError(DistillhubError):
    """A publication met a newer one."""

    exit_code = 6
