"""One reconcile: what it writes, what it leaves alone, and what it says where it cannot write."""

from typing import Any

import pytest

from moorage_common.facts import Health, Phase
from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.cluster_view import ClusterView
from moorage_operator.cluster.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from moorage_operator.desired.config import DesiredConfig
from moorage_operator.reconcile import BLOCKED_SECONDS, Reconciler
from moorage_operator.status.observe import PodState
from tests.unit.operator.fake_kube import FakeKube, invalid
from tests.unit.operator.support import (
    CONFIG,
    MODEL_UID,
    NAMESPACE,
    by_type,
    live_deployment,
    live_model,
    live_pod,
    summary,
    ticks,
)

TINY = Key(NAMESPACE, "tiny")
CHILDREN = ["Service", "Deployment", "PodDisruptionBudget"]


def nobody_is_asked(_key: Key, _pods: tuple[PodState, ...]) -> None:
    """Stands for a prober: what pods have said is put into the store by a test itself."""


class Bed:
    """A reconciler with its store, on an API server that has one model."""

    def __init__(self, *, config: DesiredConfig = CONFIG, facts: bool = True, **spec: Any) -> None:
        self.kube, self.view = FakeKube(), ClusterView()
        self.store = self.view.store
        self.kube.put("InferenceModel", live_model(**spec))
        self.reconciler = Reconciler(
            self.kube, self.view, config, ask=nobody_is_asked if facts else None, clock=ticks()
        )

    async def reconcile(self) -> list[str]:
        """Reconcile once; what was written."""
        before = len(self.kube.written())
        self.again = await self.reconciler.reconcile(TINY)
        return self.kube.written()[before:]

    @property
    def status(self) -> dict[str, Any]:
        """The status that the model has now."""
        found: dict[str, Any] = self.kube.objects["InferenceModel", "tiny"]["status"]
        return found

    def change(self, kind: str = "InferenceModel", **spec: Any) -> None:
        """Somebody edits a spec; the watch tells the store."""
        live = self.kube.objects[kind, "tiny"]
        live["spec"] |= spec
        live["metadata"]["resourceVersion"] = str(int(live["metadata"]["resourceVersion"]) + 1000)
        self.store.put(kind, live)

    def stranger(self, kind: str) -> dict[str, Any]:
        """An object of somebody else that has the model's name and none of our labels."""
        metadata = {"name": "tiny", "namespace": NAMESPACE, "uid": "theirs", "resourceVersion": "7"}
        return self.kube.put(kind, {"metadata": metadata, "spec": {"theirs": True}})


async def test_a_new_model_gets_service_deployment_and_status() -> None:
    bed = Bed()
    assert await bed.reconcile() == [*CHILDREN, "status"]
    assert bed.again is None
    assert summary(bed.status)["phase"] == "Starting"


async def test_a_second_reconcile_writes_nothing() -> None:
    bed = Bed()
    await bed.reconcile()
    assert await bed.reconcile() == []


async def test_after_a_restart_nothing_is_written() -> None:
    bed = Bed()
    await bed.reconcile()
    view = ClusterView()
    for kind in CHILDREN:
        view.store.put(kind, bed.kube.objects[kind, "tiny"])
    restarted = Reconciler(bed.kube, view, CONFIG, ask=nobody_is_asked, clock=ticks())
    before = len(bed.kube.writes)
    await restarted.reconcile(TINY)
    assert bed.kube.writes[before:] == []


async def test_only_what_the_change_concerns_is_written() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change(maxConcurrency=9)
    assert await bed.reconcile() == ["Deployment"]
    bed.change(servedName="qwen")
    assert await bed.reconcile() == ["Deployment", "status"]


async def test_an_edited_child_is_mended_and_what_others_added_stays() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change("Deployment", replicas=5, paused=True)
    assert await bed.reconcile() == ["Deployment"]
    spec = bed.kube.objects["Deployment", "tiny"]["spec"]
    assert (spec["replicas"], spec["paused"]) == (1, True)


async def test_what_others_add_alone_is_no_reason_to_write() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change("Deployment", progressDeadlineSeconds=600)
    assert await bed.reconcile() == []


async def test_a_deleted_child_is_made_again() -> None:
    bed = Bed()
    await bed.reconcile()
    gone = bed.kube.objects.pop(("Service", "tiny"))
    bed.store.remove("Service", gone)
    assert await bed.reconcile() == ["Service"]


async def test_a_new_child_is_not_forced_and_can_only_be_created() -> None:
    bed = Bed()
    await bed.reconcile()
    assert bed.kube.forced == [False, False, False, True]
    assert [write["metadata"]["resourceVersion"] for write in bed.kube.writes[:3]] == ["1", "1", "1"]
    assert all("uid" not in write["metadata"] for write in bed.kube.writes[:3])


async def test_a_write_to_a_known_object_can_only_land_on_that_object() -> None:
    bed = Bed()
    await bed.reconcile()
    assert bed.kube.writes[3]["metadata"]["uid"] == MODEL_UID
    bed.change(maxConcurrency=9)
    await bed.reconcile()
    assert bed.kube.writes[4]["metadata"]["uid"] == "uid-of-Deployment-tiny"
    assert "resourceVersion" not in bed.kube.writes[4]["metadata"]
    assert bed.kube.forced[4]


@pytest.mark.parametrize("error", [ConflictError(409, "Conflict", "uid"), NotFoundError(404, "NotFound", "gone")])
async def test_a_known_child_that_is_another_by_now_is_looked_at_again(error: Exception) -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change(maxConcurrency=9)
    bed.kube.refusals["apply", "Deployment"] = error
    with pytest.raises(type(error)):
        await bed.reconcile()
    assert bed.store.child(TINY, "Deployment") is None
    del bed.kube.refusals["apply", "Deployment"]
    del bed.kube.objects["Deployment", "tiny"]
    assert await bed.reconcile() == ["Deployment"]


@pytest.mark.parametrize(
    ("kind", "written"), [("Service", ["Event", "status"]), ("Deployment", ["Service", "Event", "status"])]
)
async def test_a_stranger_with_the_models_name_is_not_touched(kind: str, written: list[str]) -> None:
    bed = Bed()
    theirs = dict(bed.stranger(kind))
    assert await bed.reconcile() == written
    assert bed.kube.objects[kind, "tiny"] == theirs
    ready = by_type(bed.status)["Ready"]
    assert (ready["reason"], bed.status["phase"]) == ("NameConflict", "Failed")
    assert f"{kind} tiny already exists in namespace team-a" in ready["message"]


async def test_a_stranger_is_looked_at_before_anything_is_written_the_next_time() -> None:
    bed = Bed()
    bed.stranger("Service")
    await bed.reconcile()
    assert bed.again == BLOCKED_SECONDS
    bed.kube.refusals["apply", "Service"] = invalid("must not be tried")
    assert await bed.reconcile() == []
    assert by_type(bed.status)["Ready"]["reason"] == "NameConflict"


async def test_once_the_stranger_is_gone_the_model_starts() -> None:
    bed = Bed()
    bed.stranger("Deployment")
    await bed.reconcile()
    del bed.kube.objects["Deployment", "tiny"]
    assert await bed.reconcile() == [*CHILDREN[1:], "status"]
    assert by_type(bed.status)["Ready"]["reason"] == "Starting"


@pytest.mark.parametrize("owner_uid", ["another", None])
async def test_a_labelled_object_of_another_owner_is_not_touched(owner_uid: str | None) -> None:
    bed = Bed()
    theirs = live_deployment(owner_uid=owner_uid, version=7)
    if owner_uid:
        theirs["metadata"]["ownerReferences"][0]["kind"] = "Application"
    bed.store.put("Deployment", bed.kube.put("Deployment", theirs))
    assert await bed.reconcile() == ["Service", "Event", "status"]
    assert by_type(bed.status)["Ready"]["reason"] == "NameConflict"


@pytest.mark.parametrize("owners", [[], [{"kind": "InferenceModel", "name": "tiny", "uid": MODEL_UID}]])
async def test_fault_13_a_child_that_has_lost_its_owner_gets_it_back(owners: list[Any]) -> None:
    bed = Bed()
    await bed.reconcile()
    bed.kube.objects["Deployment", "tiny"]["metadata"]["ownerReferences"] = owners
    bed.change("Deployment")
    assert await bed.reconcile() == ["Deployment"]
    (owner,) = bed.kube.objects["Deployment", "tiny"]["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (MODEL_UID, True)


async def test_a_copy_of_another_models_child_is_a_strangers() -> None:
    bed = Bed()
    await bed.reconcile()
    copy = bed.kube.objects.pop(("Deployment", "tiny"))
    del copy["metadata"]["ownerReferences"]
    bed.kube.objects["InferenceModel", "tiny"]["metadata"]["uid"] = "uid-of-the-next"
    bed.store.put("Deployment", bed.kube.put("Deployment", copy))
    await bed.reconcile()
    assert by_type(bed.status)["Ready"]["reason"] == "NameConflict"


async def test_what_an_earlier_model_of_that_name_has_left_is_taken_over() -> None:
    bed = Bed()
    left = live_deployment(owner_uid="uid-of-the-earlier", version=7)
    bed.store.put("Deployment", bed.kube.put("Deployment", left))
    assert await bed.reconcile() == [*CHILDREN, "status"]
    assert bed.kube.writes[1]["metadata"]["uid"] == left["metadata"]["uid"]
    owners = bed.kube.objects["Deployment", "tiny"]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [MODEL_UID]


async def test_what_is_being_deleted_is_waited_for() -> None:
    bed = Bed()
    left = live_deployment(owner_uid="uid-of-the-earlier", version=7)
    left["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    bed.store.put("Deployment", bed.kube.put("Deployment", left))
    with pytest.raises(ConflictError, match="is being deleted"):
        await bed.reconcile()
    assert bed.kube.written() == ["Service"]


async def test_a_child_of_ours_that_the_store_has_missed_is_taken_in() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change(maxConcurrency=9)
    bed.store.forget(TINY)
    before = len(bed.kube.writes)
    with pytest.raises(ConflictError):
        await bed.reconcile()
    assert bed.store.child(TINY, "Service") is not None
    with pytest.raises(ConflictError):
        await bed.reconcile()
    with pytest.raises(ConflictError):
        await bed.reconcile()
    assert bed.kube.written()[before:] == ["Deployment"]
    assert await bed.reconcile() == []


@pytest.mark.parametrize("error", [invalid("spec.x: bad"), ForbiddenError(403, "Forbidden", "exceeded quota: small")])
async def test_a_child_that_the_api_server_refuses_is_told_with_its_words(error: Any) -> None:
    bed = Bed()
    bed.kube.refusals["apply", "Deployment"] = error
    assert await bed.reconcile() == ["Service", "Event", "status"]
    ready = by_type(bed.status)["Ready"]
    assert ready["reason"] == "PodsRefused"
    assert f"refused the Deployment: {error.message}" in ready["message"]
    assert bed.again == BLOCKED_SECONDS
    bed.kube.refusals.clear()
    assert await bed.reconcile() == [*CHILDREN[1:], "status"]
    assert bed.again is None


async def test_no_image_for_the_device_is_told_with_what_there_is() -> None:
    bed = Bed(config=DesiredConfig({"llamacpp/cpu": "runtime:1"}), gpu={"count": 1})
    assert await bed.reconcile() == ["Event", "status"]
    ready = by_type(bed.status)["Ready"]
    assert ready["reason"] == "NoImageForDevice"
    assert "llamacpp/gpu" in ready["message"]
    assert "llamacpp/cpu" in ready["message"]
    assert bed.again == BLOCKED_SECONDS


async def test_what_blocks_a_model_does_not_keep_it_from_being_stopped() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change(framework="vllm", suspend=True)
    assert "Deployment" in await bed.reconcile()
    spec = bed.kube.objects["Deployment", "tiny"]["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (0, "runtime:1")
    found = by_type(bed.status)
    assert (found["Ready"]["reason"], found["Progressing"]["reason"]) == ("Stopped", "NoImageForDevice")
    assert await bed.reconcile() == []


async def test_a_stranger_with_one_name_does_not_keep_the_pods_of_a_stopped_model() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.store.remove("Service", bed.kube.objects["Service", "tiny"])
    bed.stranger("Service")
    bed.change(suspend=True)
    assert "Deployment" in await bed.reconcile()
    assert bed.kube.objects["Deployment", "tiny"]["spec"]["replicas"] == 0
    assert by_type(bed.status)["Progressing"]["reason"] == "NameConflict"
    assert await bed.reconcile() == []


async def test_a_model_that_is_gone_is_forgotten_and_nothing_is_written() -> None:
    bed = Bed()
    await bed.reconcile()
    del bed.kube.objects["InferenceModel", "tiny"]
    assert await bed.reconcile() == []
    assert bed.again is None
    assert bed.store.models() == []


async def test_a_model_that_is_being_deleted_gets_no_children_and_tells_the_truth() -> None:
    """Somebody's finalizer may keep it for as long as they like."""
    bed = Bed(gpu={"count": 1})
    await bed.reconcile()
    bed.kube.objects["InferenceModel", "tiny"]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    del bed.kube.objects["Deployment", "tiny"]
    bed.store.forget_child(TINY, "Deployment")
    assert await bed.reconcile() == ["status"]
    assert (bed.status["phase"], by_type(bed.status)["Ready"]["message"]) == ("Stopped", "The model is being deleted")
    assert bed.view.queue.keys() == []
    assert await bed.reconcile() == []


async def test_a_stored_spec_that_cannot_be_read_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed(framework="retired")
    assert await bed.reconcile() == []
    assert "cannot be read" in caplog.text


async def test_an_api_server_that_is_away_is_the_callers_to_handle() -> None:
    bed = Bed()
    bed.kube.refusals["apply", "Service"] = UnavailableError("500")
    with pytest.raises(UnavailableError):
        await bed.reconcile()
    assert bed.kube.written() == []


async def test_the_status_tells_of_the_models_own_pods_only() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.store.put("Pod", live_pod("earlier", model_uid="another", ready=True))
    assert await bed.reconcile() == []
    bed.store.put("Pod", live_pod("own", ready=True))
    assert await bed.reconcile() == ["status"]
    assert (bed.status["phase"], bed.status["readyReplicas"]) == ("Running", 1)


@pytest.mark.parametrize(("facts", "loaded"), [(True, "True Loaded"), (False, "Unknown FactsUnavailable")])
async def test_facts_are_told_unless_they_are_switched_off(facts: bool, loaded: str) -> None:
    bed = Bed(facts=facts)
    bed.store.put("Pod", live_pod("own", ready=True))
    bed.store.reports(TINY).put_facts("uid-of-own", Health(Phase.READY))
    await bed.reconcile()
    assert summary(bed.status)["ModelLoaded"] == loaded


async def test_the_event_of_our_own_status_is_known_as_an_echo() -> None:
    bed = Bed()
    await bed.reconcile()
    version = bed.kube.objects["InferenceModel", "tiny"]["metadata"]["resourceVersion"]
    assert not bed.store.note_model(TINY, MODEL_UID, version)
