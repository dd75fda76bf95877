"""A small hub on loopback: the few endpoints of the real one that huggingface-hub asks, over folders of the tests.

GET  /api/models/REPO[/revision/REV]        commit and files
GET  /api/models/REPO/tree/REV              the same files, as a tree
HEAD, GET  /REPO/resolve/REV/FILE           size, etag and commit in headers; ranges
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/?]+)(/(?P<what>revision|tree)/(?P<revision>[^/?]+))?(\?.*)?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Hub:
    """What the hub holds, and how it misbehaves.

    repos      {name: {file: bytes}}
    gated      names that want a token
    stall      files of which a half is sent, then `on_stall` is called, and nothing follows until `over`
    cut        {file: bytes after which a transfer of it breaks, once per entry of the list}
    requests   every (method, path, range header) that came
    """

    def __init__(self):
        self.repos, self.gated, self.cut, self.stall, self.requests = {}, set(), {}, set(), []
        self.over, self.on_stall = threading.Event(), lambda: None

    def add(self, name, folder):
        """Offer the files of a folder."""
        self.repos[name] = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}

    def commit(self, name):
        """Follows from the files, as a real one does."""
        total = hashlib.sha1()
        for file, data in sorted(self.repos[name].items()):
            total.update(file.encode() + hashlib.sha1(data).digest())
        return total.hexdigest()

    def fetched(self):
        """Files whose bytes were asked for."""
        return [
            FILE.fullmatch(path)["file"]
            for method, path, _ in self.requests
            if method == "GET" and FILE.fullmatch(path)
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        match = API.fullmatch(self.path) or FILE.fullmatch(self.path)
        repo = match["repo"] if match else None
        if repo not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        if repo in self.hub.gated and not self.headers.get("Authorization"):
            return self.refuse(401, "GatedRepo")
        if match["revision"] not in (None, "main", self.hub.commit(repo)):
            return self.refuse(404, "RevisionNotFound")
        files = self.hub.repos[repo]
        if match.re is API:
            return self.describe(repo, files, match["what"])
        if match["file"] not in files:
            return self.refuse(404, "EntryNotFound")
        return self.send_file(repo, match["file"], files[match["file"]])

    def describe(self, repo, files, what):
        if what == "tree":
            rows = [
                {"type": "file", "path": f, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for f, d in files.items()
            ]
            return self.send_bytes(json.dumps(rows).encode(), "application/json")
        siblings = [{"rfilename": f, "size": len(d), "blobId": hashlib.sha1(d).hexdigest()} for f, d in files.items()]
        body = {"id": repo, "modelId": repo, "sha": self.hub.commit(repo), "siblings": siblings}
        body |= {"private": False, "tags": [], "downloads": 0, "likes": 0}
        return self.send_bytes(json.dumps(body).encode(), "application/json")

    def send_file(self, repo, file, data):
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.commit(repo))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.hub.cut.get(file)
        if file in self.hub.stall:
            self.wfile.write(data[start : start + len(data) // 2])
            self.hub.on_stall()
            self.hub.over.wait()
        elif cuts:
            self.wfile.write(data[start : start + cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            self.wfile.write(data[start:])

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_bytes(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that go away are no news."""


@contextmanager
def serving(hub):
    """The address under which `hub` is served while the context is open."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
