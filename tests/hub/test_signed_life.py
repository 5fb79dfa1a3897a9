"""A signed set on the Hub: published, checked by its key, compared, and made once more."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from distillhub.packaging.provenance import SIGNATURE
from tests.hub.loopback import Hub
from tests.hub.process import Done, environment, run

pytestmark = pytest.mark.slow  # real clients in a process of their own, and a build


class Life(NamedTuple):
    hub: Hub
    folder: Path
    done: dict[str, Done]

    def json(self, step: str) -> dict:
        found: dict = json.loads(self.done[step].out)
        return found


@pytest.fixture(scope="module")
def life(
    tiny: Path, noted: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("signed-life")
    changed = str(noted("A remark."))
    to, key = ["--repo", "org/tiny"], ["--key", "maker"]
    check = ["--key", "maker.pub"]
    steps = {
        "key": ["keygen", "maker"],
        "other key": ["keygen", "other"],
        "sign as built": ["sign", str(tiny), *key, "--out", "plain"],
        "refused": ["publish", "plain", *to],
        "sign": ["sign", str(tiny), *key, "--out", "first", *to],
        "publish": ["publish", "first", *to],
        "again": ["publish", "first", *to],
        "sign second": ["sign", changed, *key, "--out", "second", *to],
        "low": ["publish", "second", *to],
        "sign as second": ["sign", "second", *key, *to, "--version", "1.0.1"],
        "publish second": ["publish", "second", *to],
        "verify": ["verify", "org/tiny@v1.0.0", *check],
        "verify full": ["verify", "org/tiny", "--full", *check],
        "wrong key": ["verify", "org/tiny@v1.0.0", "--key", "other.pub"],
        "private key": ["verify", "org/tiny@v1.0.0", "--key", "maker"],
        "fetch": ["fetch", "org/tiny@v1.0.0", "--out", "fetched"],
        "verify fetched": ["verify", "fetched", *check],
        "diff": ["diff", "org/tiny@v1.0.0", "org/tiny@v1.0.1", "--json"],
        "diff in words": ["diff", "fetched", "org/tiny@v1.0.1", "--picture", "p.png"],
        "reproduce": ["reproduce", "org/tiny@v1.0.0", "--json"],
    }
    hub = Hub()
    settings = environment(hub.start(), folder / "home")
    done = dict(zip(steps, run(list(steps.values()), folder / "work", settings), strict=True))
    yield Life(hub, folder / "work", done)
    hub.stop()


def test_every_command_ends_as_it_should(life: Life):
    codes = {step: done.code for step, done in life.done.items() if done.code}

    assert codes == {"refused": 5, "low": 5, "wrong key": 5, "private key": 2}, "\n".join(
        f"{step}: {done.err}" for step, done in life.done.items() if done.err
    )


def test_a_signature_is_published_as_it_was_made(life: Life):
    repo = life.hub.repo("org/tiny")

    for tag, name in (("v1.0.0", "first"), ("v1.0.1", "second")):
        sent = repo.commits[repo.tags[tag]].files[SIGNATURE].content
        assert sent == (life.folder / name / SIGNATURE).read_bytes()


def test_publishing_what_was_signed_otherwise_names_the_command_that_mends_it(life: Life):
    assert "--repo org/tiny --version 1.0.0" in life.done["refused"].err
    assert "--version 1.0.1" in life.done["low"].err


def test_the_same_signed_set_makes_no_commit(life: Life):
    titles = [commit.title for commit in life.hub.repo("org/tiny").commits.values()]

    assert "holds this set already" in life.done["again"].out
    assert len(titles) == 3


def test_a_wrong_key_is_told_by_both_ids(life: Life):
    ids = {name: life.done[name].out.split()[1] for name in ("key", "other key")}
    said = life.done["wrong key"].err

    assert f"signed by {ids['key']}, not by the key {ids['other key']}" in said


def test_no_private_key_is_printed_or_leaves_the_machine(life: Life):
    secret = (life.folder / "maker").read_text().splitlines()[1]
    said = "".join(done.out + done.err for done in life.done.values())
    sent = b"".join(
        blob.content
        for commit in life.hub.repo("org/tiny").commits.values()
        for blob in commit.files.values()
    )

    assert secret not in said
    assert secret.encode() not in sent


def test_two_versions_that_differ_in_their_card_have_equal_rows(life: Life):
    found = life.json("diff")

    assert found["equal"]
    assert (found["a"]["version"], found["b"]["version"]) == ("1.0.0", "1.0.1")
    assert found["recipe"] == []
    assert found["images"]["changed"] == []
    assert found["labels"]["kl_1"] == 0
    assert {one["difference"] for one in found["metrics"]} == {0.0}
    assert found["b"]["bytes"]["all files"] > found["a"]["bytes"]["all files"]
    assert "all 20 images are the same" in life.done["diff in words"].out
    assert not (life.folder / "p.png").exists()


def test_a_published_set_is_made_again_bit_for_bit(life: Life):
    found = life.json("reproduce")

    assert found["within"]
    assert found["identical"]
    assert {one["what"] for one in found["digests"]} >= {"artifact", "images", "soft labels"}
    assert found["images"] == {"same": 20, "all": 20}
    assert len(found["runs"]) == 8
    assert found["not_run_again"] == []
