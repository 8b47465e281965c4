"""What kstatus, by which Flux (`wait: true`) goes, makes of an object that it has no rules of its own for.

Written from kubernetes-sigs/cli-utils, pkg/kstatus/README.md.
"""

from tests.support.api import Object


def kstatus(obj: Object) -> str:
    """Current, InProgress, Failed or Terminating."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata.get("generation")) != metadata.get("generation"):
        return "InProgress"
    states = {entry["type"]: entry["status"] for entry in status.get("conditions") or ()}
    for entry, state in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if states.get(entry) == "True":
            return state
    return "Current" if states.get("Ready", "True") == "True" else "InProgress"
