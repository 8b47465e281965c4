"""What belongs to a model is changed, deleted or already taken: it is mended, made again, or left to its owner."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.chaos.bed import Bed
from tests.chaos.essence import MANAGER
from tests.chaos.pace import FEWER, FULL, many
from tests.chaos.world import OWNED, World
from tests.support.api import ApiRefusedError, Object, condition, reason

REPAIR_LIMIT = 10.0
OTHER_VALUES = (
    *("Always", "Never", "UDP", "HTTPS", "NodePort", "FallbackToLogsOnError", "Unconfined", "Recreate", "moorage-9"),
    *("17Mi", "11m", "other", "/other", "9", 9, 1, True, False),
)
"""Tried in turn in place of an owned value, until the API server takes one."""


@dataclass(frozen=True)
class Change:
    """A place in an object, and whether what is there is changed or removed."""

    pointer: str
    removes: bool = False


@pytest.fixture
def whole(bed: Bed) -> Bed:
    """A bed with a model that serves."""
    bed.create()
    bed.settles()
    return bed


def test_fault_13_every_owned_field_is_mended(whole: Bed) -> None:
    for kind in OWNED:
        before = whole.api.get(kind, "tiny")
        assert before is not None
        changes = list(owned(before))[:: 1 if FULL else FEWER]
        guarded = [change for change in changes if not spoilt_and_mended(whole, kind, change, essence(before))]
        whole.scenario.note(f"{kind}: {len(changes)}, {len(guarded)} of them guarded by the API server")
        assert len(guarded) < len(changes) / 2
    whole.settles()
    whole.invariants_hold()


def spoilt_and_mended(bed: Bed, kind: str, change: Change, before: Object) -> bool:
    """Spoil something; it is mended in time. False when the API server does not let it be spoilt."""
    for patch in patches(change):
        try:
            changed = json_patch(bed, kind, patch)
        except ApiRefusedError:
            continue
        if essence(changed) == before:
            continue
        began = time.monotonic()
        bed.api.wait(
            kind, "tiny", lambda obj: obj is not None and essence(obj) == before, what=str(change), seconds=REPAIR_LIMIT
        )
        bed.scenario.converged(time.monotonic() - began)
        return True
    return False


def patches(change: Change) -> Iterator[list[Object]]:
    """JSON patches that would do it, to be tried in turn."""
    if change.removes:
        yield [{"op": "remove", "path": change.pointer}]
        return
    # A pod's spec repeats the number of its class.
    number = change.pointer.replace("/priorityClassName", "/priority")
    rest = [{"op": "remove", "path": number}] if number != change.pointer else []
    for value in OTHER_VALUES:
        yield [{"op": "replace", "path": change.pointer, "value": value}, *rest]


def json_patch(bed: Bed, kind: str, patch: list[Any]) -> Object:
    headers = {"Content-Type": "application/json-patch+json"}
    return bed.api.request("PATCH", bed.api.path(kind, "tiny"), json=patch, headers=headers)


def essence(obj: Object) -> Object:
    """What of an object says what it is, without what the API server and controllers write."""
    metadata = {key: obj["metadata"].get(key) for key in ("labels", "annotations", "ownerReferences")}
    annotations = {
        key: value for key, value in (metadata["annotations"] or {}).items() if not key.startswith("deployment.")
    }
    volatile = ("clusterIP", "clusterIPs")
    spec = {key: value for key, value in obj["spec"].items() if key not in volatile}
    return {**metadata, "annotations": annotations, "spec": spec}


def owned(obj: Object) -> Iterator[Change]:
    """Every single value that the operator owns, to be changed; every item that it owns of a list, to be removed."""
    for entry in obj["metadata"]["managedFields"]:
        if entry["manager"] == MANAGER and "subresource" not in entry:
            yield from _owned(entry["fieldsV1"], obj, "")


def _owned(fields: Object, value: Any, path: str, identity: frozenset[str] = frozenset()) -> Iterator[Change]:
    for key, below in fields.items():
        kind, _, name = key.partition(":")
        if kind == "f" and name in value and name not in identity:
            pointer = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if below and below != {".": {}}:
                yield from _owned(below, value[name], pointer)
            else:
                yield Change(pointer)
        elif kind == "k":
            # What tells the items of a list apart is no value of an item: another one is another item.
            wanted = json.loads(name)
            index = next(i for i, item in enumerate(value) if wanted.items() <= item.items())
            yield Change(f"{path}/{index}", removes=True)
            yield from _owned(below, value[index], f"{path}/{index}", frozenset(wanted))


def test_fault_13_what_others_own_is_left_alone(whole: Bed) -> None:
    note: Object = {"metadata": {"annotations": {"example.org/note": "mine"}, "labels": {"example.org/team": "a"}}}
    restarted = {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}
    theirs: dict[str, Object] = {
        "Deployment": {**note, "spec": {"minReadySeconds": 1, **restarted}},
        "Service": {**note, "spec": {"sessionAffinity": "ClientIP"}},
        "PodDisruptionBudget": {**note, "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}},
    }
    changed = {kind: whole.api.patch(kind, "tiny", patch) for kind, patch in theirs.items()}
    whole.converges()
    # Also when something of ours in the same object changes.
    whole.edit(replicas=2, maxConcurrency=9)
    whole.converges()
    for kind, patch in theirs.items():
        live = whole.api.get(kind, "tiny")
        assert live is not None
        assert patch["metadata"]["annotations"].items() <= live["metadata"]["annotations"].items()
        assert patch["metadata"]["labels"].items() <= live["metadata"]["labels"].items()
        for field in set(patch["spec"]) - {"template"}:
            assert live["spec"][field] == changed[kind]["spec"][field], field
    deployment = whole.api.get("Deployment", "tiny")
    assert deployment is not None
    assert "kubectl.kubernetes.io/restartedAt" in deployment["spec"]["template"]["metadata"]["annotations"]
    whole.invariants_hold()


def test_fault_14_deleted_children_come_back(whole: Bed) -> None:
    for kinds in (*((kind,) for kind in OWNED), OWNED):
        before = {kind: uid_of(whole, kind) for kind in kinds}
        began = time.monotonic()
        for kind in kinds:
            whole.api.delete(kind, "tiny")
        for kind, uid in before.items():
            whole.api.wait(kind, "tiny", partial(is_another, uid), what=f"another {kind}", seconds=REPAIR_LIMIT)
        whole.converges(since=began)
    whole.invariants_hold()


def uid_of(bed: Bed, kind: str) -> str:
    live = bed.api.get(kind, "tiny")
    assert live is not None
    return str(live["metadata"]["uid"])


def is_another(uid: str, obj: Object | None) -> bool:
    return obj is not None and obj["metadata"]["uid"] != uid


def test_fault_17_the_same_name_again_at_once(whole: Bed, garbage_collector: None) -> None:
    for number in range(many(10)):
        whole.api.delete("InferenceModel", "tiny")
        new = whole.create(maxConcurrency=1 + number)
        whole.converges()
        world = World.of(whole.api)
        assert all(len(world.owned_by(new, kind)) == len(world.below[kind]) == 1 for kind in OWNED)
    whole.invariants_hold()


VERSION = ("uid", "resourceVersion")
SELECTOR = {"matchLabels": {"app": "theirs"}}
TEMPLATE = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "c", "image": "theirs"}]}}
FOREIGN: dict[str, Object] = {
    "Deployment": {"apiVersion": "apps/v1", "spec": {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE}},
    "Service": {"apiVersion": "v1", "spec": {"ports": [{"port": 80}]}},
    "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"selector": SELECTOR, "minAvailable": 0}},
}


@pytest.mark.full_only
def test_fault_18_names_that_are_taken(bed: Bed) -> None:
    theirs = {kind: foreign(bed, kind) for kind in OWNED}
    for kind in OWNED:
        bed.create(kind.lower())
    for kind in OWNED:
        # A disruption budget is not needed to answer requests, so there only the change of the spec does not get on.
        where = "Progressing" if kind == "PodDisruptionBudget" else "Ready"
        seen = bed.api.wait("InferenceModel", kind.lower(), partial(is_conflict, where=where), what="NameConflict")
        assert condition(seen, where)["status"] == "False"
        assert f"a {kind} named {kind.lower()} exists" in condition(seen, where)["message"]
    for kind, before in theirs.items():
        untouched = bed.api.get(kind, kind.lower())
        assert untouched is not None
        assert [untouched["metadata"][key] for key in VERSION] == [before["metadata"][key] for key in VERSION]
        bed.api.delete(kind, kind.lower())
    bed.converges()
    bed.invariants_hold()


def foreign(bed: Bed, kind: str) -> Object:
    """An object of somebody else's, named like a model to be."""
    bed.api.create({**FOREIGN[kind], "kind": kind, "metadata": {"name": kind.lower()}})
    made = bed.api.wait(kind, kind.lower(), settled_down, what="seen by its controller")
    assert made is not None
    return made


def is_conflict(found: Object | None, where: str) -> bool:
    return reason(found, where) == "NameConflict"


def settled_down(obj: Object | None) -> bool:
    """Whether a foreign object's own controller has written what it will write."""
    if obj is None:
        return False
    generation = obj["metadata"].get("generation")
    return obj["kind"] == "Service" or bool(obj.get("status", {}).get("observedGeneration") == generation)
