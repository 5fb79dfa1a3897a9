"""Whatever happens on the way, a repository is the old version or the new one."""

import copy
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from distillhub.errors import VerificationError
from distillhub.hub import readback
from distillhub.hub.repository import LocalFile, RemoteFile, Repository
from distillhub.hub.versions import Version
from tests.hub.loopback import TOKEN, Blob, Fault, Hub, Repo
from tests.hub.process import ROOT, environment, finish, run, start

TO = ["--repo", "org/tiny"]


@pytest.mark.slow
def test_a_fault_at_any_request_leaves_the_old_or_the_new_and_the_next_run_ends_right(
    tiny: Path, noted: Callable[[str], Path]
):
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.trials", str(tiny), str(noted("Changed."))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout.splitlines()[-1])

    print(f"{len(trials)} faults:", Counter((t["kind"], t["lasting"]) for t in trials))  # noqa: T201
    assert len(trials) == 5 * (23 + 22), "requests of a first and of a second publication"
    assert [trial for trial in trials if not trial["hits"]] == []
    assert [trial for trial in trials if not trial["safe"]] == []
    assert [trial for trial in trials if not trial["healed"]] == []
    assert {trial["told"] for trial in trials} == {"", "HubError", "OfflineError"}


@pytest.mark.slow
def test_of_two_publishers_one_wins_and_the_other_is_told_what_to_do(
    noted: Callable[[str], Path], hub: Hub, published: dict[str, Repo], tmp_path: Path
):
    hub.repos = copy.deepcopy(published)
    settings = environment(hub.url, tmp_path / "home")
    sets = {name: noted(f"By {name}.") for name in ("one", "two")}

    together = threading.Barrier(2)
    hub.before = {"POST /api/datasets/org/tiny/commit/": lambda: together.wait(60)}
    processes = [
        start(
            [["publish", str(folder), *TO]],
            tmp_path / name,
            environment(hub.url, tmp_path / f"home-{name}"),
        )
        for name, folder in sets.items()
    ]
    ended = dict(zip(sets, (finish(process)[0] for process in processes), strict=True))
    hub.before.clear()

    assert sorted(done.code for done in ended.values()) == [0, 6]
    winner, loser = sorted(ended, key=lambda name: ended[name].code)
    assert "another publication came first" in ended[loser].err
    assert "run publish again" in ended[loser].err
    repo = hub.repo("org/tiny")
    assert len(repo.commits) == 3
    assert f"By {winner}.".encode() in repo.head.files["README.md"].content
    assert repo.tags["v1.0.1"] == repo.head.oid

    again = run([["publish", str(sets[loser]), *TO]], tmp_path, settings)[0]

    assert again.code == 0, again.err
    assert list(repo.tags) == ["v1.0.0", "v1.0.1", "v1.0.2"]
    assert f"By {loser}.".encode() in repo.head.files["README.md"].content
    older = repo.commits[repo.tags["v1.0.1"]].files["README.md"].content
    assert f"By {winner}.".encode() in older


@pytest.mark.slow
def test_a_moved_head_damage_and_strangers_are_told_without_the_token(
    noted: Callable[[str], Path], hub: Hub, published: dict[str, Repo], tmp_path: Path
):
    hub.repos = copy.deepcopy(published)
    hub.says = f"Authorization: Bearer {TOKEN}, or as such {TOKEN}"
    repo, changed = hub.repo("org/tiny"), str(noted("Changed."))
    shard = "data/train-00000-of-00001.parquet"
    theirs = hub.repos["org/theirs"] = Repo("org/theirs", private=False)
    theirs.add("theirs", {"train.csv": Blob(b"a,b\n1,2\n", apart=False)})

    def damage() -> None:
        hub.stale.clear()
        repo.add("by hand", {**repo.head.files, shard: Blob(b"PAR1PAR1", apart=True)})
        repo.tags["v1.0.2"] = repo.head.oid
        repo.tags["v9.0.0"] = next(iter(repo.commits))

    hub.before = {
        "GET /mark/0": lambda: hub.arm(Fault("slow", 6, seconds=0.5)),
        "GET /mark/1": lambda: hub.stale.update({"org/tiny": next(iter(repo.commits))}),
        "GET /mark/2": damage,
    }
    commands = {
        "slow": ["verify", "org/tiny"],
        "stale": ["publish", changed, *TO],
        "damaged": ["verify", "org/tiny@v1.0.2"],
        "damaged, full": ["verify", "org/tiny@v1.0.2", "--full"],
        "damaged, fetched": ["fetch", "org/tiny@v1.0.2", "--out", "damaged"],
        "no manifest": ["verify", "org/tiny@v9"],
        "theirs": ["publish", changed, "--repo", "org/theirs"],
        "stranger": ["python", "import os; os.environ['HF_TOKEN'] = 'hf_Stranger0123456789'"],
        "new": ["publish", changed, "--repo", "org/new"],
        "private": ["fetch", "org/tiny"],
        "nobody": ["python", "import os; del os.environ['HF_TOKEN']"],
        "publish": ["publish", changed, *TO],
    }
    settings = environment(hub.url, tmp_path / "home")
    done = dict(zip(commands, run(list(commands.values()), tmp_path, settings), strict=True))

    assert [found.code for found in done.values()] == [0, 6, 5, 5, 5, 5, 6, 0, 4, 4, 0, 4]
    said = {step: found.err for step, found in done.items()}
    assert "another publication came first" in said["stale"]
    assert f"where: org/tiny@v1.0.2: {shard}" in said["damaged"]
    assert f"where: org/tiny@v1.0.2: {shard}" in said["damaged, full"]
    assert not (tmp_path / "damaged").exists()
    assert "has no manifest.json" in said["no manifest"]
    assert "files that distillhub did not publish, such as train.csv" in said["theirs"]
    assert len(theirs.commits) == 1
    assert "the token must allow writing" in said["new"]
    assert "[token]" in said["new"]
    assert "no such data set, or it is private" in said["private"]
    assert "set HF_TOKEN, or log in" in said["publish"]
    everything = "".join(found.out + found.err for found in done.values())
    assert TOKEN not in everything
    assert "hf_Stranger" not in everything
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_tag_that_is_missing_or_of_another_and_a_file_that_came_back_changed(
    noted: Callable[[str], Path], hub: Hub, published: dict[str, Repo], tmp_path: Path
):
    hub.repos = copy.deepcopy(published)
    repo, changed = hub.repo("org/tiny"), str(noted("Changed."))
    first = repo.head

    def first_tag_fails() -> None:
        del hub.before["POST /api/datasets/org/other/tag/"]
        hub.arm(Fault("error", 1, status=400))

    def damage() -> None:
        files = {**repo.head.files, "eval.json": Blob(b"{}", apart=False)}
        repo.commits[repo.head.oid] = repo.head._replace(files=files)

    hub.before = {
        "POST /api/datasets/org/other/tag/": first_tag_fails,
        "POST /api/datasets/org/tiny/tag/": lambda: repo.tags.setdefault("v1.0.1", first.oid),
        "GET /api/datasets/org/tiny/tree/v1.0.2": damage,
    }

    untagged, tagged, taken, damaged = run(
        [
            ["publish", changed, "--repo", "org/other", "--version", "2.0.0"],
            ["publish", changed, "--repo", "org/other"],
            ["publish", changed, *TO],
            ["publish", changed, *TO],
        ],
        tmp_path,
        environment(hub.url, tmp_path / "home"),
    )

    other = hub.repo("org/other")
    assert untagged.code == 4, untagged
    assert tagged.code == 0, tagged
    assert "its tag v2.0.0 is missing and will be set" in tagged.out
    assert (list(other.tags), len(other.commits)) == (["v2.0.0"], 2)
    assert taken.code == 6, taken
    assert "v1.0.1 was published by another in the meantime; yours is commit" in taken.err
    assert repo.tags["v1.0.1"] == first.oid
    assert damaged.code == 5, damaged
    assert "eval.json" in damaged.err
    assert "the Hub has hash" in damaged.err


def test_files_that_the_hub_lacks_adds_or_changes_are_named():
    kept, other = LocalFile.of(b"kept"), LocalFile.of(b"other")
    plain = RemoteFile(kept.blob, 4, None)
    apart = RemoteFile("0" * 40, 4, kept.sha256)

    faults = readback.unequal(
        {"a": kept, "b": kept, "c": other, "d": other, "e": kept},
        {"a": plain, "b": apart, "c": plain, "d": apart, "f": plain},
        "",
    )

    assert [fault.where for fault in faults] == ["c", "d", "e", "f"]


def test_a_row_that_streams_differently_is_a_fault(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    files = {
        path.relative_to(tiny).as_posix(): LocalFile.of(path)
        for path in tiny.rglob("*")
        if path.is_file()
    }
    there = {name: RemoteFile(file.blob, file.size, None) for name, file in files.items()}
    monkeypatch.setattr(Repository, "files", lambda self, revision: there)
    stored = readback._stored(files["data/train-00000-of-00001.parquet"])
    monkeypatch.setattr(readback, "first_row", lambda repo, tag: {**stored, "label": 5})

    with pytest.raises(VerificationError, match="column label of the first row differs"):
        readback.read_back(Repository("org/tiny"), Version(1, 0, 0), files)
