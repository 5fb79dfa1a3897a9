"""A Hub on 127.0.0.1 for the tests: what the real one answers, refuses and forgets.

Repositories are chains of commits in memory. Every request is recorded; a fault may be armed for
the n-th one from now. Standard library only.
"""

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "LoopbackSecret0123456789"
BIG = 10_000_000
"""Files from this size on are stored apart, as all Parquet files are."""

FaultKind = Literal["error", "cut", "lost", "slow"]
"""`cut`: the connection ends before the request is looked at; `lost`: after it was carried out."""


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


class Blob(NamedTuple):
    """A file of a commit."""

    content: bytes
    apart: bool
    """Whether git holds a pointer only (LFS)."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        held = self.content
        if self.apart:
            held = (
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{self.sha256}\nsize {len(self.content)}\n"
            ).encode()
        return _sha1(b"blob %d\0" % len(held) + held)


class Commit(NamedTuple):
    oid: str
    parent: str | None
    title: str
    date: str
    files: Mapping[str, Blob]


@dataclass
class Repo:
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    """Paths that a preupload named since the last commit."""

    def add(self, title: str, files: Mapping[str, Blob]) -> Commit:
        parent = self.branches.get("main")
        number = len(self.commits)
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_767_225_600 + 60 * number))
        tree = sorted((path, blob.oid) for path, blob in files.items())
        oid = _sha1(repr((tree, parent, title, date)).encode())
        commit = Commit(oid, parent, title, date, dict(files))
        self.commits[oid] = commit
        self.branches["main"] = oid
        return commit

    def resolve(self, revision: str) -> Commit | None:
        plain = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(plain) or self.tags.get(plain) or plain
        return self.commits.get(oid)

    @property
    def head(self) -> Commit:
        return self.commits[self.branches["main"]]

    def history(self, commit: Commit) -> Iterator[Commit]:
        found: Commit | None = commit
        while found is not None:
            yield found
            found = self.commits.get(found.parent or "")


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = "", **more: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.more = more


@dataclass
class Fault:
    kind: FaultKind
    at: int
    """Requests from arming; the first is 1."""
    lasting: bool = False
    """Whether every later request fails as well."""
    status: int = 503
    seconds: float = 0.2
    hits: int = 0


class Hub:
    """The state of a server; `start()` gives its address."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        """`POST /api/...` in the order of arrival; objects are written as `<sha256>`."""
        self.headers: list[Mapping[str, str]] = []
        self.stale: dict[str, str] = {}
        """Commit that information on a repository gives instead of its head."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens when a request that begins so arrives: `GET /mark/2`, `POST /api/...`."""
        self.says = ""
        """Put into every error, as a careless server might."""
        self.lock = threading.RLock()
        self._fault: Fault | None = None
        self._count = 0
        self._server: ThreadingHTTPServer | None = None
        self.url = ""

    def start(self) -> str:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self.url

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def repo(self, name: str) -> Repo:
        return self.repos[name]

    def arm(self, fault: Fault | None) -> None:
        with self.lock:
            self._fault, self._count = fault, 0

    def fault_now(self) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            self._count += 1
            fault = self._fault
            if fault is None or self._count < fault.at:
                return None
            if self._count > fault.at and not fault.lasting:
                return None
            fault.hits += 1
            return fault

    @contextmanager
    def recorded(self) -> Iterator[list[str]]:
        """The requests that arrive inside the block."""
        found: list[str] = []
        before = len(self.requests)
        yield found
        found += self.requests[before:]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections are cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def _any(self) -> None:
        body = self._body()
        line = self._record()
        for begin, happens in list(self.hub.before.items()):
            if line.startswith(begin):
                happens()
        if self.path.startswith("/mark/"):  # test processes send it between commands
            return self._send(200, b"", {})
        fault = self.hub.fault_now()
        if fault is not None and fault.kind == "cut":
            return self._cut()
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "error":
            self._send(fault.status, b"<html>busy</html>", {"Content-Type": "text/html"})
            return None
        try:
            with self.hub.lock:
                status, content, headers = self._answer(body)
        except RefusedError as refusal:
            said = f"{refusal.message} {self.hub.says}".strip()
            status = refusal.status
            content = json.dumps({"error": said, **refusal.more}).encode()
            headers = {"X-Error-Message": said, "Content-Type": "application/json"}
            headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            headers |= {"X-Repo-Commit": refusal.more["commit"]} if "commit" in refusal.more else {}
        if fault is not None and fault.kind == "lost":
            return self._cut()
        self._send(status, content, headers)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _record(self) -> str:
        parts = urlsplit(self.path)
        path = parts.path
        if path.startswith("/lfs/") and self.command == "PUT":
            path = "/".join([*path.split("/")[:-1], "<sha256>"])
        query = f"?{parts.query}" if parts.query else ""
        with self.hub.lock:
            line = f"{self.command} {path}{query}"
            self.hub.requests.append(line)
            self.hub.headers.append(dict(self.headers.items()))
        return line

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        size = headers.get("Content-Length", str(len(content)))
        for name, value in {**headers, "Content-Length": size}.items():
            self.send_header(name, value.replace("\n", " "))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def known(self) -> bool:
        """Whether the request carries the token."""
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _answer(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts = urlsplit(self.path)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        found = self._route(path, query, body)
        if isinstance(found, tuple):
            return found
        return 200, json.dumps(found).encode(), {"Content-Type": "application/json"}

    def _route(self, path: list[str], query: Mapping[str, str], body: bytes) -> object:
        match [self.command, *path]:
            case ["POST", "api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["POST", "api", "validate-yaml"]:
                return self._validate_yaml(json.loads(body))
            case ["GET", "api", "whoami-v2"]:
                self._needs_token()
                return {"type": "user", "name": "tester", "orgs": [{"name": "org"}]}
            case ["PUT", "lfs", org, name, oid]:
                return self._store(self.hub.repos[f"{org}/{name}"], oid, body)  # a signed address
            case ["POST", "lfs", org, name, "verify"]:
                asked = json.loads(body)
                held = self._repo(org, name).objects.get(asked["oid"])
                if held is None or len(held) != asked["size"]:
                    raise RefusedError(404, "object is not stored")
                return {}
            case ["POST", "datasets", org, name, "info", "lfs", "objects", "batch"]:
                return self._batch(self._repo(org, name.removesuffix(".git")), json.loads(body))
            case ["GET" | "HEAD", "datasets", org, name, "resolve", revision, *rest]:
                return self._file(self._repo(org, name), revision, "/".join(rest))
            case ["GET", "api", "datasets"]:
                author = f"{query.get('author')}/"
                kept = [repo for name, repo in self.hub.repos.items() if name.startswith(author)]
                return [self._info(repo, self._stale_head(repo)) for repo in kept]
            case [method, "api", "datasets", org, name, *rest]:
                return self._of_repo(method, self._repo(org, name), rest, query, body)
        raise RefusedError(404, f"no such page: {self.command} {self.path}")

    def _of_repo(
        self, method: str, repo: Repo, rest: list[str], query: Mapping[str, str], body: bytes
    ) -> object:
        if method != "GET":
            self._needs_token()
        match [method, *rest]:
            case ["GET"]:
                return self._info(repo, self._stale_head(repo))
            case ["GET", "revision", revision]:
                return self._info(repo, self._commit_at(repo, revision))
            case ["GET", "refs"]:
                return _refs(repo)
            case ["GET", "tree", revision, *folder]:
                deep = query.get("recursive", "false").lower() == "true"
                return _tree(self._commit_at(repo, revision), "/".join(folder), deep)
            case ["GET", "commits", revision]:
                return [
                    {
                        "id": commit.oid,
                        "title": commit.title,
                        "message": "",
                        "authors": [{"user": "tester"}],
                        "date": commit.date,
                    }
                    for commit in repo.history(self._commit_at(repo, revision))
                ]
            case ["POST", "paths-info", revision]:
                entries = _tree(self._commit_at(repo, revision), "", deep=True)
                wanted = parse_qs(body.decode())["paths"]
                return [entry for entry in entries if entry["path"] in wanted]
            case ["POST", "preupload", _]:
                return _preupload(repo, json.loads(body))
            case ["POST", "commit", revision]:
                return self._commit(repo, revision, body)
            case ["POST", "tag", revision]:
                return self._tag(repo, self._commit_at(repo, revision), json.loads(body)["tag"])
        raise RefusedError(404, f"no such page: {self.command} {self.path}")

    def _needs_token(self) -> None:
        if not self.known:
            raise RefusedError(401, "Invalid username or password.")

    def _repo(self, org: str, name: str) -> Repo:
        repo = self.hub.repos.get(f"{org}/{name}")
        if repo is None or (repo.private and not self.known):
            raise RefusedError(404 if self.known else 401, "Repository not found", "RepoNotFound")
        return repo

    def _stale_head(self, repo: Repo) -> Commit:
        return repo.commits[self.hub.stale.get(repo.name, repo.head.oid)]

    def _commit_at(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _create(self, asked: dict[str, str]) -> object:
        self._needs_token()
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/datasets/{name}"
        if name in self.hub.repos:
            raise RefusedError(409, "You already created this dataset repo", url=url)
        repo = self.hub.repos[name] = Repo(name, asked.get("visibility") == "private")
        repo.add("initial commit", {".gitattributes": Blob(b"*.parquet filter=lfs\n", False)})
        return {"url": url}

    def _validate_yaml(self, asked: dict[str, str]) -> object:
        if asked["content"].startswith("---\n"):
            return {"errors": [], "warnings": []}
        said = json.dumps({"errors": [{"message": "no front matter"}], "warnings": []}).encode()
        return 400, said, {"Content-Type": "application/json"}

    def _batch(self, repo: Repo, asked: dict[str, list[dict[str, object]]]) -> object:
        self._needs_token()
        base = f"{self.hub.url}/lfs/{repo.name}"
        actions = {"verify": {"href": f"{base}/verify", "header": {}}}
        objects = [
            {"oid": part["oid"], "size": part["size"]}
            if part["oid"] in repo.objects
            else {
                "oid": part["oid"],
                "size": part["size"],
                "actions": {
                    "upload": {"href": f"{base}/{part['oid']}", "header": {}},
                    **actions,
                },
            }
            for part in asked["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _store(self, repo: Repo, oid: str, body: bytes) -> object:
        if hashlib.sha256(body).hexdigest() != oid:
            raise RefusedError(400, "the bytes have another sha256")
        repo.objects[oid] = body
        return {}

    def _commit(self, repo: Repo, revision: str, body: bytes) -> object:
        lines = [json.loads(line) for line in body.splitlines() if line]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent = header.get("parentCommit")
        if revision != "main":
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if parent is not None and parent != repo.head.oid:
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for line in lines:
            _apply(repo, files, line["key"], line["value"])
        repo.announced.clear()
        commit = repo.add(header["summary"], files)
        url = f"{self.hub.url}/datasets/{repo.name}/commit/{commit.oid}"
        return {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""}

    def _tag(self, repo: Repo, commit: Commit, tag: str) -> object:
        if tag in repo.tags:
            raise RefusedError(409, f"Tag reference exists already: {tag}")
        repo.tags[tag] = commit.oid
        return {}

    def _info(self, repo: Repo, commit: Commit) -> object:
        return {
            "_id": "0",
            "id": repo.name,
            "author": repo.name.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": None,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def _file(self, repo: Repo, revision: str, path: str) -> object:
        commit = self._commit_at(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise RefusedError(404, f"Entry not found: {path}", "EntryNotFound", commit=commit.oid)
        content, size = blob.content, len(blob.content)
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{blob.sha256 if blob.apart else blob.oid}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if blob.apart:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(size)}
        wanted = self.headers.get("Range", "")
        if self.command == "GET" and wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if start >= size:
                raise RefusedError(416, "Range not satisfiable")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            return 206, content[start:stop], headers
        return 200, content, headers | {"Content-Length": str(size)}


def _preupload(repo: Repo, asked: dict[str, list[dict[str, object]]]) -> object:
    files = asked["files"]
    if len(files) > 256:
        raise RefusedError(400, "at most 256 files")
    answers = []
    for file in files:
        path = str(file["path"])
        base64.b64decode(str(file["sample"]))
        repo.announced.add(path)
        apart = path.endswith(".parquet") or int(str(file["size"])) >= BIG
        answer = {"path": path, "uploadMode": "lfs" if apart else "regular", "shouldIgnore": False}
        held = repo.head.files.get(path)
        if held is not None:
            answer["oid"] = held.sha256 if held.apart else held.oid
        answers.append(answer)
    return {"files": answers}


def _apply(repo: Repo, files: dict[str, Blob], key: str, value: dict[str, str]) -> None:
    """One line of a commit."""
    path = value.get("path", "")
    if key in ("file", "lfsFile") and path not in repo.announced:
        raise RefusedError(400, f"{path} was not announced by a preupload")
    if key == "file":
        content = base64.b64decode(value["content"])
        if len(content) >= BIG or path.endswith(".parquet"):
            raise RefusedError(400, f"{path} must be stored apart")
        files[path] = Blob(content, False)
    elif key == "lfsFile":
        held = repo.objects.get(value["oid"])
        if held is None or len(held) != value["size"]:
            raise RefusedError(400, f"the bytes of {path} were never sent")
        files[path] = Blob(held, True)
    elif key == "deletedFile":
        if path not in files:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        del files[path]
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(path)]:
            del files[name]


def _refs(repo: Repo) -> object:
    def listed(kind: str, refs: Mapping[str, str]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
            for name, oid in refs.items()
        ]

    return {
        "branches": listed("heads", repo.branches),
        "tags": listed("tags", repo.tags),
        "converts": [],
        "pullRequests": [],
    }


def _tree(commit: Commit, folder: str, deep: bool) -> list[dict[str, object]]:
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
    if folder and not inside:
        raise RefusedError(404, f"{folder} does not exist", "EntryNotFound", commit=commit.oid)
    entries: dict[str, dict[str, object]] = {}
    for path, blob in sorted(inside.items()):
        names = path.removeprefix(prefix).split("/")
        for depth in range(1, len(names)):
            if deep or depth == 1:
                name = prefix + "/".join(names[:depth])
                oid = _sha1(name.encode())
                entries[name] = {"type": "directory", "oid": oid, "size": 0, "path": name}
        if deep or len(names) == 1:
            entry: dict[str, object] = {"type": "file", "oid": blob.oid, "path": path}
            entry["size"] = len(blob.content)
            if blob.apart:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
            entries[path] = entry
    return list(entries.values())
