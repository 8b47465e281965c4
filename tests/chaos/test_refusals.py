"""The API server says no: wait, not allowed, not you, somebody was faster, not in this namespace any more."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.bed import SMALL, Bed
from tests.chaos.pace import FULL, LIMIT, lasting, many
from tests.support.api import ApiRefusedError, Object, condition, reason
from tests.support.fault_proxy import Rule, answer
from tests.support.models import model
from tests.support.operator import USER, described, kubeconfig_of

ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/moorage-operator"
RETRY_AFTER = 10 if FULL else 3
LOGIN_LIMIT = 60.0


@pytest.mark.parametrize("watches_too", [False, pytest.param(True, marks=pytest.mark.full_only)])
def test_fault_09_too_many_requests(bed: Bed, watches_too: bool) -> None:
    for number in range(3):
        bed.create(f"throttled-{number}")
    bed.settles()
    # Watches that go on bring events while all requests that follow from them are refused.
    verbs = () if watches_too else ("get", "patch", "create", "update")
    rule = bed.proxy.add(Rule(answer(429, "TooManyRequests", retry_after=RETRY_AFTER), verbs=verbs))
    if watches_too:
        bed.proxy.cut()
    end = time.monotonic() + lasting(120, at_least=3 * RETRY_AFTER)
    edits = 0
    while time.monotonic() < end:
        edits += 1
        bed.edit("throttled-0", maxConcurrency=1 + edits % 9)
        time.sleep(0.2)  # the pace of the edits
    bed.proxy.clear()
    obeyed(bed, rule)
    bed.converges(RETRY_AFTER + LIMIT)
    bed.invariants_hold()


def obeyed(bed: Bed, rule: Rule) -> None:
    """At most one request for each object in each Retry-After."""
    assert rule.calls
    targets: dict[tuple[str, ...], list[float]] = {}
    for call in rule.calls:
        targets.setdefault((call.verb, call.resource, call.namespace, call.name, call.subresource), []).append(call.at)
    early = {
        "/".join(target): [round(b - a, 2) for a, b in pairwise(at) if b - a < RETRY_AFTER * 0.98]
        for target, at in targets.items()
    }
    assert {target: gaps for target, gaps in early.items() if gaps} == {}
    bed.scenario.note(f"{len(rule.calls)} requests for {len(targets)} targets")


@contextmanager
def rights_without(bed: Bed, resource: str, verb: str = "patch") -> Iterator[None]:
    """The operator's role lacks a kind for a while, as after a careless edit; `verb` is one that it had."""
    role = bed.api.request("GET", ROLE)
    rules = [{**r, "resources": [name for name in r["resources"] if name != resource]} for r in role["rules"]]
    put_rules(bed, [r for r in rules if r["resources"]])
    try:
        bed.wait_until(lambda _: ["not in force yet"] if may(bed, resource, verb) else [], LIMIT)
        yield
    finally:
        put_rules(bed, role["rules"])


def may(bed: Bed, resource: str, verb: str) -> bool:
    """Whether the operator has a right: a change of its role takes a moment to work."""
    attributes = {"verb": verb, "resource": resource, "namespace": bed.api.namespace}
    review = {"spec": {"user": USER, "resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(bed.api.request("POST", path, json=review)["status"]["allowed"])


def put_rules(bed: Bed, rules: list[Object]) -> None:
    role = bed.api.request("GET", ROLE)
    bed.api.request("PUT", ROLE, json={**role, "rules": rules})


def test_fault_10_forbidden_kind(bed: Bed) -> None:
    bed.create("before")
    bed.settles()
    with rights_without(bed, "services"):
        bed.create("during")
        seen = bed.api.wait("InferenceModel", "during", lambda im: reason(im) == "Forbidden", what="Forbidden")
        assert 'cannot patch resource "services"' in condition(seen, "Ready")["message"]
        bed.api.patch("Service", "before", {"metadata": {"labels": {"app.kubernetes.io/part-of": "them"}}})
        # The other kinds go on, and the other models.
        bed.edit("before", replicas=2)
        bed.api.wait("Deployment", "before", lambda found: (found or {})["spec"]["replicas"] == 2, what="2 replicas")
        seen = bed.api.wait(
            "InferenceModel", "before", lambda im: reason(im, "Progressing") == "Forbidden", what="Forbidden"
        )
        assert condition(seen, "Ready")["status"] == "True"
        assert not bed.operator.ends_within(lasting(120, at_least=3))
    bed.converges()
    bed.invariants_hold()


def test_fault_11_token_is_rotated(bed: Bed, tmp_path: Path) -> None:
    bed.create()
    bed.settles()
    config = tmp_path / "kubeconfig"
    content = yaml.safe_load(config.read_text())
    old = content["users"][0]["user"]["token"]
    bed.proxy.add(Rule(answer(401, "Unauthorized"), token=old))
    bed.proxy.cut()
    bed.edit(replicas=2)
    assert not bed.operator.ends_within(lasting(120, at_least=3))
    fresh = kubeconfig_of(bed.cluster, tmp_path / "fresh")
    content["users"] = yaml.safe_load(fresh.read_text())["users"]
    assert content["users"][0]["user"]["token"] != old
    config.write_text(yaml.safe_dump(content))
    bed.converges(LOGIN_LIMIT)
    bed.edit(replicas=1)
    bed.converges()
    bed.invariants_hold()


def test_fault_12_conflict_storm(bed: Bed) -> None:
    bed.create()
    bed.settles()
    start = bed.audit.position()
    end = time.monotonic() + lasting(60, at_least=5)
    number = 0
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        bed.edit(maxConcurrency=1 + number % 50)
        spoiled: Any = {"phase": "Failed", "conditions": [], "readyReplicas": number % 3}
        bed.api.patch("InferenceModel", "tiny", {"status": spoiled}, "status")
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))  # two writes of ours in 100 ms are 20 a second
    bed.converges(10)
    kinds = Counter((w["objectRef"]["resource"], w["user"]["username"] == USER) for w in good_writes(bed, start))
    # Each change of ours may be answered by one write to each object that it is about, and not by more.
    assert kinds["deployments", True] <= number
    others = sum(count for (_, own), count in kinds.items() if not own)
    assert kinds["inferencemodels", True] <= others + kinds["deployments", True]
    bed.scenario.note(f"{2 * number} foreign writes, {kinds['inferencemodels', True]} of ours")
    live = bed.api.get("InferenceModel", "tiny")
    assert live is not None
    kinds_of = [entry["type"] for entry in live["status"]["conditions"]]
    assert {"Ready", "Scheduled", "ModelLoaded", "Progressing"} <= set(kinds_of), "no condition is lost"
    bed.invariants_hold()


def good_writes(bed: Bed, since: int) -> list[Any]:
    """Everybody's writes to the namespace that went through."""
    return [
        write
        for write in bed.audit.writes(since, user=None)
        if write["objectRef"].get("namespace") == bed.api.namespace and write["responseStatus"]["code"] < 300
    ]


def test_fault_16_namespace_deleted_during_create(bed: Bed) -> None:
    name = f"{bed.api.namespace}-doomed"
    bed.api.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})
    doomed = bed.api.at(name)
    count = many(20)
    for number in range(count):
        doomed.create(model(f"doomed-{number}", **SMALL))
    # The first have all their children by now, the last have none.
    start = bed.audit.position()
    bed.api.request("DELETE", f"/api/v1/namespaces/{name}")
    bed.wait_until(lambda _: [f"namespace {name} is there"] if exists(bed, name) else [], 60)
    writes = [w for w in bed.audit.writes(start) if w["objectRef"].get("namespace") == name]
    bed.scenario.note(f"{len(writes)} writes for {count} models")
    per_model = Counter(write["objectRef"].get("name", "") for write in writes)
    assert all(written <= 5 for written in per_model.values()), described(writes)
    assert bed.operator.not_ready() == ""
    bed.create()
    bed.converges()
    bed.invariants_hold()


def exists(bed: Bed, namespace: str) -> bool:
    try:
        bed.api.request("GET", f"/api/v1/namespaces/{namespace}")
    except ApiRefusedError:
        return False
    return True
