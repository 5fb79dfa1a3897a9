"""Tests use no network, no caches of the user and no telemetry."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_CACHE = tempfile.mkdtemp(prefix="distillhub-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# Before any test imports a library: huggingface_hub reads these once, at import.
os.environ.update(
    HF_HOME=_CACHE,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DVC_NO_ANALYTICS="1",
    MPLBACKEND="Agg",
    NO_COLOR="1",
    OMP_NUM_THREADS="1",  # 1 and 2 threads differ in the last bits
    DISTILLHUB_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
)
for name in ("DISTILLHUB_SOURCES", "FORCE_COLOR", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data_dir() -> Callable[[str], Path]:
    """`real_data_dir("cifar10")`: a folder of real images in Hub layout, or a skip.

    Looked for in the folder that DISTILLHUB_TEST_DATA names, then in ../shared/data beside the
    checkout.
    """

    def find(name: str) -> Path:
        given = os.environ.get("DISTILLHUB_TEST_DATA")
        places = [Path(given)] if given else []
        places.append(ROOT.parent / "shared" / "data")
        for place in places:
            if (place / name).is_dir():
                return place / name
        pytest.skip(f"no {name} images here; name their folder in DISTILLHUB_TEST_DATA")

    return find
