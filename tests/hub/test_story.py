"""The life of a set on the Hub, told once by the real clients and then looked at."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST, Manifest
from tests.hub.loopback import TOKEN, Hub
from tests.hub.process import Done, environment, requests_of, run

pytestmark = pytest.mark.slow  # three processes of real clients, once for all

LOAD = """
from datasets import load_dataset
print(load_dataset("org/tiny")["train"].num_rows)
rows = load_dataset("org/tiny", revision="v1.0.0", split="train", streaming=True)
print(sorted(next(iter(rows))))
print(load_dataset("org/tiny", "evaluation")["results"].num_rows)
"""
OPEN = """
import distillhub
found = distillhub.load("org/tiny", revision="v1.0.0")
print(len(found), found.views_per_image, found.revision)
"""
READ_BACK = [
    "GET /api/datasets/org/tiny/tree/{tag}?recursive=true&expand=false",
    "HEAD /datasets/org/tiny/resolve/{tag}/README.md",
    "GET /datasets/org/tiny/resolve/{tag}/README.md",
    "HEAD /datasets/org/tiny/resolve/<commit>/tiny.py",
    "GET /api/datasets/org/tiny/revision/<commit>",
    "HEAD /datasets/org/tiny/resolve/<commit>/.huggingface.yaml",
    "GET /api/datasets/org/tiny/tree/<commit>/data?recursive=false&expand=false",
    "GET /api/datasets/org/tiny/tree/<commit>?recursive=false&expand=false",
    "HEAD /datasets/org/tiny/resolve/<commit>/dataset_infos.json",
    "GET /datasets/org/tiny/resolve/<commit>/data/train-00000-of-00001.parquet",
]
"""Hashes of the tag, then `load_dataset(..., streaming=True)` up to the first row."""
FIRST = [
    "GET /api/datasets/org/tiny",
    "POST /api/repos/create",
    "GET /api/datasets/org/tiny",
    "GET /api/datasets/org/tiny/tree/<commit>?recursive=true&expand=false",
    "POST /api/validate-yaml",
    "POST /api/datasets/org/tiny/preupload/main",
    "POST /datasets/org/tiny.git/info/lfs/objects/batch",
    "POST /lfs/org/tiny/verify",
    "POST /lfs/org/tiny/verify",
    "PUT /lfs/org/tiny/<sha256>",
    "PUT /lfs/org/tiny/<sha256>",
    "POST /api/datasets/org/tiny/commit/main",
    "POST /api/datasets/org/tiny/tag/<commit>",
]
"""A first publication; the two Parquet files are sent side by side, so they stand sorted here."""
SECOND = [
    "GET /api/datasets/org/tiny",
    "GET /api/datasets/org/tiny/refs",
    "GET /api/datasets/org/tiny/tree/<commit>?recursive=true&expand=false",
    "GET /api/datasets/org/tiny/tree/<commit>?recursive=true&expand=false",
    "HEAD /datasets/org/tiny/resolve/<commit>/manifest.json",
    "GET /datasets/org/tiny/resolve/<commit>/manifest.json",
    "HEAD /datasets/org/tiny/resolve/<commit>/eval.json",
    "GET /datasets/org/tiny/resolve/<commit>/eval.json",
    "POST /api/validate-yaml",
    "POST /api/datasets/org/tiny/preupload/main",
    "POST /api/datasets/org/tiny/commit/main",
    "POST /api/datasets/org/tiny/tag/<commit>",
]
"""A publication of a changed card: newest version, head, what changed, commit, tag."""


class Story(NamedTuple):
    hub: Hub
    folder: Path
    home: Path
    requests: list[str]
    done: dict[str, Done]
    numbers: dict[str, int]

    def asked(self, step: str) -> list[str]:
        """Requests of a step; commits by a placeholder, uploads sorted."""
        plain = [
            re.sub(r"\b[0-9a-f]{40}\b", "<commit>", request)
            for request in requests_of(self.requests, self.numbers[step])
        ]
        return [
            request
            for upload, group in groupby(plain, key=lambda request: " /lfs/" in request)
            for request in (sorted(group) if upload else group)
        ]


@pytest.fixture(scope="module")
def story(
    tiny: Path, noted: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    changed = str(noted("A remark."))
    to = ["--repo", "org/tiny"]
    online = {
        "plan": ["publish", str(tiny), *to, "--dry-run"],
        "first": ["publish", str(tiny), *to, "--public"],
        "load": ["python", LOAD],
        "again": ["publish", str(tiny), *to],
        "second": ["publish", changed, *to],
        "second again": ["publish", changed, *to],
        "older": ["publish", str(tiny), *to],
        "taken": ["publish", changed, *to, "--version", "1.0.0"],
        "low": ["publish", str(tiny), *to, "--version", "0.9.0"],
        "history": ["history", "org/tiny", "--json"],
        "words": ["history", "org/tiny"],
        "fetch": ["fetch", "org/tiny@v1.0.0", "--out", "old"],
        "newest": ["fetch", "org/tiny"],
        "newest again": ["fetch", "org/tiny"],
        "other": ["fetch", "org/tiny@v1.0.0"],
        "verify": ["verify", "org/tiny@v1.0.0"],
        "verify full": ["verify", "org/tiny@v1", "--full"],
        "absent": ["verify", "org/tiny@v3"],
        "nobody": ["fetch", "org/nobody"],
        "open": ["python", OPEN],
    }
    offline = {
        "fetch offline": ["fetch", "org/tiny@v1.0.0", "--out", "offline"],
        "newest offline": ["fetch", "org/tiny", "--out", "newest-offline"],
        "absent offline": ["fetch", "org/tiny@v2", "--out", "nothing"],
        "publish offline": ["publish", str(tiny), *to],
    }
    hub = Hub()
    settings = environment(hub.start(), folder / "home")
    work = folder / "work"
    with hub.recorded() as requests:
        done = dict(zip(online, run(list(online.values()), work, settings), strict=True))
    seen = len(hub.requests)
    without = {**settings, "HF_HUB_OFFLINE": "1"}
    done |= dict(zip(offline, run(list(offline.values()), work, without), strict=True))
    asked = [request for request in hub.requests[seen:] if "/mark/" not in request]
    assert asked == [], "requests were sent offline"
    numbers = {step: number for number, step in enumerate(online)}
    yield Story(hub, work, folder / "home", requests, done, numbers)
    hub.stop()


def test_every_command_ends_as_it_should(story: Story):
    codes = {step: done.code for step, done in story.done.items() if done.code}

    assert codes == {
        "taken": 6,
        "low": 2,
        "other": 2,
        "absent": 4,
        "nobody": 4,
        "absent offline": 4,
        "publish offline": 4,
    }, "\n".join(f"{step}: {done.err}" for step, done in story.done.items() if done.err)


def test_no_mistake_ends_in_a_traceback(story: Story):
    assert [step for step, done in story.done.items() if "Traceback" in done.err] == []


def test_a_dry_run_only_reads(story: Story):
    assert {request.split()[0] for request in story.asked("plan")} == {"GET"}


def test_a_dry_run_names_every_file_and_the_version(story: Story, tiny: Path):
    said = story.done["plan"].out

    names = [path.relative_to(tiny).as_posix() for path in tiny.rglob("*") if path.is_file()]
    assert [name for name in names if f"add  {name}" not in said] == []
    assert "v1.0.0" in said


def test_the_requests_of_a_first_publication_are_those_of_the_protocol(story: Story):
    read_back = [line.format(tag="v1.0.0") for line in READ_BACK]

    assert story.asked("first") == [*FIRST, *read_back]


def test_the_requests_of_a_second_publication_are_those_of_the_protocol(story: Story):
    asked = story.asked("second")

    assert asked[: len(SECOND)] == SECOND
    # `datasets` knows some answers from the step before: the rest is a part of the usual reading
    read_back = [line.format(tag="v1.0.1") for line in READ_BACK]
    assert [line for line in asked[len(SECOND) :] if line not in read_back] == []


def test_real_clients_load_what_was_published(story: Story):
    rows, columns, runs = story.done["load"].out.splitlines()

    assert (rows, runs) == ("20", "8")
    assert columns == "['image', 'label', 'soft_val', 'view_crop', 'view_flip']"


def test_our_own_loader_opens_a_version_with_its_views(story: Story):
    commit = story.hub.repo("org/tiny").tags["v1.0.0"]

    assert story.done["open"].out.split() == ["20", "2", commit]


def test_the_same_content_makes_no_commit(story: Story):
    writes = [
        request
        for step in ("again", "second again", "older")
        for request in story.asked(step)
        if request.startswith(("POST", "PUT"))
    ]

    assert writes == []
    titles = [commit.title for commit in story.hub.repo("org/tiny").commits.values()]
    assert titles == ["initial commit", "v1.0.0: first version", "v1.0.1: card; evaluation report"]


def test_a_changed_card_is_a_patch_and_says_its_version(story: Story):
    repo = story.hub.repo("org/tiny")
    commit = repo.commits[repo.tags["v1.0.1"]]

    assert commit is repo.head
    assert b"\n  version: 1.0.1\n" in commit.files["README.md"].content
    assert b'load_dataset("org/tiny", revision="v1.0.1", ' in commit.files["README.md"].content


def test_a_version_keeps_the_digest_of_its_rows_and_recipe(story: Story, tiny: Path):
    repo = story.hub.repo("org/tiny")
    text = repo.commits[repo.tags["v1.0.1"]].files[MANIFEST].content
    own = Manifest.model_validate_json((tiny / MANIFEST).read_bytes())

    assert Manifest.model_validate_json(text).digest == own.digest


def test_a_taken_version_names_the_next_one(story: Story):
    said = story.done["taken"].err

    assert "v1.0.0 is published already, with other content" in said
    assert "1.0.2" in said


def test_history_tells_what_changed(story: Story):
    newest, first = json.loads(story.done["history"].out)

    assert (newest["version"], first["version"]) == ("1.0.1", "1.0.0")
    assert newest["commit"] == story.hub.repo("org/tiny").tags["v1.0.1"]
    assert {change["kind"] for change in newest["changes"]} == {"patch"}
    assert "card" in {change["what"] for change in newest["changes"]}
    assert newest["digest"] == first["digest"]
    assert "first version" in story.done["words"].out


@pytest.mark.parametrize(
    ("folder", "tag"),
    [("old", "v1.0.0"), ("tiny", "v1.0.1"), ("offline", "v1.0.0"), ("newest-offline", "v1.0.1")],
)
def test_a_fetched_folder_is_the_version_that_was_asked_for(story: Story, folder: str, tag: str):
    repo = story.hub.repo("org/tiny")
    published = {
        name: blob.content
        for name, blob in repo.commits[repo.tags[tag]].files.items()
        if name != ".gitattributes"
    }
    fetched = story.folder / folder

    there = {p.relative_to(fetched).as_posix(): p for p in fetched.rglob("*") if p.is_file()}

    assert {name: path.read_bytes() for name, path in there.items()} == published
    assert verify(fetched).ok


def test_fetching_over_another_version_is_refused(story: Story):
    assert "tiny is there and holds something else" in story.done["other"].err


def test_the_fast_check_downloads_no_rows(story: Story):
    assert [request for request in story.asked("verify") if "parquet" in request] == []
    assert "is what its manifest says: 11 files" in story.done["verify"].out


def test_without_a_network_the_message_says_so(story: Story):
    assert "the Hub is out of reach: HF_HUB_OFFLINE is set" in story.done["publish offline"].err
    assert "versions there: v1.0.0, v1.0.1" in story.done["absent offline"].err


def test_no_token_is_printed_or_written(story: Story):
    said = [done.out + done.err for done in story.done.values()]
    files = [path for path in (story.folder.parent).rglob("*") if path.is_file()]

    assert TOKEN not in "".join(said)
    assert len(files) > 40
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_requests_carried_the_token_only_to_the_hub_itself(story: Story):
    sent = zip(story.hub.requests, story.hub.headers, strict=True)

    signed = [headers for request, headers in sent if request.startswith("PUT /lfs/")]

    assert len(signed) == 2
    assert not any("Authorization" in headers for headers in signed)
