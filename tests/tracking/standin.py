"""A stand-in for W&B's server on the loopback interface."""

import base64
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers what wandb 0.31 asks for, and keeps what it is told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs = {}
        self.history = {}
        self.ends = {}
        self.artifacts = []
        self.uploads = {}
        self.stopped = threading.Event()
        self.broken = ""
        self.refused = ""
        self.slow = ""
        self.is_stuck = False
        self.asked = []
        self.projects = {"elsewhere"}
        self.views = {}

    def handle_error(self, *_):
        pass  # the client hangs up when it is done

    def server_close(self):
        self.stopped.set()
        super().server_close()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        content = json.loads(body)
        if not self.path.endswith("/graphql"):
            return self.reply(self.stream(content))
        match = re.search(r"(?:query|mutation)\s+(\w+)", content["query"])
        name = match[1] if match else "typename"
        self.server.asked.append(name)
        if self.server.broken == name:
            return self.reply({"errors": [{"message": "broken"}]}, code=500)
        if self.server.refused == name:
            return self.reply({"errors": [{"message": "permission denied"}]}, code=403)
        if self.server.slow == name:
            self.server.stopped.wait(60)
        answer = getattr(self, name, lambda **_: {})(**(content.get("variables") or {}))
        return self.reply({"data": answer})

    def do_PUT(self):
        size = int(self.headers.get("content-length") or 0)
        self.server.uploads[self.path] = self.rfile.read(size)
        self.reply({})

    def reply(self, content, code=200):
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

    def stream(self, content):
        if self.server.is_stuck:
            self.server.stopped.wait(60)
        run = self.path.split("/")[-2]
        said = {it: content[it] for it in ("preempting", "exitcode") if content.get(it) is not None}
        if said:
            self.server.ends.setdefault(run, []).append(said)
        part = content.get("files", {}).get("wandb-history.jsonl")
        if part:
            lines = self.server.history.setdefault(run, {})
            for index, line in enumerate(part["content"]):
                lines[part["offset"] + index] = json.loads(line)
        return {"exitcode": None, "limits": {}}

    def upload(self, name):
        return {"uploadUrl": f"{self.server.address}/upload/{name}", "uploadHeaders": []}

    # One method a GraphQL operation.

    def Viewer(self, **_):
        user = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}"}
        return {"viewer": user | {"teams": {"edges": []}}}

    def RunResumeStatus(self, name, **_):
        run = self.server.runs.get(name)
        if run is None:
            return {"model": None}
        lines = [json.dumps(it) for it in self.server.history.get(name, {}).values()]
        bucket = {"id": "r", "name": name, "displayName": "", "config": "{}", "tags": []}
        counts = {"logLineCount": 0, "historyLineCount": len(lines), "eventsLineCount": 0}
        tails = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "notes": ""}
        summary = self.server.uploads.get("/upload/wandb-summary.json", b"{}").decode()
        bucket |= counts | tails | {"summaryMetrics": summary, "wandbConfig": '{"t": 1}'}
        return {"model": {"id": "p", "name": "p", "entity": {"id": "e"}, "bucket": bucket}}

    def UpsertBucket(self, name, **variables):
        given = {key: value for key, value in variables.items() if value is not None}
        self.server.runs[name] = self.server.runs.get(name, {}) | given
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "r", "name": name, "displayName": "", "config": "{}", "project": project}
        lines = len(self.server.history.get(name, {}))
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": lines}, "inserted": True}}

    def ArtifactType(self, **_):
        return {"project": {"artifact": None}}

    def CreateArtifact(self, input, **_):
        self.server.artifacts.append(input["artifactCollectionName"])
        artifact = {"id": f"a{len(self.server.artifacts)}", "state": "PENDING"}
        artifact |= {"artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def CreateArtifactManifest(self, **_):
        manifest = {"id": "m", "file": {"id": "f", **self.upload("manifest")}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def UpdateArtifactManifest(self, **_):
        manifest = {"id": "m", "file": {"id": "f", **self.upload("manifest")}}
        return {"updateArtifactManifest": {"artifactManifest": manifest}}

    def CreateArtifactFiles(self, input, **_):
        nodes = [
            self.upload(it["name"])
            | {"storagePath": it["name"], "artifact": {"id": it["artifactID"]}}
            for it in input["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": it} for it in nodes]}}}

    def CommitArtifact(self, **_):
        return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}

    def CreateRunFiles(self, files, **_):
        listed = [{"name": name, **self.upload(name)} for name in files]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": listed}}

    # Reports and workspace views.

    def GetDefaultEntity(self, **_):
        return {"viewer": {"id": "u", "entity": "me"}}

    def GetProjects(self, **_):
        nodes = [project(name) for name in sorted(self.server.projects)]
        info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": info, "edges": [{"node": it} for it in nodes]}}

    def CreateProject(self, input):
        self.server.projects.add(input["name"])
        made = project(input["name"]) | {"description": None, "access": None, "views": None}
        return {"result": {"project": made, "model": made, "inserted": True}}

    def ProjectInternalId(self, projectName, **_):
        known = projectName in self.server.projects
        return {"project": {"id": "p", "internalId": "internal"} if known else None}

    def upsertView(self, id=None, **given):
        id = id or base64.b64encode(f"View:{len(self.server.views)}".encode()).decode()
        inserted = id not in self.server.views
        self.server.views[id] = self.server.views.get(id, {}) | given
        return {"upsertView": {"view": self.view(id), "inserted": inserted}}

    UpsertView2 = upsertView

    def SpecificReport(self, reportId):
        return {"view": self.view(reportId) if reportId in self.server.views else None}

    def View(self, viewName, **_):
        found = [key for key, it in self.server.views.items() if it["name"] == viewName]
        edges = [{"node": self.view(key)} for key in found]
        return {"project": {"allViews": {"edges": edges}}}

    def view(self, id):
        held = self.server.views[id]
        named = {"id": "p", "name": held["projectName"], "entityName": held["entityName"]}
        wanted = ("type", "name", "displayName", "description", "spec")
        times = dict.fromkeys(("createdAt", "updatedAt"), "2026-11-22T06:00:00")
        return {"id": id, "project": named, **times, **{key: held[key] for key in wanted}}


def project(name):
    return {
        "__typename": "Project",
        "id": "p",
        "name": name,
        "entityName": "me",
        "createdAt": "2026-11-22T06:00:00",
        "isBenchmark": False,
        "user": None,
    }
