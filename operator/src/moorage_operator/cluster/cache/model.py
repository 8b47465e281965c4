"""An InferenceModel as it is kept: encoded JSON of what a reconcile reads of it. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moorage_common.labels import RESTARTED_AT_ANNOTATION

MOST_KEPT: Final = 64 * 1024
"""Bytes of a model that are kept; most have two thousand. A larger one is read for each reconcile."""

_METADATA: Final = (
    *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"),
)


def encoded(live: Mapping[str, Any]) -> bytes | None:
    """What is kept of a live model; None for one that is too large."""
    metadata = live["metadata"]
    kept = {name: metadata[name] for name in _METADATA if name in metadata}
    restarted = (metadata.get("annotations") or {}).get(RESTARTED_AT_ANNOTATION)
    if restarted is not None:
        kept["annotations"] = {RESTARTED_AT_ANNOTATION: restarted}
    found = msgspec.json.encode({"metadata": kept, "spec": live["spec"], "status": live.get("status") or {}})
    return found if len(found) <= MOST_KEPT else None
