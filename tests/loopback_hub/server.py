"""The routes of the hub that huggingface_hub 2 uses for models: create, upload, commit, look up, download.

Nothing is proven here about the real hub's quotas, scopes, gated repositories or its xet storage.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
SILENCE: tuple[int, dict[str, str]] = (0, {})
LARGE = (".safetensors", ".png")  # go through the LFS routes


@dataclass
class Repository:
    """A model repository.

    Attributes:
        private: whether reading needs the token.
        commits: by id, the files of each, path to bytes.
        refs: branches, tags and pull requests to commit ids.
        messages: of the commits, in order.
    """

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, bytes], message: str) -> str:
        """Add a commit to a ref and return its id."""
        content = json.dumps([ref, message, *((p, hashlib.sha256(b).hexdigest()) for p, b in sorted(files.items()))])
        name = hashlib.sha1(f"{len(self.commits)} {content}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.refs[ref] = name
        self.messages.append(message)
        return name

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the files at a branch, tag or commit; KeyError if there is none."""
        return self.commits[self.resolve(revision)]

    def resolve(self, revision: str) -> str:
        """Return a commit id; KeyError if there is none."""
        return revision if revision in self.commits else self.refs[revision]


class LoopbackHub:
    """The hub.

    Attributes:
        repositories: by `OWNER/NAME`.
        uploads: LFS objects by sha256.
        requests: what came, "METHOD path", in order.
        tamper: gets path and content of each download and returns what is sent instead, for damaged transfers.
        refuse: gets method and path of each request; True answers it with an error of the server.
        instead: gets method and path of each request; returns status and headers of another answer, `SILENCE` for none
            at all, or None to serve it.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tamper: Callable[[str, bytes], bytes] = lambda path, content: content
        self.refuse: Callable[[str, str], bool] = lambda method, path: False
        self.instead: Callable[[str, str], tuple[int, dict[str, str]] | None] = lambda method, path: None
        self.stopped = threading.Event()
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["LoopbackHub"]:
        """Serve on a free port of 127.0.0.1."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def environment(self, cache: str, token: str | None = TOKEN) -> dict[str, str]:
        """Return the environment of a process that talks to this hub."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": cache, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return own if token is None else {**own, "HF_TOKEN": token}


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: what came is in `hub.requests`."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_HEAD(self) -> None:
        self._handle("HEAD")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{method} {path}")
        if self.hub.refuse(method, path):
            self._json({"error": "this server is tired"}, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        other = self.hub.instead(method, path)
        if other == SILENCE:
            self.hub.stopped.wait(60)
            self.close_connection = True
            return
        if other is not None:
            self._json({"error": "not now"}, other[0], **other[1])
            return
        for verbs, pattern, needs_token, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None and method in verbs:
                if needs_token and not self._authorised():
                    self._json({"error": "Invalid credentials in Authorization header"}, HTTPStatus.UNAUTHORIZED)
                    return
                handler(self, *match.groups())
                return
        self._json({"error": f"no such route: {method} {path}"}, HTTPStatus.NOT_FOUND)

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _json(self, content: Any, status: int = HTTPStatus.OK, **headers: str) -> None:
        self._send(json.dumps(content).encode(), status, **{"Content-Type": "application/json", **headers})

    def _send(self, content: bytes, status: int = HTTPStatus.OK, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refused(self, code: str, status: int = HTTPStatus.NOT_FOUND) -> None:
        self._json({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def _repository(self, name: str) -> Repository | None:
        """Return the repository, or answer as the hub does where there is none to see."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._authorised()):
            self._refused("RepoNotFound", HTTPStatus.NOT_FOUND if self._authorised() else HTTPStatus.UNAUTHORIZED)
            return None
        return found

    def _at(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self._repository(name)
        if repository is None:
            return None
        try:
            return repository, repository.resolve(revision)
        except KeyError:
            self._refused("RevisionNotFound")
            return None

    def whoami(self) -> None:
        self._json({"type": "user", "name": "me", "fullname": "me", "orgs": [{"name": "ORG"}], "auth": {}})

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            self._json({"error": "You already created this model repo", **url}, HTTPStatus.CONFLICT)
            return
        private = wanted.get("private") is True or wanted.get("visibility") == "private"
        repository = self.hub.repositories.setdefault(name, Repository(private=private))
        repository.commit("main", {}, "initial commit")
        self._json(url)

    def delete(self) -> None:
        wanted = json.loads(self.body)
        self.hub.repositories.pop(f"{wanted.get('organization') or 'me'}/{wanted['name']}", None)
        self._json({})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if self._at(name, revision) is not None:
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                for file in json.loads(self.body)["files"]
            ]
            self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})

    def lfs_batch(self, name: str) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            known = each["oid"] in self.hub.uploads
            upload = {"upload": {"href": f"{self.hub.url}/_lfs/{each['oid']}", "header": {}}}
            objects.append({**each, **({} if known else {"actions": upload})})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._json({"error": "sha256 does not match"}, HTTPStatus.BAD_REQUEST)
            return
        self.hub.uploads[oid] = self.body
        self._json({})

    def commit(self, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if found is None:
            return
        repository, parent = found
        files, message = dict(repository.commits[parent]), ""
        for line in self.body.decode().splitlines():
            record = json.loads(line)
            key, value = record["key"], record["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    self._json({"error": f"LFS object {value['oid']} was not uploaded"}, HTTPStatus.BAD_REQUEST)
                    return
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
        wants_pr = self.query.get("create_pr") == ["1"]
        ref = f"refs/pr/{1 + sum(r.startswith('refs/pr/') for r in repository.refs)}" if wants_pr else revision
        oid = repository.commit(ref, files, message)
        url = f"{self.hub.url}/{name}/commit/{oid}"
        answer = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
        if wants_pr:
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{ref.rpartition('/')[2]}"
        self._json(answer)

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name)
        if repository is not None:
            if branch in repository.refs:
                self._json({"error": "Reference already exists"}, HTTPStatus.CONFLICT)
                return
            repository.refs[branch] = repository.resolve("main")
            self._json({})

    def info(self, name: str, revision: str | None) -> None:
        found = self._at(name, revision or "main")
        if found is not None:
            repository, sha = found
            siblings = [{"rfilename": path} for path in sorted(repository.commits[sha])]
            self._json(
                {"_id": sha, "id": name, "modelId": name, "sha": sha, "private": repository.private, "tags": []}
                | {"siblings": siblings, "downloads": 0, "likes": 0, "gated": False, "disabled": False}
            )

    def refs(self, name: str) -> None:
        repository = self._repository(name)
        if repository is not None:
            branches = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha}
                for ref, sha in repository.refs.items()
                if not ref.startswith("refs/")
            ]
            self._json({"branches": branches, "tags": [], "converts": [], "pullRequests": []})

    def tree(self, name: str, revision: str, _: str | None = None) -> None:
        found = self._at(name, revision)
        if found is not None:
            self._json([_entry(path, content) for path, content in sorted(found[0].commits[found[1]].items())])

    def paths_info(self, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if found is not None:
            text = self.body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            files = found[0].commits[found[1]]
            self._json([_entry(path, files[path]) for path in wanted if path in files])

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self._at(name, revision)
        if found is None:
            return
        files = found[0].commits[found[1]]
        if path not in files:
            self._refused("EntryNotFound")
            return
        etag = _entry(path, files[path])
        digest = etag["lfs"]["oid"] if "lfs" in etag else etag["oid"]
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": found[1], "X-Linked-Size": str(len(files[path]))}
        content = files[path] if self.command == "HEAD" else self.hub.tamper(path, files[path])
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is not None:
            start, stop = int(span[1]), int(span[2]) + 1 if span[2] else len(content)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self._send(content[start:stop], HTTPStatus.PARTIAL_CONTENT, **headers)
            return
        self._send(content, HTTPStatus.OK, **headers, Accept_Ranges="bytes")


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Return what the hub tells of a file."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


NAME = r"([^/]+/[^/]+)"
ROUTES: tuple[tuple[tuple[str, ...], str, bool, Callable[..., None]], ...] = (
    (("GET",), r"/api/whoami-v2", True, _Handler.whoami),
    (("POST",), r"/api/repos/create", True, _Handler.create),
    (("DELETE", "POST"), r"/api/repos/delete", True, _Handler.delete),
    (("POST",), r"/api/validate-yaml", False, _Handler.validate_yaml),
    (("POST",), rf"/api/models/{NAME}/preupload/(.+)", True, _Handler.preupload),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", True, _Handler.lfs_batch),
    (("PUT",), r"/_lfs/([0-9a-f]{64})", False, _Handler.lfs_put),
    (("POST",), rf"/api/models/{NAME}/commit/(.+)", True, _Handler.commit),
    (("POST",), rf"/api/models/{NAME}/branch/(.+)", True, _Handler.branch),
    (("GET",), rf"/api/models/{NAME}/refs", False, _Handler.refs),
    (("GET",), rf"/api/models/{NAME}/tree/([^/]+)(/.*)?", False, _Handler.tree),
    (("POST",), rf"/api/models/{NAME}/paths-info/(.+)", False, _Handler.paths_info),
    (("GET",), rf"/api/models/{NAME}(?:/revision/(.+))?", False, _Handler.info),
    (("GET", "HEAD"), rf"/{NAME}/resolve/(refs/pr/\d+|[^/]+)/(.+)", False, _Handler.resolve),
)
