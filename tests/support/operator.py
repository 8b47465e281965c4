"""The operator as a process of this host, acting with the rights that the chart gives it, and the writes it makes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import httpx
import yaml

from hack.cluster.api import Cluster

NAMESPACE = "moorage-system"
KEYS = "moorage-keys"
MANAGING = "gateway.management.enabled=true,gateway.management.keys={manager,other-manager}"
"""What the chart is told of the management API: two API keys that may manage."""

USER = f"system:serviceaccount:{NAMESPACE}:moorage-operator"
ROOT = Path(__file__).resolve().parents[2]
IMAGES = {
    "llamacpp/cpu": "localhost/moorage/runtime-llamacpp:test",
    "llamacpp/gpu": "localhost/moorage/runtime-llamacpp-gpu:test",
}


def kubectl(cluster: Cluster, *args: str, stdin: str | None = None, check: bool = True) -> str:
    """What kubectl prints, as a user sees it: both its streams."""
    # kubectl keeps what it knows of a server by its address, which another cluster may have had before.
    cache = cluster.kubeconfig.parent / "kubectl-cache"
    command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", f"--cache-dir={cache}", *args]
    done = subprocess.run(
        command, input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0 or not check, f"kubectl {' '.join(args)}:\n{done.stdout}"
    return done.stdout


def install(cluster: Cluster) -> None:
    """Applies what the chart makes, but its Deployments, which have no images on a cluster without nodes."""
    command = [str(cluster.helm), "template", "moorage", str(ROOT / "charts" / "moorage"), "--namespace", NAMESPACE]
    rendered = subprocess.run(
        [*command, "--set", f"clusterWide=true,gateway.enabled=true,gateway.keyNamespace={KEYS},{MANAGING}"],
        text=True,
        capture_output=True,
        check=True,
    )
    objects = [doc for doc in yaml.safe_load_all(rendered.stdout) if doc and doc["kind"] != "Deployment"]
    for namespace in (NAMESPACE, KEYS):
        kubectl(cluster, "create", "namespace", namespace, check=False)
    kubectl(cluster, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    for plural in ("inferencemodels", "modelaliases"):
        kubectl(cluster, "wait", "--for=condition=Established", f"crd/{plural}.moorage.dev")
    # The garbage collector looks for new kinds every 30 s; one that has just started knows of ours.
    cluster.kill("kube-controller-manager")
    cluster.start("kube-controller-manager")
    # kubectl has looked at the API before the CRD was there; this makes it look again.
    kubectl(cluster, "api-resources", "--api-group=moorage.dev")


def kubeconfig_of(cluster: Cluster, path: Path, account: str = "moorage-operator", namespace: str = NAMESPACE) -> Path:
    """A kubeconfig with a token of the operator's service account, or of another one of the chart."""
    token = kubectl(cluster, "create", "token", account, "-n", namespace, "--duration=2h").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class OperatorProcess:
    """Starts, ends and watches over one operator."""

    def __init__(self, kubeconfig: Path, log: Path, **settings: str) -> None:
        self.log = log
        self.port, self.liveness_port = free_port(), free_port()
        self._environment = {
            # Bytecode is kept, as it is in the image: without it, most of a start is compiling libraries again.
            **{key: value for key, value in os.environ.items() if not key.startswith(("MOORAGE_", "PYTHONDONT"))},
            "KUBECONFIG": str(kubeconfig),
            "MOORAGE_NAMESPACE": NAMESPACE,
            "MOORAGE_POD_NAME": "operator-of-the-test",
            "MOORAGE_IMAGES": json.dumps(IMAGES),
            "MOORAGE_HEALTH_PORT": str(self.port),
            "MOORAGE_LIVENESS_PORT": str(self.liveness_port),
            "MOORAGE_POD_IP": "127.0.0.1",
            # The pods of fake nodes have addresses of nobody; nothing must be sent there.
            "MOORAGE_FACTS": "false",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it and waits until it is ready; returns the seconds that took."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moorage_operator"], env=self._environment, stdout=log, stderr=log, cwd="/"
            )
        while self.not_ready():
            assert self.process.poll() is None, f"the operator ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() - began < 30, f"not ready: {self.not_ready()}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)  # readiness is asked, as the kubelet does; there is nothing to wait on
        return time.monotonic() - began

    def not_ready(self) -> str:
        """Why it is not ready; empty when it is."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5, trust_env=False)
        except httpx.TransportError as error:
            return str(error) or type(error).__name__
        return "" if answer.status_code == 200 else answer.text

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def signal(self, number: Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a crash does."""
        self._end(SIGKILL)

    def stop(self) -> int:
        """Ends it as the kubelet does; returns its exit code."""
        return self._end(SIGTERM)

    def _end(self, number: Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=20)
        finally:
            # One that does not end must not go on beside the operators of the tests that follow.
            self.process.kill()
            self.process.wait()
            self.process = None

    def errors(self) -> list[str]:
        """The lines of its log at level error."""
        lines = [line for line in self.log.read_text().splitlines() if line]
        return [line for line in lines if not line.startswith("{") or '"level":"error"' in line]


@dataclass(frozen=True)
class Audit:
    """The API server's audit log: every write that it was asked for."""

    path: Path

    def position(self) -> int:
        """Where the log ends now."""
        return self.path.stat().st_size if self.path.exists() else 0

    def writes(self, since: int = 0, user: str | None = USER) -> list[Mapping[str, Any]]:
        """Writes by `user`, or anybody, since a position; Leases are left out, being heartbeats."""
        with self.path.open("rb") as log:
            log.seek(since)
            entries = [json.loads(line) for line in log if line.endswith(b"\n")]
        return [
            entry
            for entry in entries
            if user in (None, entry["user"].get("username")) and entry.get("objectRef", {}).get("resource") != "leases"
        ]


def described(writes: list[Mapping[str, Any]]) -> list[str]:
    """Writes in words: `patch deployments/x 200`."""
    return [_described(write["objectRef"], write) for write in writes]


def _described(target: Mapping[str, str], write: Mapping[str, Any]) -> str:
    parts = [target.get("namespace", ""), target["resource"], target.get("subresource", ""), target.get("name", "")]
    return f"{write['verb']} {'/'.join(part for part in parts if part)} {write.get('responseStatus', {}).get('code')}"
