"""What whoever may make pods can say to the operator: it is not believed, and never stops it."""

from typing import Any

import pytest
from aiohttp import ClientSession, web

from moorage_common.facts import Termination
from moorage_operator.api.conditions import Reason
from moorage_operator.api.key import Key
from moorage_operator.cluster import facts
from moorage_operator.cluster.cache.store import Store
from moorage_operator.status.observe import pod_state
from tests.unit.operator.support import NAMESPACE, live_pod, summary
from tests.unit.operator.test_reconcile import Bed

HOSTILE_ANSWERS = [
    b'{"status":"ready","facts":{"engine":"\xff\xfe"}}',
    b'{"x":' + b"[" * 60_000,
    b"[" * 65_536,
    b"\xff" * 100,
    b"null",
    b'{"status":"elsewhere"}',
    b'{"status":"ready","facts":{"engine":1}}',
    b"",
]


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS, ids=range(len(HOSTILE_ANSWERS)))
async def test_an_answer_that_is_none_of_ours_is_no_facts(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    async def detailed(_request: web.Request) -> web.Response:
        return web.Response(body=answer)

    app = web.Application()
    app.router.add_get("/health/detailed", detailed)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    monkeypatch.setattr(facts, "RUNTIME_PORT", unused_tcp_port)
    try:
        async with ClientSession() as session:
            assert await facts._detailed_health(session, "127.0.0.1") is None
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("text", ['{"x":' + "[" * 4000, "\udcff", '{"reason":"Nonsense","message":"x"}', "", "null"])
def test_a_termination_message_that_is_none_of_ours_is_no_reason(text: str) -> None:
    assert Termination.decode(text) is None


def test_a_container_that_cannot_be_created_says_why() -> None:
    ended = {"exitCode": 128, "reason": "StartError", "message": "unable to set memory limit to 1"}
    problem = pod_state(live_pod(container={"state": {"terminated": ended}})).problem
    assert problem is not None
    assert problem.reason is Reason.CONTAINER_CONFIG_INVALID
    assert "unable to set memory limit to 1" in problem.message


async def test_a_pod_whose_replica_set_is_not_ours_does_not_count() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.kube.put("ReplicaSet", _replica_set("theirs", "rs-of-theirs", "uid-of-their-deployment"))
    forged = {"kind": "ReplicaSet", "name": "theirs", "uid": "rs-of-theirs", "controller": True}
    bed.store.put("Pod", live_pod("forged", ready=True, ownerReferences=[forged]))
    assert await bed.reconcile() == []
    assert summary(bed.status)["Ready"] == "False Starting"


async def test_a_replica_set_is_looked_up_once() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.store.put("Pod", live_pod(ready=True))
    await bed.reconcile()
    assert summary(bed.status)["Ready"] == "True Serving"
    await bed.reconcile()
    assert [kind for kind, _ in bed.kube.reads].count("ReplicaSet") == 1


async def test_a_replica_set_of_another_kind_with_our_deployments_uid_does_not_count() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.kube.put("ReplicaSet", _replica_set("theirs", "rs-of-theirs", "uid-of-Deployment-tiny", kind="Rollout"))
    forged = {"kind": "ReplicaSet", "name": "theirs", "uid": "rs-of-theirs", "controller": True}
    bed.store.put("Pod", live_pod("forged", ready=True, ownerReferences=[forged]))
    assert await bed.reconcile() == []


async def test_a_replica_set_that_a_new_deployment_has_adopted_counts_for_it() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.store.put("Pod", live_pod(ready=True))
    await bed.reconcile()
    again = bed.kube.objects["Deployment", "tiny"]
    again["metadata"] |= {"uid": "uid-of-the-new-deployment", "resourceVersion": "5000"}
    bed.store.put("Deployment", again)
    await bed.reconcile()
    assert summary(bed.status)["Ready"] == "True Serving"


def test_whom_a_replica_set_belongs_to_is_kept_as_long_as_it_has_pods() -> None:
    store, key = Store(), Key(NAMESPACE, "tiny")
    store.put("Pod", live_pod())
    store.note_replica_set(key, "rs", "deployment")
    store.note_replica_set(key, "earlier", "deployment")
    store.note_replica_set(key, "later", "deployment")
    assert store.owner_of_replica_set(key, "rs") == "deployment"
    assert store.owner_of_replica_set(key, "earlier") is None


def _replica_set(name: str, uid: str, owner_uid: str, kind: str = "Deployment") -> dict[str, Any]:
    owner = {"kind": kind, "name": name, "uid": owner_uid, "controller": True}
    return {"metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "ownerReferences": [owner]}}


async def test_pods_with_forged_owners_cost_a_few_reads_only() -> None:
    bed = Bed()
    await bed.reconcile()
    for number in range(500):
        owner = {"kind": "ReplicaSet", "name": f"forged-{number}", "uid": f"rs-{number}", "controller": True}
        bed.store.put("Pod", live_pod(f"forged-{number}", ownerReferences=[owner]))
    bed.store.put("Pod", live_pod("own", ready=True, creationTimestamp="2026-01-03T00:00:00Z"))
    before = len(bed.kube.reads)
    await bed.reconcile()
    assert bed.status["readyReplicas"] == 1
    assert len(bed.kube.reads) - before < 40
