"""A live child as it is kept: encoded JSON, a tenth of the size of the dicts, and what its status says.

Anybody may give an object the label of our children, so only what is owned by a model of its name is kept whole, and
only up to MOST_KEPT bytes. What is missing counts as drifted: it is read, or applied, when it matters.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from moorage_operator.api.v1alpha1 import KIND
from moorage_operator.status.observe import DeploymentState, controller_of, deployment_state

MOST_KEPT: Final = 64 * 1024
"""Bytes of a child that are kept; ours have a few thousand."""


@dataclass(frozen=True)
class Child:
    """A live object that has the name of a child of ours."""

    uid: str
    version: int
    owner_uid: str | None
    encoded: bytes | None
    digest: str = ""
    """Tells versions of one that is too large to be kept apart."""
    state: DeploymentState | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The object without its status and managed fields; empty if it is not kept."""
        decoded: dict[str, Any] = msgspec.json.decode(self.encoded) if self.encoded else {}
        return decoded


def child_of(kind: str, version: int, obj: Mapping[str, Any]) -> Child:
    """A live object of that kind at that resourceVersion."""
    metadata, owner = obj["metadata"], controller_of(obj)
    state = deployment_state(obj) if kind == "Deployment" else None
    found = Child(metadata["uid"], version, owner.get("uid"), None, state=state)
    if (owner.get("kind"), owner.get("name")) != (KIND, metadata["name"]):
        return found
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    encoded = msgspec.json.encode({"metadata": {k: metadata[k] for k in kept if k in metadata}, "spec": obj["spec"]})
    if len(encoded) > MOST_KEPT:
        return replace(found, digest=hashlib.sha256(encoded).hexdigest())
    return replace(found, encoded=encoded)
