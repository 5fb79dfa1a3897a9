"""Commands of distillhub in a process that knows the loopback Hub and nothing else.

The client reads its settings when it is imported. One process may run several commands: that
saves the imports, the longest part of each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.hub.loopback import TOKEN

ROOT = Path(__file__).resolve().parent.parent.parent


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Of a user whose Hub is the loopback one."""
    known = {
        "HF_ENDPOINT": url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "30",
        "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        "NO_PROXY": "127.0.0.1",
    }
    return {**os.environ, **known, **more}


def start(
    commands: Sequence[Sequence[str]], folder: Path, settings: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Run commands one after the other in a new process; `finish` waits for it."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hub.process", json.dumps(commands), str(folder)],
        cwd=ROOT,
        env=dict(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[Done]:
    """What became of each command."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [Done(*found) for found in json.loads(out.splitlines()[-1])]


def run(commands: Sequence[Sequence[str]], folder: Path, settings: Mapping[str, str]) -> list[Done]:
    """Commands in a process of their own: words of distillhub, or `python` and a program."""
    return finish(start(commands, folder, settings))


def requests_of(recorded: Sequence[str], number: int) -> list[str]:
    """What one command asked for, of all that was recorded during a process."""
    begin = recorded.index(f"GET /mark/{number}") + 1
    end = f"GET /mark/{number + 1}"
    return list(recorded[begin : recorded.index(end) if end in recorded else None])


def _main(commands: list[list[str]], folder: str) -> None:
    import contextlib
    import io
    import traceback
    import urllib.request

    from typer.testing import CliRunner

    from distillhub_cli.main import app

    os.chdir(folder)
    done = []
    for number, words in enumerate(commands):
        with contextlib.suppress(OSError):  # a mark among the requests
            urllib.request.urlopen(f"{os.environ['HF_ENDPOINT']}/mark/{number}")  # noqa: S310
        if words[0] == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(words[1], {})  # noqa: S102 - a program of the test
            done.append((0, out.getvalue(), ""))
            continue
        result = CliRunner().invoke(app, words)
        failed = result.exception is not None and not isinstance(result.exception, SystemExit)
        trace = "".join(traceback.format_exception(result.exception)) if failed else ""
        done.append((result.exit_code, result.stdout, result.stderr + trace))
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]), sys.argv[2])
