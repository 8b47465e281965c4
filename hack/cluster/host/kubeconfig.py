"""Writes kubeconfigs that carry their certificates inside, so that a copy of one file is enough to use the cluster."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any


def kubeconfig(cluster: str, server: str, *, authority: bytes, certificate: bytes, key: bytes) -> dict[str, Any]:
    """Give a kubeconfig with one cluster, one user and one context, all named like the cluster."""
    context = f"moorage-{cluster}"
    user = {"client-certificate-data": _encode(certificate), "client-key-data": _encode(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": context, "cluster": {"server": server, "certificate-authority-data": _encode(authority)}}
        ],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }


def write_kubeconfig(path: Path, content: dict[str, Any]) -> None:
    """Write a kubeconfig that only its owner can read (JSON, which is YAML too)."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
