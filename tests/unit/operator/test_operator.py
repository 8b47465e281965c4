"""How the parts of the operator work together: events, workers, lists, and what happens when one of them fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes.aio.dynamic import Resource

from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.scope import CHILDREN
from moorage_operator.cluster.errors import ConflictError, ForbiddenError, ThrottledError, UnavailableError
from moorage_operator.cluster.kinds import DEPLOYMENTS, EVENTS, INFERENCE_MODELS, NODES, PODS, SERVICES
from moorage_operator.cluster.lease import Elector
from moorage_operator.operator import Operator
from moorage_operator.settings import Settings
from moorage_operator.status.observe import QueuePosition
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import Object, by_type, live_deployment, live_model, live_pod
from tests.unit.operator.test_cluster_view import GPU, starved
from tests.unit.operator.virtual_time import in_virtual_time, settle


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the operator."""
    monkeypatch.setenv("MOORAGE_IMAGES", json.dumps({"llamacpp/cpu": "runtime:1"}))
    monkeypatch.setenv("MOORAGE_FACTS", "false")
    monkeypatch.setenv("MOORAGE_WORKERS", "2")


class Bed:
    """An operator without kopf: a test says what its watches would."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        self.operator = Operator(Settings(), kube)

    async def list(self, *resources: Resource) -> None:
        """All kinds, or these, are listed."""
        for watched in self.operator.scope.watched():
            if not resources or watched[0] in resources:
                self.operator.recovered(watched)
        await settle()

    def refuse(self, *resources: Resource) -> None:
        """The API server does not let the operator watch these any more."""
        for resource in resources:
            if self.operator.watches.refused((resource, None), "403: forbidden"):
                self.operator.lost((resource, None))

    async def allow(self, *resources: Resource) -> None:
        """It does again, and the watches go on."""
        for resource in resources:
            if self.operator.watches.answered((resource, None)):
                self.operator.recovered((resource, None))
        await settle()

    def add(self, name: str, kind: str = "ADDED", **fields: Any) -> Object:
        """A model is there; the watch tells."""
        live = self.kube.put("InferenceModel", live_model(name, uid=f"uid-of-{name}", **fields))
        self.operator.event(INFERENCE_MODELS, kind, live)
        return live

    def status(self, name: str) -> Object | None:
        """The status of a model."""
        found: Object | None = self.kube.objects["InferenceModel", name].get("status")
        return found


@asynccontextmanager
async def running(*, synced: bool = True, kube: FakeKube | None = None) -> AsyncIterator[Bed]:
    """The jobs of an operator, all but the watches; with what another one has left in `kube`."""
    bed = Bed(kube or FakeKube())
    bed.operator.jobs = [asyncio.create_task(job) for job in bed.operator._jobs()]
    if synced:
        await bed.list()
    await settle()
    try:
        yield bed
        assert bed.operator.ended_jobs() == []
    finally:
        await bed.operator.stop(release=False)


def children(kube: FakeKube) -> list[tuple[str, str]]:
    """What the operator has made."""
    return sorted(target for target in kube.objects if target[0] in ("Deployment", "Service"))


@in_virtual_time
async def test_a_new_model_gets_its_children() -> None:
    async with running() as bed:
        bed.add("one")
        await settle()
        assert children(bed.kube) == [("Deployment", "one"), ("Service", "one")]
        assert bed.status("one") is not None


@in_virtual_time
async def test_nothing_is_written_before_every_kind_was_listed() -> None:
    async with running(synced=False) as bed:
        bed.add("one")
        await bed.list(*(resource for resource, _ in bed.operator.scope.watched() if resource is not PODS))
        assert "not every kind has been listed yet" in bed.operator.health.not_ready()
        assert children(bed.kube) == []
        await bed.list(PODS)
        assert "not every kind has been listed yet" not in bed.operator.health.not_ready()
        assert len(children(bed.kube)) == 2


@in_virtual_time
async def test_a_list_that_fails_is_tried_again_and_nothing_is_written_meanwhile() -> None:
    async with running(synced=False) as bed:
        bed.kube.refusals["list", "Pod"] = UnavailableError("503")
        bed.add("one")
        await bed.list()
        await asyncio.sleep(10)
        assert children(bed.kube) == []
        bed.kube.refusals.clear()
        await asyncio.sleep(40)
        assert len(children(bed.kube)) == 2


@in_virtual_time
async def test_cluster_01_what_may_not_be_watched_is_not_waited_for() -> None:
    async with running(synced=False) as bed:
        bed.refuse(EVENTS, NODES)
        await bed.list(INFERENCE_MODELS, *CHILDREN)
        bed.add("one")
        await settle()
        assert len(children(bed.kube)) == 2


@in_virtual_time
async def test_cluster_01_models_are_left_alone_while_their_pods_may_not_be_watched() -> None:
    async with running() as bed:
        bed.add("one")
        await asyncio.sleep(1)
        bed.refuse(PODS)
        del bed.kube.objects["Service", "one"]
        bed.kube.objects["InferenceModel", "one"]["metadata"]["resourceVersion"] = "900"
        bed.operator.event(INFERENCE_MODELS, "MODIFIED", bed.kube.objects["InferenceModel", "one"])
        await bed.list(SERVICES)
        await asyncio.sleep(30)
        assert ("Service", "one") not in children(bed.kube)
        await bed.allow(PODS)
        await asyncio.sleep(1)
        assert ("Service", "one") in children(bed.kube)


@in_virtual_time
async def test_cluster_01_models_of_a_lost_namespace_are_not_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_WATCH_NAMESPACES", "team-a,team-b")
    async with running() as bed:
        for namespace in ("team-a", "team-b"):
            deployment, pod = live_deployment("one", uid=f"d-{namespace}"), starved("one-abc-1", "one")
            pod["metadata"]["uid"] = f"p-{namespace}"
            for resource, obj in ((DEPLOYMENTS, deployment), (PODS, pod)):
                bed.operator.event(resource, None, {**obj, "metadata": {**obj["metadata"], "namespace": namespace}})
        bed.operator._begin()
        queue = bed.operator._view.queue
        assert queue.position(Key("team-a", "one")) == QueuePosition(1, 2, f"1 {GPU}")
        bed.operator.watches.refused((PODS, "team-b"), "403: forbidden")
        bed.operator.lost((PODS, "team-b"))
        for _ in range(2):
            assert queue.position(Key("team-a", "one")) == QueuePosition(1, 1, f"1 {GPU}")
            bed.operator._begin()  # as when the Lease was lost and taken again


@in_virtual_time
async def test_cluster_01_a_refusal_to_write_there_is_no_reason_not_to_be_ready() -> None:
    async with running() as bed:
        bed.kube.refusals["get", "InferenceModel"] = ForbiddenError(403, "Forbidden", "no RoleBinding any more")
        bed.add("one")
        await settle()
        assert bed.operator.writes.refusal is None
        bed.kube.refusals["get", "InferenceModel"] = UnavailableError("503")
        await asyncio.sleep(20)
        assert bed.operator.writes.refusal
        bed.refuse(PODS)
        assert bed.operator.writes.refusal is None


@in_virtual_time
async def test_cluster_01_a_refusal_while_the_namespace_is_being_lost_does_not_last() -> None:
    async with running() as bed:
        bed.kube.refusals["apply", "Deployment"] = UnavailableError("503")
        bed.add("one")
        await asyncio.sleep(1)
        bed.refuse(PODS)
        bed.operator.writes.refused(Key("team-a", "one"), UnavailableError("503"))  # it was on its way
        await asyncio.sleep(40)
        assert bed.operator.writes.refusal is None


@in_virtual_time
async def test_a_replica_that_does_not_lead_any_more_is_not_kept_from_being_ready_by_what_it_could_not_write() -> None:
    async with running() as bed:
        bed.kube.refusals["apply", "Deployment"] = UnavailableError("503")
        bed.add("one")
        await asyncio.sleep(1)
        assert bed.operator.writes.refusal
        lease = bed.kube.objects["Lease", "moorage-operator"]["spec"]
        lease |= {"holderIdentity": "another", "leaseTransitions": 1}
        await asyncio.sleep(60)
        assert not bed.operator.elector.leading
        assert bed.operator.writes.refusal is None


@in_virtual_time
async def test_the_echo_of_our_own_status_reads_nothing() -> None:
    async with running() as bed:
        bed.add("one")
        await settle()
        reads = len(bed.kube.reads)
        bed.operator.event(INFERENCE_MODELS, "MODIFIED", bed.kube.objects["InferenceModel", "one"])
        await settle()
        assert len(bed.kube.reads) == reads


@in_virtual_time
async def test_a_pods_news_changes_the_status() -> None:
    async with running() as bed:
        bed.add("one")
        await asyncio.sleep(1)
        pod = live_pod("one-1", model_name="one", model_uid="uid-of-one", ready=True)
        bed.operator.event(PODS, "ADDED", pod)
        await settle()
        status = bed.status("one") or {}
        assert status["phase"] == "Running"
        assert "configured not to query" in by_type(status)["ModelLoaded"]["message"]
        bed.operator.event(PODS, "DELETED", {**pod, "metadata": {**pod["metadata"], "resourceVersion": "2"}})
        await asyncio.sleep(1)
        assert (bed.status("one") or {})["phase"] == "Starting"


@in_virtual_time
async def test_what_went_away_unseen_is_found_by_a_list() -> None:
    async with running() as bed:
        bed.add("one")
        await asyncio.sleep(1)
        del bed.kube.objects["Service", "one"]
        await bed.list(SERVICES)
        await asyncio.sleep(1)
        assert ("Service", "one") in children(bed.kube)


@in_virtual_time
async def test_a_model_that_went_away_unseen_is_forgotten_after_a_list() -> None:
    async with running() as bed:
        bed.add("one")
        await asyncio.sleep(1)
        for target in [("InferenceModel", "one"), *children(bed.kube)]:
            del bed.kube.objects[target]
        await bed.list(INFERENCE_MODELS)
        await asyncio.sleep(1)
        writes = len(bed.kube.writes)
        await bed.list()
        await asyncio.sleep(60)
        assert len(bed.kube.writes) - writes == len([w for w in bed.kube.writes[writes:] if w["kind"] == "Lease"])


@pytest.mark.parametrize("has_led", [False, True])
@in_virtual_time
async def test_a_standby_forgets_what_is_deleted(has_led: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as bed:
        if has_led:
            await asyncio.sleep(1)
        monkeypatch.setattr(Elector, "valid", False)
        monkeypatch.setattr(Elector, "held_by_other", True)
        monkeypatch.setattr(bed.operator.elector, "leading", False)
        if not has_led:
            bed.operator._working.clear()
        for number in range(20):
            model = bed.add(f"model-{number}")
            child = live_deployment(f"model-{number}", uid=f"child-{number}", owner_uid=model["metadata"]["uid"])
            bed.operator.event(DEPLOYMENTS, "ADDED", child)
            await asyncio.sleep(1)
            bed.operator.event(INFERENCE_MODELS, "DELETED", bed.kube.objects.pop(("InferenceModel", f"model-{number}")))
            bed.operator.event(DEPLOYMENTS, "DELETED", child)
        await asyncio.sleep(700)
        assert (len(bed.operator._models), bed.operator._store.models()) == (0, [])
        assert not bed.operator._models._timers


@pytest.mark.parametrize(
    "error", [ConflictError(409, "Conflict", "changed"), UnavailableError("503"), RuntimeError("a bug")]
)
@in_virtual_time
async def test_a_reconcile_that_fails_is_tried_again_and_stops_no_other(error: Exception) -> None:
    async with running() as bed:
        bed.kube.refusals["apply", "Deployment"] = error
        bed.add("one")
        bed.add("without-image", gpu={"count": 1})
        await settle()
        assert bed.status("one") is None
        assert bed.status("without-image") is not None
        bed.kube.refusals.clear()
        await asyncio.sleep(1)
        assert ("Deployment", "one") in children(bed.kube)


@pytest.mark.parametrize(
    ("error", "refused"), [(ConflictError(409, "Conflict", "changed"), False), (UnavailableError("503"), True)]
)
@in_virtual_time
async def test_the_operator_is_not_ready_while_writes_do_not_get_through(error: Exception, refused: bool) -> None:
    async with running() as bed:
        bed.kube.refusals["apply", "Deployment"] = error
        bed.add("one")
        await settle()
        assert (bed.operator.writes.refusal is not None) == refused
        bed.kube.refusals.clear()
        await asyncio.sleep(1)
        assert bed.operator.writes.refusal is None


@in_virtual_time
async def test_a_bug_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as bed:
        bed.kube.refusals["get", "InferenceModel"] = RuntimeError("a bug")
        bed.add("one")
        await settle()
        assert "RuntimeError: a bug" in caplog.text


@pytest.mark.parametrize(
    "error", [ThrottledError("TooManyRequests", "later", 20), UnavailableError("503: shutting down", 20)]
)
@in_virtual_time
async def test_fault_09_an_api_server_that_asks_to_wait_is_obeyed_whatever_happens(error: Exception) -> None:
    async with running() as bed:
        bed.kube.refusals["apply", "Service"] = error
        bed.add("one")
        await settle()
        reads = count(bed.kube, "InferenceModel")
        bed.kube.refusals.clear()
        for edit in range(19):
            await asyncio.sleep(1)
            bed.add("one", "MODIFIED", maxConcurrency=1 + edit)
        await settle()
        assert count(bed.kube, "InferenceModel") == reads
        await asyncio.sleep(2)
        assert ("Deployment", "one") in children(bed.kube)


def count(kube: FakeKube, kind: str) -> int:
    """How often an object of a kind was read, other than by a list."""
    return len([target for target in kube.reads if target[0] == kind and target[1]])


@in_virtual_time
async def test_a_blocked_model_is_looked_at_again_without_an_event() -> None:
    async with running() as bed:
        metadata = {"name": "one", "namespace": "team-a", "uid": "theirs", "resourceVersion": "7"}
        bed.kube.put("Service", {"metadata": metadata, "spec": {}})
        bed.add("one")
        await settle()
        assert (bed.status("one") or {})["phase"] == "Failed"
        del bed.kube.objects["Service", "one"]
        await asyncio.sleep(11)
        assert (bed.status("one") or {})["phase"] == "Starting"


@in_virtual_time
async def test_without_the_lease_nothing_is_read_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as bed:
        monkeypatch.setattr(type(bed.operator.elector), "remaining", 0.0)
        bed.add("one")
        await settle()
        assert count(bed.kube, "InferenceModel") == 0
        monkeypatch.undo()
        await asyncio.sleep(2)
        assert len(children(bed.kube)) == 2


@in_virtual_time
async def test_everything_is_looked_at_again_every_ten_minutes() -> None:
    async with running() as bed:
        bed.add("one")
        await settle()
        bed.kube.objects["Deployment", "one"]["spec"]["replicas"] = 9
        bed.kube.objects["Deployment", "one"]["metadata"]["resourceVersion"] = "5000"
        await asyncio.sleep(1000)
        assert bed.kube.objects["Deployment", "one"]["spec"]["replicas"] == 1
