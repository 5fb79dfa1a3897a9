"""A publication with a fault at each of its requests, one at a time; prints JSON.

Run as `python -m tests.hub.trials OLD NEW`, in a process of its own: the client is changed so that
it does not wait between its attempts. OLD is published first; NEW meets the faults.
"""

import copy
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from tests.hub.loopback import Fault, Hub
from tests.hub.process import environment

REPO = "org/tiny"


def content_of(hub: Hub, revision: str) -> dict[str, str]:
    commit = hub.repo(REPO).resolve(revision)
    assert commit is not None
    return {path: blob.sha256 for path, blob in commit.files.items() if path != ".gitattributes"}


def main(old: Path, new: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="distillhub-trials-"))
    hub = Hub()
    os.environ.update(environment(hub.start(), home))

    import time

    import datasets
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import _http

    from distillhub.errors import DistillhubError
    from distillhub.hub import client, planning, publish

    logging.disable(logging.CRITICAL)
    client.WAITS = publish.WAITS = (0.0, 0.0)
    _http.time = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 0
    datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 0
    datasets.disable_progress_bars()
    verdicts = {folder: planning.verify(folder) for folder in (old, new)}
    planning.verify = verdicts.__getitem__  # the folders do not change

    def attempt(folder: Path) -> str:
        """The error's name, or nothing."""
        shutil.rmtree(home, ignore_errors=True)
        HfFileSystem.clear_instance_cache()
        try:
            publish.carry_out(planning.make_plan(folder, repo_id=REPO))
        except DistillhubError as error:
            return type(error).__name__
        return ""

    results = []
    for first in (True, False):
        hub.repos.clear()
        if not first:
            assert not attempt(old)
        before = copy.deepcopy(hub.repos)
        old_files = {} if first else content_of(hub, "main")
        with hub.recorded() as requests:
            assert not attempt(new)
        new_files, commits = content_of(hub, "main"), len(hub.repo(REPO).commits)
        tag = "v1.0.0" if first else "v1.0.1"
        for kind, lasting in (
            ("error", False),
            ("cut", False),
            ("lost", False),
            ("error", True),
            ("cut", True),
        ):
            for number in range(1, len(requests) + 1):
                hub.repos = copy.deepcopy(before)
                fault = Fault(kind, number, lasting)
                hub.arm(fault)
                told = attempt(new)
                hub.arm(None)
                there = content_of(hub, "main") if REPO in hub.repos else {}
                tagged = REPO in hub.repos and tag in hub.repo(REPO).tags
                safe = there in (old_files, new_files) and (not tagged or there == new_files)
                if not first:
                    safe = safe and content_of(hub, "v1.0.0") == old_files
                again = attempt(new)
                healed = (
                    not again
                    and content_of(hub, "main") == content_of(hub, tag) == new_files
                    and len(hub.repo(REPO).commits) == commits
                )
                results.append(
                    {
                        "first": first,
                        "kind": kind,
                        "lasting": lasting,
                        "request": requests[number - 1],
                        "hits": fault.hits,
                        "told": told,
                        "safe": safe,
                        "again": again,
                        "healed": healed,
                    }
                )
    shutil.rmtree(home, ignore_errors=True)
    hub.stop()
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
