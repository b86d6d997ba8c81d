"""A stand-in for a Kubernetes cluster: an API server that runs each job's container command in a folder of its own.

It knows what Snakemake's executor asks for (secrets, jobs, their status) and nothing else. What it can't show is what a
cluster itself does: pulling the image, and finding a node.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


class Cluster:
    """What was asked of the API server, and the processes that stand for pods."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.specs: dict[str, dict[str, Any]] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def add_secret(self, body: dict[str, Any]) -> None:
        values = body.get("data") or {}
        self._secrets[body["metadata"]["name"]] = {
            key: base64.b64decode(value).decode() for key, value in values.items()
        }

    def start(self, body: dict[str, Any]) -> None:
        """Run a job's only container: its working folder is empty but for the claims mounted in it."""
        name = body["metadata"]["name"]
        pod = body["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        folder = self.folder / name
        folder.mkdir()
        claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            if claims[mount["name"]]:
                claim = self.folder / "claims" / claims[mount["name"]]["claimName"]
                claim.mkdir(parents=True, exist_ok=True)
                (folder / Path(mount["mountPath"]).relative_to(container["workingDir"])).symlink_to(claim)
        secret = {
            entry["name"]: self._secrets[entry["valueFrom"]["secretKeyRef"]["name"]][entry["name"].lower()]
            for entry in container.get("env") or []
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        home = {"PATH": path, "HOME": str(folder), "OMP_NUM_THREADS": "1", "LATENT_REBALANCE_DEVICES": ""}
        home |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [*container["command"], *container["args"]]
            self._processes[name] = subprocess.Popen(command, cwd=folder, env=home | secret, stdout=log, stderr=log)
        self.specs[name] = pod

    def status(self, name: str) -> dict[str, int]:
        code = self._processes[name].poll()
        return {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}

    def logs(self) -> str:
        """Return what all containers printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@contextmanager
def one_node(folder: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """Start the server; yield the cluster and the environment in which Kubernetes' clients reach it."""
    cluster = Cluster(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (cluster.start if self.path.endswith("/jobs") else cluster.add_secret)(body)
            self._answer(body)

        def do_GET(self) -> None:
            if "/pods" in self.path:
                self._answer({"items": []})
            else:
                self._answer({"status": cluster.status(self.path.split("/")[-2])})

        def do_DELETE(self) -> None:
            self._answer({})

        def _answer(self, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(context))
    try:
        yield cluster, {"KUBECONFIG": str(folder / "kubeconfig")}
    finally:
        server.shutdown()
