"""A model hub on this machine: what `huggingface_hub` asks for to make a repository, commit files and read them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "1" * 40


def _entry(path: Path, root: Path) -> dict[str, object]:
    kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory"}
    return {**kind, "path": str(path.relative_to(root)), "oid": COMMIT}


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name and (self.folder / name).is_file():
            content = (self.folder / name).read_bytes()
            self.send(content, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        elif "/tree/" in path:
            inside = self.folder / path.partition("/tree/")[2].partition("/")[2]
            self.answer([_entry(found, self.folder) for found in inside.glob("*")])
        elif path.startswith("/api/datasets/me/mine"):
            files = [{"rfilename": str(f.relative_to(self.folder))} for f in self.folder.rglob("*") if f.is_file()]
            self.answer({"id": "me/mine", "sha": COMMIT, "private": False, "tags": [], "siblings": files})
        else:
            self.answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(self.path)
        if self.path.endswith("/repos/create"):
            self.answer({"url": f"{constants.ENDPOINT}/datasets/me/mine"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    target = self.folder / entry["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(entry["value"]["content"]))
            self.answer(
                {
                    "commitUrl": f"{constants.ENDPOINT}/datasets/me/mine/commit/1",
                    "commitOid": COMMIT,
                    "pullRequestUrl": None,
                }
            )
        else:
            self.answer({})

    def answer(self, content: object, status: int = 200) -> None:
        self.send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)

    def send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def local_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve a hub whose files are those of the folder; yields the addresses that were asked for."""
    handler = type("Handler", (_Handler,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    try:
        yield handler.asked
    finally:
        server.shutdown()
        server.server_close()
