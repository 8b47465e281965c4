"""Reads and writes OCI image archives: which images a tar holds, and a tar with one static binary in it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_REFERENCE = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Blob:
    """Content that is stored and named by its digest."""

    content: bytes
    media_type: str

    @property
    def hex_digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": f"sha256:{self.hex_digest}", "size": len(self.content)}


def archived_images(archive: Path) -> dict[str, str]:
    """Give the digest of each image in an archive by its reference; images without one are left out."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("index.json")
        index = json.load(member) if member else {}
    manifests = index.get("manifests", [])
    return {m["annotations"][_REFERENCE]: m["digest"] for m in manifests if _REFERENCE in m.get("annotations", {})}


def single_binary_archive(reference: str, binary: Path) -> bytes:
    """Give an archive of an image that holds nothing but one static binary, which it runs as nobody."""
    layer = Blob(_tar({binary.name: binary.read_bytes()}, mode=0o755), _LAYER)
    config = _json_blob(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{binary.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.hex_digest}"]},
        },
        _CONFIG,
    )
    parts = {"config": config.descriptor, "layers": [layer.descriptor]}
    manifest = _json_blob({"schemaVersion": 2, "mediaType": _MANIFEST, **parts}, _MANIFEST)
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [manifest.descriptor | {"annotations": {_REFERENCE: reference}}],
    }
    files = {f"blobs/sha256/{blob.hex_digest}": blob.content for blob in (layer, config, manifest)}
    files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    return _tar(files, mode=0o644)


def _json_blob(content: dict[str, Any], media_type: str) -> Blob:
    return Blob(json.dumps(content).encode(), media_type)


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            # A TarInfo of our own has no times and no owner: the same binary gives the same digest.
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
