"""Models of the hub: the real client against a server that speaks the hub's calls, and every way that it says no."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from ramflow import hub, storage
from ramflow.errors import UserError
from ramflow.stage import execute
from tests.embed.conftest import EMBED, tiny_clip  # noqa: F401 (a fixture)

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "merges.txt": b"a b",
    "README.md": b"much text",
    "model.safetensors": b"safe" * 1000,
    "pytorch_model.bin": b"pickled",
    "tf_model.h5": b"tensors",
    "onnx/model.safetensors": b"elsewhere",
}


class Hub:
    """Models by name, their files, and what was asked for."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.revisions = {"main"}
        self.broken = self.gated = False
        self.asked: list[str] = []

    def commit(self, name: str) -> str:
        return hashlib.sha1(
            json.dumps(sorted(self.models[name])).encode() + b"".join(self.models[name].values())
        ).hexdigest()


def handler(content: Hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            content.asked.append(self.path)
            parts = self.path.partition("?")[0].strip("/").split("/")
            if content.broken:
                return self.say(500, b"")
            if parts[:2] == ["api", "models"]:
                return self.api("/".join(parts[2:4]), parts[4:])
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

        do_HEAD = do_GET

        def api(self, name, rest):
            if name not in content.models:
                return self.say(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if content.gated:
                return self.say(403, b"{}", {"X-Error-Code": "GatedRepo"})
            commit = content.commit(name)
            if rest and rest[1] not in {*content.revisions, commit}:
                return self.say(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if rest and rest[0] == "tree":
                files = [{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                         for path, data in content.models[name].items()]  # fmt: skip
                return self.say(200, json.dumps(files).encode())
            return self.say(200, json.dumps({"id": name, "sha": commit, "siblings": []}).encode())

        def file(self, name, commit, path):
            data = content.models[name][path]
            self.say(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit})

        def say(self, status, body, headers=()):
            self.send_response(status)
            for key, value in dict(headers).items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def server():
    content = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(content)) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        content.url = f"http://127.0.0.1:{http.server_port}"
        yield content
        http.shutdown()
        thread.join()


@pytest.fixture
def client(server, tmp_path, monkeypatch):
    """The hub client of this process, as HF_ENDPOINT and HF_HOME would have it."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "client"))
    server.models["some/clip"] = dict(FILES)
    return server


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_only_what_the_model_needs_is_brought(client, tmp_path):
    folder = hub.fetch("some/clip", tmp_path / "cache")
    assert names(folder) == {"config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not [path for path in client.asked if "README" in path or ".bin" in path or ".h5" in path]
    assert folder.name == client.commit("some/clip")


def test_pickled_weights_only_where_there_are_no_others(client, tmp_path):
    del client.models["some/clip"]["model.safetensors"]
    folder = hub.fetch("some/clip", tmp_path / "cache")
    assert names(folder) == {"config.json", "tokenizer.json", "merges.txt", "pytorch_model.bin"}


def test_one_digest_whatever_else_the_clients_cache_holds(client, tmp_path):
    folder = hub.fetch("some/clip", tmp_path / "cache")
    digest = storage.sha256_path(folder)
    snapshot = next((tmp_path / "client").glob("models--*/snapshots/*"))
    (snapshot / "pytorch_model.bin").write_bytes(b"fetched by another program")
    assert hub.fetch("some/clip", tmp_path / "cache") == folder
    assert storage.sha256_path(hub.fetch("some/clip", tmp_path / "another")) == digest == storage.sha256_path(folder)


def test_a_revision_can_be_named(client, tmp_path):
    client.revisions.add("v1")
    assert hub.fetch("some/clip@v1", tmp_path / "cache").name == client.commit("some/clip")
    with pytest.raises(UserError, match="no folder some/clip@v2 here, and the hub has no such revision"):
        hub.fetch("some/clip@v2", tmp_path / "cache")


def test_what_was_brought_once_needs_no_network(client, tmp_path):
    folder = hub.fetch("some/clip", tmp_path / "cache")
    client.broken = True
    assert hub.fetch("some/clip", tmp_path / "cache") == folder


def test_no_such_model_is_one_line(client, tmp_path):
    with pytest.raises(UserError, match="no folder models/clip here, and the hub has no model of that name"):
        hub.fetch("models/clip", tmp_path / "cache")


def test_a_gated_model_is_one_line(client, tmp_path):
    client.gated = True
    with pytest.raises(UserError, match="wants a login and consent"):
        hub.fetch("some/clip", tmp_path / "cache")


def test_a_model_without_files_is_one_line(client, tmp_path):
    client.models["some/clip"] = {"README.md": b"soon"}
    with pytest.raises(UserError, match="neither settings nor weights"):
        hub.fetch("some/clip", tmp_path / "cache")


@pytest.mark.parametrize("why", ["broken", "unreachable"])
def test_a_hub_that_does_not_answer_is_one_line(client, tmp_path, monkeypatch, why):
    client.broken = True
    if why == "unreachable":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"did not give it: .*check the network") as error:
        hub.fetch("some/clip", tmp_path / "cache")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-folder", "./some/clip", "a b/c"])
def test_what_is_no_name_of_a_model_is_no_such_folder(path, tmp_path):
    with pytest.raises(UserError, match=r"no such file or directory: .*OWNER/NAME"):
        hub.fetch(path, tmp_path / "cache")


def test_only_a_model_is_looked_for_on_the_hub(tiny_data, tmp_path):
    with pytest.raises(UserError, match=r"no such file or directory: some/audit$"):
        execute(
            EMBED, None, {"data": str(tiny_data), "audit": "some/audit", "clip": str(tmp_path)}, str(tmp_path / "out")
        )


def test_embed_takes_its_clip_from_the_hub_by_default(server, tiny_clip, tiny_data, tiny_audit, tmp_path):  # noqa: F811
    """As on the command line, in a process of its own: HF_ENDPOINT, HF_HOME, no --clip and no --descriptions."""
    server.models["openai/clip-vit-base-patch16"] = {p.name: p.read_bytes() for p in Path(tiny_clip).iterdir()}
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "RAMFLOW_CACHE": str(tmp_path / "cache"),
    }
    command = [
        sys.executable,
        "-m",
        "ramflow.cli",
        "embed",
        "--data",
        str(tiny_data),
        "--audit",
        str(tiny_audit),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    brought = next((tmp_path / "cache" / "hub" / "openai" / "clip-vit-base-patch16").iterdir())
    assert verdict["inputs"]["clip"] == storage.sha256_path(brought)
    assert storage.sha256_file(brought / "model.safetensors") == storage.sha256_file(
        Path(tiny_clip) / "model.safetensors"
    )
