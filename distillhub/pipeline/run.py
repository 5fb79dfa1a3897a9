"""What a running stage is given besides its blocks: folders, device, reporter, and what it cost."""

import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distillhub.errors import UsageError
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, threads
from distillhub.pipeline.project import Project
from distillhub.pipeline.reporting import Reporter

DEVICE = "DISTILLHUB_DEVICE"


def pick_device() -> torch.device:
    """The device of this process: `DISTILLHUB_DEVICE`, else a GPU where there is one, else the CPU.

    Raises:
        UsageError: If the device asked for is not there.
    """
    asked = os.environ.get(DEVICE)
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(
            f"'{asked}' is no device", where=DEVICE, mend="use cpu, cuda or cuda:0"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "no CUDA device on this machine", where=DEVICE, mend="unset it, or set it to cpu"
        )
    return device


@dataclass
class StageRun:
    """One run of one stage of one build."""

    project: Project
    stem: str
    stage: str
    device: torch.device
    reporter: Reporter
    stop: StopRequest
    work: WorkFolder
    started: float = field(default_factory=time.monotonic)
    cpu_before: float = field(default_factory=time.process_time)
    facts: dict[str, int | float | str] = field(default_factory=dict)
    """What else the stage wants remembered beside its times."""

    def reads(self, folder: str) -> Path:
        """A folder that an earlier stage wrote."""
        return self.project.artifacts(self.stem) / folder

    @property
    def seconds(self) -> float:
        """Wall time so far, that of interrupted runs before included."""
        return self.work.elapsed() + time.monotonic() - self.started

    def stats(self) -> dict[str, int | float | str]:
        """What the stage cost: seconds, bytes of memory at the peak, device, threads."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        unit = 1 if sys.platform == "darwin" else 1024
        cost: dict[str, int | float | str] = {
            "wall_seconds": round(self.seconds, 3),
            "cpu_seconds": round(time.process_time() - self.cpu_before, 3),
            "peak_host_bytes": usage.ru_maxrss * unit,
            "peak_gpu_bytes": torch.cuda.max_memory_allocated()
            if self.device.type == "cuda"
            else 0,
            "device": device_name(self.device),
            "threads": threads(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return cost | self.facts


def device_name(device: torch.device) -> str:
    """What moves results and times: the GPU's model, or the processor's architecture."""
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({platform.machine()})"
    )


def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in (
        "distillhub",
        "torch",
        "torchvision",
        "timm",
        "datasets",
        "pyarrow",
        "pillow",
        "numpy",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
