"""A Hugging Face hub on 127.0.0.1: what huggingface_hub, transformers and datasets ask for, and its ways of refusing.

Repositories are made when they are first asked for (`tests.hub.contents`). Large files are sent from another address
after a redirect, as the real hub does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from filelock import FileLock

Fill = Callable[[Path], None]
Branches = Mapping[str, Fill]
"""What makes the files of each branch of a repository."""

TOKEN = "hf_stand_in"
_LARGE = (".bin", ".safetensors", ".model", ".parquet")


def commit_of(kind: str, name: str, branch: str) -> str:
    """The commit that a branch of a repository is at to begin with."""
    return hashlib.sha1(f"{kind}/{name}@{branch}".encode()).hexdigest()


@dataclass
class Hub:
    """The hub's repositories, and what is wrong with them.

    Attributes:
        root: where their files are, shared by all test processes.
        contents: by kind ("models", "datasets") and id.
        gated: ids whose terms nobody accepted.
        cut: file names of which half is sent.
        requests: method, status and path of each request.
        pushed: files by repository, of those that were pushed with the token `TOKEN`.
        upload_mode: how files are to come; large ones ("lfs") are refused.
    """

    root: Path
    contents: Mapping[tuple[str, str], Branches]
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    upload_mode: str = "regular"
    refs: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None
    connections: set[socket.socket] = field(default_factory=set)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        hub = self

        class Handler(_Handler):
            def __init__(self, *args):
                self.hub = hub
                super().__init__(*args)

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused, as without a network."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        for connection in list(self.connections):  # which clients keep open
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def publish(self, kind: str, name: str, files: Mapping[str, str], branch: str = "main") -> str:
        """Move a branch to a new commit with these files, beside those that it or main had; returns the commit."""
        refs = self._refs(kind, name)
        before = self.folder(kind, name, branch if branch in refs else "main")[0] if refs else None
        commit = hashlib.sha1(json.dumps([kind, name, sorted(files.items())]).encode()).hexdigest()
        folder = self._place(kind, name, commit)
        if before is not None:
            shutil.copytree(before, folder, dirs_exist_ok=True)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        self._refs(kind, name)[branch] = commit
        return commit

    def folder(self, kind: str, name: str, revision: str) -> tuple[Path, str]:
        """Files and commit of a revision; raises KeyError with the hub's word for what is missing."""
        refs = self._refs(kind, name)
        if not refs:
            raise KeyError("RepoNotFound")
        commit = refs.get(revision, revision)
        folder = self._place(kind, name, commit)
        branches = self.contents.get((kind, name), {})
        fill = next((make for branch, make in branches.items() if commit_of(kind, name, branch) == commit), None)
        if fill is not None:
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    partial = folder.with_name(f"{commit}.partial")
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                    fill(partial)
                    partial.rename(folder)
        if not folder.is_dir():
            raise KeyError("RevisionNotFound")
        return folder, commit

    def _refs(self, kind: str, name: str) -> dict[str, str]:
        branches = self.contents.get((kind, name), {})
        return self.refs.setdefault((kind, name), {branch: commit_of(kind, name, branch) for branch in branches})

    def _place(self, kind: str, name: str, commit: str) -> Path:
        folder = self.root / kind / name / commit
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def setup(self):
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self):
        self.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            if path == "/api/repos/create" or re.fullmatch(r"/api/models/[^/]+/[^/]+/(preupload|commit)/main", path):
                self._push(path)
            elif (match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/main)?", path)) and match[
                1
            ] in self.hub.pushed:
                files = sorted(self.hub.pushed[match[1]])
                if match[2]:
                    self._send_json([{"type": "file", "oid": "0" * 40, "size": 1, "path": file} for file in files])
                else:
                    info = {"_id": "0" * 24, "id": match[1], "sha": "c" * 40, "private": True, "tags": []}
                    self._send_json(info | {"siblings": [{"rfilename": file} for file in files]})
            elif path == "/api/validate-yaml":
                self._send_json({"errors": [], "warnings": []})
            elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.*))?", path):
                self._api(match[1], match[2], match[3] or "revision/main")
            elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(
                    "datasets" if match[1] else "models", match[2], *map(urllib.parse.unquote, match.groups()[2:])
                )
            elif match := re.fullmatch(r"/large/(models|datasets)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
                self._send_file(self.hub.folder(match[1], match[2], match[3])[0] / urllib.parse.unquote(match[4]), {})
            else:
                self._refuse(404, "EntryNotFound")
        except KeyError as error:
            # to someone without a token a repository that is not there looks like a private one
            self._refuse(401 if error.args[0] == "RepoNotFound" else 404, error.args[0])

    do_HEAD = do_POST = do_GET

    def _push(self, path: str) -> None:
        """Make a repository, or commit files that come with the request."""
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "", "Invalid username or password.")
        elif path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}" if "organization" in asked else asked["name"]
            assert asked["visibility"] == "private"
            self.hub.pushed.setdefault(name, {})
            self._send_json({"url": f"{self.hub.url}/{name}", "id": "0" * 24, "name": name})
        elif "/preupload/" in path:
            files = [one["path"] for one in json.loads(self.body)["files"]]
            self._send_json(
                {"files": [{"path": file, "uploadMode": self.hub.upload_mode, "shouldIgnore": False} for file in files]}
            )
        else:
            _, *lines = (json.loads(line) for line in self.body.decode().splitlines())
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for one in lines:
                if one["key"] == "deletedFile":
                    del self.hub.pushed[name][one["value"]["path"]]
            self.hub.pushed[name] |= {
                one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"
            }
            oid = "c" * 40
            self._send_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _api(self, kind: str, name: str, rest: str) -> None:
        verb, _, rest = rest.partition("/")
        revision, _, inner = rest.partition("/")
        folder, commit = self.hub.folder(kind, name, urllib.parse.unquote(revision) or "main")
        inner = urllib.parse.unquote(inner)
        if verb == "revision":
            info = {"_id": commit[:24], "id": name, "sha": commit, "private": False, "disabled": False}
            info |= {"gated": "manual" if name in self.hub.gated else False, "downloads": 1, "likes": 1, "tags": []}
            self._send_json(info | {"siblings": [{"rfilename": file} for file in _files(folder)]})
        elif verb == "tree":
            recursive = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("recursive", [""])[0]
            self._send_json(list(_tree(folder, inner, recursive=recursive.lower() in ("true", "1"))))
        elif verb == "paths-info":
            try:
                asked = json.loads(self.body)["paths"]
            except ValueError:
                asked = urllib.parse.parse_qs(self.body.decode()).get("paths", [])
            self._send_json([_entry(folder, path) for path in asked if (folder / path).exists()])
        elif verb == "commits":
            self._send_json([])
        else:
            raise KeyError("EntryNotFound")

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        folder, commit = self.hub.folder(kind, name, revision)
        if name in self.hub.gated:
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated.")
            return
        file = folder / path
        if not file.is_file():
            self._refuse(404, "EntryNotFound", commit=commit)
            return
        etag = f'"{_sha(file)}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit}
        if path.endswith(_LARGE):
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.stat().st_size)}
            headers["Location"] = (
                f"http://localhost:{self.hub.port}/large/{kind}/{name}/{commit}/{urllib.parse.quote(path)}"
            )
            self._send(302, b"", headers)
        else:
            self._send_file(file, headers)

    def _send_file(self, file: Path, headers: dict[str, str]) -> None:
        content = file.read_bytes()
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        status, first, last = 200, 0, len(content) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            status, first = 206, int(match[1])
            last = min(int(match[2] or last), last)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        part = content[first : last + 1]
        sent = part[: len(part) // 2] if file.name in self.hub.cut else part
        self._send(status, sent, headers, announced=len(part))
        if len(sent) < len(part):
            self.close_connection = True

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str = "", commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message or code} | (
            {"X-Repo-Commit": commit} if commit else {}
        )
        self._send(status, json.dumps({"error": message or code}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], announced: int | None = None) -> None:
        self.hub.requests.append(f"{self.command} {status} {self.path}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if announced is None else announced))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: str) -> dict[str, object]:
    file = folder / path
    if file.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
    sha, size = _sha(file), file.stat().st_size
    large = {"lfs": {"oid": sha, "size": size, "pointerSize": 134}} if path.endswith(_LARGE) else {}
    return {"type": "file", "oid": sha[:40], "size": size, "path": path, **large}


def _tree(folder: Path, inner: str, *, recursive: bool):
    base = folder / inner
    if not base.is_dir():
        raise KeyError("EntryNotFound")
    for path in sorted(base.rglob("*") if recursive else base.iterdir()):
        yield _entry(folder, str(path.relative_to(folder)))


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
