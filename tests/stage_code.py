"""The code behind each stage as a digest, so that nobody changes results without meaning to.

After a change that may move results, bump the stage in distillhub/pipeline/versions.py. Then, or
when the change moves nothing (say so in the commit), record the code as it is now:
`python -m tests.stage_code`.
"""

import hashlib
import json
from pathlib import Path

from distillhub.pipeline.versions import CODE

ROOT = Path(__file__).resolve().parent.parent / "distillhub"
RECORD = Path(__file__).resolve().parent / "assets" / "stage_code.json"

BEHIND: dict[str, tuple[str, ...]] = {
    "models": ("models/*.py", "data/*.py", "ops/*.py"),
    "synthesize": ("methods/*.py", "data/*.py", "ops/*.py", "models/*.py", "units.py"),
    "relabel": (
        "relabel/*.py",
        "records/replay.py",
        "records/columns.py",
        "records/soft_labels.py",
        "ops/*.py",
    ),
    "package": ("packaging/parquet.py", "records/columns.py"),
    "evaluate": (
        "evaluation/*.py",
        "records/*.py",
        "models/*.py",
        "data/*.py",
        "ops/*.py",
        "pipeline/judging.py",
    ),
    "card": ("packaging/*", "records/*.py", "pipeline/judging.py"),
}
"""Files that a stage's results depend on."""


def digest(stage: str) -> str:
    """sha256 over the files of a stage; comment lines and layout do not count."""
    found = hashlib.sha256()
    for pattern in BEHIND[stage]:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                found.update(path.relative_to(ROOT).as_posix().encode())
                found.update(_meaning(path))
    return found.hexdigest()


def _meaning(path: Path) -> bytes:
    lines = (line.strip() for line in path.read_bytes().splitlines())
    return b"\n".join(line for line in lines if line and not line.startswith(b"#"))


def current() -> dict[str, dict[str, str | int]]:
    """Version and digest of every stage as the code is now."""
    return {stage: {"version": CODE[stage], "sha256": digest(stage)} for stage in BEHIND}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
