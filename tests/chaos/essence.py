"""What is left of a model's children and status when names, uids and times are taken out: the differential oracle."""

import json
from typing import Any

from tests.chaos.world import OWNED, World
from tests.support.api import Object

MANAGER = "moorage-operator"
_HASH = "moorage.dev/applied-hash"
_REVISION = "moorage.dev/revision"
_ALLOCATED = ("clusterIP", "clusterIPs")
_OWN = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace")


def children(world: World, name: str) -> dict[str, Any]:
    """The children of a model by kind, in the same words for every model of the same spec."""
    (model,) = [model for model in world.models if model["metadata"]["name"] == name]
    found = {kind: [_child(obj) for obj in world.owned_by(model, kind)] for kind in OWNED}
    # Both are made from the model's uid among other things, so they differ as it does.
    unique = {model["metadata"]["uid"], *_values(found, _HASH), *_values(found, _REVISION)}
    text = json.dumps(found, sort_keys=True)
    for value in sorted(unique):
        text = text.replace(value, "UNIQUE")
    equal: dict[str, Any] = json.loads(text.replace(name, "NAME"))
    return equal


def _child(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _OWN}
    ours = [entry for entry in obj["metadata"]["managedFields"] if entry["manager"] == MANAGER]
    spec = {key: value for key, value in obj["spec"].items() if key not in _ALLOCATED}
    return {"metadata": metadata, "spec": spec, "owned": [entry["fieldsV1"] for entry in ours]}


def _values(tree: Any, key: str) -> set[str]:
    if isinstance(tree, dict):
        below = set[str]().union(*(_values(value, key) for value in tree.values()))
        return below | ({tree[key]} if isinstance(tree.get(key), str) else set())
    return set[str]().union(*(_values(item, key) for item in tree)) if isinstance(tree, list) else set()
