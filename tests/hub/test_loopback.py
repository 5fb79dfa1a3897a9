"""The Hub of the tests refuses what the real one refuses."""

import base64
import hashlib
import json
import urllib.error
import urllib.request
from typing import NamedTuple

import pytest

from tests.hub.loopback import TOKEN, Blob, Fault, Hub, Repo

SHARD = b"PAR1 some rows PAR1"
DIGEST = hashlib.sha256(SHARD).hexdigest()
API = "/api/datasets/org/set"


class Answer(NamedTuple):
    status: int
    body: dict[str, object]
    code: str | None


@pytest.fixture
def repo(hub: Hub) -> Repo:
    found = hub.repos["org/set"] = Repo("org/set", private=True)
    found.add("initial commit", {"old.txt": Blob(b"old", apart=False)})
    return found


def ask(
    hub: Hub, method: str, path: str, content: bytes | object = None, token: str | None = TOKEN
) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(hub.url + path, body, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return Answer(answer.status, json.loads(answer.read() or b"{}"), None)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read()), error.headers["X-Error-Code"])


def announce(hub: Hub, *paths: str) -> None:
    sample = base64.b64encode(b"PAR1").decode()
    files = [{"path": path, "sample": sample, "size": 9} for path in paths]
    assert ask(hub, "POST", f"{API}/preupload/main", {"files": files}).status == 200


def commit(hub: Hub, *lines: dict[str, object], parent: str | None = None) -> Answer:
    header = {"key": "header", "value": {"summary": "x", "parentCommit": parent}}
    text = "\n".join(json.dumps(line) for line in (header, *lines))
    return ask(hub, "POST", f"{API}/commit/main", text.encode())


def add(path: str, content: bytes = b"new") -> dict[str, object]:
    encoded = base64.b64encode(content).decode()
    return {"key": "file", "value": {"path": path, "content": encoded, "encoding": "base64"}}


def shard(path: str) -> dict[str, object]:
    value = {"path": path, "algo": "sha256", "oid": DIGEST, "size": len(SHARD)}
    return {"key": "lfsFile", "value": value}


def test_a_file_that_was_not_announced_is_refused(hub: Hub, repo: Repo):
    assert commit(hub, add("a.txt")).status == 400
    announce(hub, "a.txt")
    assert commit(hub, add("a.txt")).status == 200
    assert repo.head.files["a.txt"].content == b"new"


def test_a_parquet_file_must_be_stored_apart(hub: Hub, repo: Repo):
    announce(hub, "a.parquet")

    assert commit(hub, add("a.parquet")).status == 400


def test_bytes_with_another_hash_are_refused(hub: Hub, repo: Repo):
    assert ask(hub, "PUT", f"/lfs/org/set/{DIGEST}", b"other").status == 400
    assert repo.objects == {}


def test_a_large_file_whose_bytes_never_came_is_refused(hub: Hub, repo: Repo):
    announce(hub, "a.parquet")

    assert commit(hub, shard("a.parquet")).status == 400
    assert ask(hub, "PUT", f"/lfs/org/set/{DIGEST}", SHARD).status == 200
    assert commit(hub, shard("a.parquet")).status == 200


def test_a_commit_on_an_older_head_is_refused(hub: Hub, repo: Repo):
    first = repo.head.oid
    announce(hub, "a.txt", "b.txt")
    assert commit(hub, add("a.txt"), parent=first).status == 200

    assert commit(hub, add("b.txt"), parent=first).status == 412


def test_a_refused_commit_changes_nothing(hub: Hub, repo: Repo):
    announce(hub, "a.txt")
    missing = {"key": "deletedFile", "value": {"path": "never.txt"}}

    assert commit(hub, add("a.txt"), missing).status == 404
    assert set(repo.head.files) == {"old.txt"}


def test_a_tag_is_made_once(hub: Hub, repo: Repo):
    path = f"{API}/tag/{repo.head.oid}"

    assert ask(hub, "POST", path, {"tag": "v1.0.0"}).status == 200
    assert ask(hub, "POST", path, {"tag": "v1.0.0"}).status == 409


def test_a_repository_is_made_once_and_says_where_it_is(hub: Hub, repo: Repo):
    asked = {"name": "set", "organization": "org", "type": "dataset"}

    again = ask(hub, "POST", "/api/repos/create", asked)

    assert (again.status, again.body["url"]) == (409, f"{hub.url}/datasets/org/set")


@pytest.mark.parametrize(("token", "status"), [(None, 401), (TOKEN, 404)])
def test_what_is_absent_looks_private_to_strangers(hub: Hub, token: str | None, status: int):
    answer = ask(hub, "GET", "/api/datasets/org/none", token=token)

    assert (answer.status, answer.code) == (status, "RepoNotFound")


def test_strangers_see_and_write_nothing_private(hub: Hub, repo: Repo):
    assert ask(hub, "GET", API, token=None).status == 401
    assert ask(hub, "POST", f"{API}/tag/main", {"tag": "v1"}, TOKEN[:-1]).status == 401


def test_an_unknown_revision_is_named_as_such(hub: Hub, repo: Repo):
    assert ask(hub, "GET", f"{API}/tree/v7").code == "RevisionNotFound"


def test_a_lost_answer_is_carried_out_and_a_cut_one_is_not(hub: Hub, repo: Repo):
    for kind, tag in (("cut", "v1.0.0"), ("lost", "v2.0.0")):
        hub.arm(Fault(kind, 1))
        with pytest.raises(OSError, match=r"closed|reset|Remote end"):
            ask(hub, "POST", f"{API}/tag/main", {"tag": tag})

    assert list(repo.tags) == ["v2.0.0"]
