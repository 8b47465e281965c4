"""The kind provider: a cluster of containers, where a Docker engine answers.

It cannot run on the machine that it was written on (no Docker engine, no registry), so only its pure parts, the
configuration and the commands, are tested; see docs/critique.md. kind 0.32 is the first that knows Kubernetes 1.36, in
which image volumes are on by default.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hack.cluster.cluster import Cluster, ComponentStatus
from hack.cluster.doctor import Missing, missing_go
from hack.cluster.errors import ClusterError
from hack.cluster.host.client import ApiClient
from hack.cluster.host.control_plane import ADMISSION_PLUGINS, AUDIT_POLICY, Site
from hack.cluster.host.fakenodes import reconcile_fake_nodes
from hack.cluster.host.layout import Layout
from hack.cluster.host.process import kill_all, read_records
from hack.cluster.options import ClusterOptions
from hack.cluster.progress import step
from hack.cluster.toolchain.builder import ToolCache, ensure_built
from hack.cluster.toolchain.catalog import CLIENT_GROUPS, KIND, binaries_of

# The digest makes it the image that was published with kind 0.32.0, whatever happens to the tag.
NODE_IMAGE = "kindest/node:v1.36.1@sha256:3489c7674813ba5d8b1a9977baea8a6e553784dab7b84759d1014dbd78f7ebd5"
GROUPS = (*CLIENT_GROUPS, KIND)
_POLICY = "/etc/kubernetes/moorage/audit-policy.json"
_AUDIT_FOLDER = "/var/log/moorage"


def kind_name(cluster: str) -> str:
    """Give the name under which kind knows a cluster; the prefix keeps it apart from the user's own.

    >>> kind_name("moorage"), kind_name("e2e")
    ('moorage', 'moorage-e2e')
    """
    return cluster if cluster == "moorage" else f"moorage-{cluster}"


def kind_config(layout: Layout) -> dict[str, Any]:
    """Give kind's configuration: one node, the audit log on the host, containers that come back soon after a crash."""
    arguments = {
        "enable-admission-plugins": ADMISSION_PLUGINS,
        "audit-policy-file": _POLICY,
        "audit-log-path": f"{_AUDIT_FOLDER}/{layout.audit_log.name}",
    }
    volumes = [
        {"name": "audit-policy", "hostPath": _POLICY, "mountPath": _POLICY, "readOnly": True, "pathType": "File"},
        {"name": "audit-log", "hostPath": _AUDIT_FOLDER, "mountPath": _AUDIT_FOLDER, "pathType": "DirectoryOrCreate"},
    ]
    # kubeadm v1beta4, which kind uses from Kubernetes 1.36 on, takes arguments as a list.
    cluster_patch = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": [{"name": name, "value": value} for name, value in arguments.items()],
            "extraVolumes": volumes,
        },
    }
    kubelet_patch = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
    }
    mounts = [
        {"hostPath": str(layout.config("audit-policy.json")), "containerPath": _POLICY, "readOnly": True},
        {"hostPath": str(layout.audit_log.parent), "containerPath": _AUDIT_FOLDER},
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "image": NODE_IMAGE, "extraMounts": mounts}],
        "kubeadmConfigPatches": [json.dumps(cluster_patch), json.dumps(kubelet_patch)],
    }


def create_command(kind: Path, layout: Layout) -> list[str]:
    """Give the command that creates a cluster and writes a kubeconfig of the project's own."""
    config = layout.config("kind.json")
    return [
        str(kind), "create", "cluster", "--name", kind_name(layout.name), "--config", str(config),
        "--kubeconfig", str(layout.kubeconfig), "--wait", "120s",
    ]  # fmt: skip


def delete_command(kind: Path, layout: Layout) -> list[str]:
    """Give the command that deletes a cluster; kind succeeds when there is none."""
    return [str(kind), "delete", "cluster", "--name", kind_name(layout.name), "--kubeconfig", str(layout.kubeconfig)]


def load_command(kind: Path, name: str, archive: Path) -> list[str]:
    """Give the command that puts an image archive into the node."""
    return [str(kind), "load", "image-archive", str(archive), "--name", kind_name(name)]


def list_command(kind: Path) -> list[str]:
    """Give the command that lists the clusters of this Docker engine."""
    return [str(kind), "get", "clusters"]


def docker_answers() -> bool:
    """Say whether a Docker engine is at hand, not merely its client."""
    if not shutil.which("docker"):
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class KindProvider:
    """Runs clusters in containers of a Docker engine."""

    name = "kind"

    @staticmethod
    def made(cluster: str) -> bool:
        """Say whether a cluster of this name was made by kind."""
        return Layout.of(cluster).config("kind.json").exists()

    def missing(self, options: ClusterOptions) -> list[Missing]:
        """Say what the machine lacks; a control plane alone saves nothing with kind, so the options do not matter."""
        engine = (
            [] if docker_answers() else [Missing("a Docker engine that answers (docker info)", package="docker.io")]
        )
        return engine + missing_go(GROUPS)

    def build(self, options: ClusterOptions) -> None:
        """Build kind and the clients; the options do not matter here either."""
        ensure_built(GROUPS, provider_groups=GROUPS)

    def up(self, options: ClusterOptions) -> Cluster:
        """Give a ready cluster."""
        self.build(options)
        layout = Layout.of(options.name)
        if not self._is_healthy(layout):
            self.down(options.name)
            self._create(layout)
        site = Site(layout, _binaries(), control_plane_only=False)
        reconcile_fake_nodes(site, ApiClient(layout.kubeconfig), options.gpus, lambda: None)
        return Cluster(options, site)

    def down(self, name: str) -> None:
        """Delete the cluster, its kwok process and its files."""
        layout = Layout.of(name)
        kill_all(read_records(layout).values())
        _run(delete_command(_binaries()["kind"], layout))
        shutil.rmtree(layout.root, ignore_errors=True)

    def load_images(self, name: str, archives: list[Path]) -> None:
        """Load image archives into the node."""
        for archive in archives:
            _run(load_command(_binaries()["kind"], name, archive))

    def status(self, name: str) -> list[ComponentStatus]:
        """Say whether kind knows the cluster, and whether kwok runs."""
        known = kind_name(name) in _run(list_command(_binaries()["kind"])).split()
        processes = read_records(Layout.of(name)).values()
        found = [ComponentStatus(record.component, record.pid, record.is_alive) for record in processes]
        return [ComponentStatus("kind", 0, alive=True), *found] if known else []

    def _is_healthy(self, layout: Layout) -> bool:
        return layout.kubeconfig.exists() and ApiClient(layout.kubeconfig).answers("/readyz")

    def _create(self, layout: Layout) -> None:
        for folder in layout.folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout.config("audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
        layout.config("kind.json").write_text(json.dumps(kind_config(layout), indent=1))
        with step(f"create kind cluster {kind_name(layout.name)}"):
            _run(create_command(_binaries()["kind"], layout))
        shutil.copyfile(layout.kubeconfig, layout.component_kubeconfig("kwok"))


def _binaries() -> dict[str, Path]:
    return binaries_of(GROUPS, ToolCache.default().bin_root)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
