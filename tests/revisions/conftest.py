"""A hub on this machine, which the real client talks to."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from olmo_stages.revisions import hub


class Hub:
    """What the hub holds, and what it was asked."""

    def __init__(self):
        self.repositories: dict[str, dict[str, str]] = {}  # branches with their commits
        self.files: dict[str, Path] = {}  # folder of a commit
        self.asked: list[str] = []
        self.status: int | None = None
        self.patience = 0.0

    def add(self, source: str, **branches: str) -> None:
        self.repositories[source] = {"main": "a" * 40} | branches


class Handler(BaseHTTPRequestHandler):
    told: Hub

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.told.asked.append(path)
        time.sleep(self.told.patience)
        parts = path.split("/")
        if self.told.status is not None:
            self.send(self.told.status, b"", {})
        elif parts[1:3] != ["api", "models"]:
            self.file(parts[4], parts[-1])
        elif (source := "/".join(parts[3:5])) not in self.told.repositories:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        else:
            self.api(source, parts[5], "/".join(parts[6:]))

    do_HEAD = do_GET

    def api(self, source, what, revision):
        branches = self.told.repositories[source]
        if what == "refs":
            refs = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in branches.items()
            ]
            self.answer({"branches": refs, "converts": [], "tags": []})
        elif what == "tree":
            self.answer([
                {"type": "file", "path": it.name, "size": it.stat().st_size, "oid": "0" * 40}
                for it in sorted(self.told.files[revision].iterdir())
            ])
        elif revision in branches:
            self.answer({"id": source, "sha": branches[revision]})
        elif revision in branches.values():
            self.answer({"id": source, "sha": revision})
        else:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def file(self, commit, name):
        path = self.told.files[commit] / name
        if not path.is_file():
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        body = path.read_bytes()
        self.send(200, body, {"X-Repo-Commit": commit, "ETag": f'"{commit[:8]}{name}"'})

    def answer(self, content):
        self.send(200, json.dumps(content).encode(), {})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        del arguments


@pytest.fixture(autouse=True)
def forgetful(monkeypatch, tmp_path):
    """No commit is remembered from another test, in memory or in the cache."""
    monkeypatch.setattr(hub, "_pinned", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def online(monkeypatch):
    """A hub that answers."""
    told = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"told": told}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield told
    server.shutdown()
    server.server_close()
