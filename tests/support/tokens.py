"""Tokens of Kubernetes for the gateway's audience, as the kubelet gives them to pods, and one whose time is over."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hack.cluster.api import Cluster
from tests.support.operator import NAMESPACE, kubectl

AUDIENCE = "moorage-gateway"


def token(cluster: Cluster, account: str, namespace: str = NAMESPACE, audience: str | None = AUDIENCE) -> str:
    """A token of a service account; without an audience it is for the API server."""
    options = [f"--audience={audience}"] if audience else []
    return kubectl(cluster, "-n", namespace, "create", "token", account, "--duration=2h", *options).strip()


def operator_token(cluster: Cluster, path: Path) -> Path:
    """The file that the chart mounts into the operator's pod."""
    path.write_text(token(cluster, "moorage-operator"))
    path.chmod(0o600)
    return path


def expired(cluster: Cluster, good: str) -> str:
    """The same token as the API server would have made it hours ago: signed with its key, and over."""
    head, content, _ = good.split(".")
    claims = json.loads(_decoded(content))
    hours = 6 * 3600
    claims |= {name: claims[name] - hours for name in ("exp", "iat", "nbf")}
    signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
    key = load_pem_private_key(cluster.site.layout.pki("sa.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32) + s.to_bytes(32))}"


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
