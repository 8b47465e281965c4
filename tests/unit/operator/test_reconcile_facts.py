"""What a reconcile makes of what pods have said: Events once, and nothing that a restart would take back."""

from typing import Any

from moorage_common.facts import EngineFacts, Health, Phase, Termination
from moorage_common.facts import LoadError as Error
from moorage_common.shape import Shape
from moorage_operator.cluster.cache.cluster_view import ClusterView
from moorage_operator.cluster.cache.store import Store
from moorage_operator.cluster.kinds import NODES
from moorage_operator.reconcile import Reconciler
from moorage_operator.status.observe import pod_state
from tests.unit.operator.support import CONFIG, Object, by_type, live_pod, ticks
from tests.unit.operator.test_nodes import node
from tests.unit.operator.test_reconcile import CHILDREN, TINY, Bed, nobody_is_asked

SHAPE = Shape(architecture="llama", stored_bytes=4 * 1024**3, layers=32, kv_numbers=65_536, vocabulary=32_000)
ON_CPU = Health(Phase.READY, EngineFacts("llama.cpp", device="cpu", quantization="q4_k_m", memory_bytes=5 * 1024**3))
GPU: dict[str, Any] = {"gpu": {"count": 1, "memory": "4Gi"}}


def ready_pod(bed: Bed, name: str = "own") -> Object:
    """A pod of the Deployment as it is."""
    template = bed.kube.objects["Deployment", "tiny"]["spec"]["template"]
    return live_pod(name, ready=True, labels=template["metadata"]["labels"])


def tell(bed: Bed, store: Store, name: str = "own", health: Health | None = ON_CPU) -> None:
    """A ready pod has been asked."""
    store.put("Pod", ready_pod(bed, name))
    store.reports(TINY).put_shape(f"uid-of-{name}", SHAPE)
    store.reports(TINY).put_facts(f"uid-of-{name}", health)


def events(bed: Bed) -> list[tuple[str, str]]:
    """Level and reason of the Events that were written."""
    return sorted((obj["type"], obj["reason"]) for (kind, _), obj in bed.kube.objects.items() if kind == "Event")


async def test_what_is_wrong_with_memory_and_device_is_in_the_status_and_in_an_event_each() -> None:
    bed = Bed(**GPU)
    await bed.reconcile()
    tell(bed, bed.store)
    await bed.reconcile()
    conditions = by_type(bed.status)
    assert (conditions["FitsGPU"]["reason"], conditions["Accelerated"]["reason"]) == (
        "InsufficientGPUMemory",
        "CPUFallback",
    )
    assert bed.status["phase"] == "Running", "neither keeps a model from serving"
    assert events(bed) == [("Warning", "CPUFallback"), ("Warning", "InsufficientGPUMemory")]


async def test_the_events_of_a_pod_are_written_once() -> None:
    bed = Bed(**GPU)
    await bed.reconcile()
    tell(bed, bed.store)
    await bed.reconcile()
    tell(bed, bed.store, "other")
    assert [kind for kind in await bed.reconcile() if kind == "Event"] == ["Event"]
    assert events(bed) == [*[("Warning", "CPUFallback")] * 2, ("Warning", "InsufficientGPUMemory")]
    assert await bed.reconcile() == []


async def test_a_restart_writes_nothing_before_and_after_the_pods_have_been_asked_again() -> None:
    bed = Bed(**GPU)
    await bed.reconcile()
    tell(bed, bed.store)
    await bed.reconcile()
    said = bed.status
    view = ClusterView()
    for kind in CHILDREN:
        view.store.put(kind, bed.kube.objects[kind, "tiny"])
    view.store.put("Pod", ready_pod(bed))
    restarted = Reconciler(bed.kube, view, CONFIG, ask=nobody_is_asked, clock=ticks())
    before = len(bed.kube.writes)
    await restarted.reconcile(TINY)
    assert bed.kube.writes[before:] == []
    tell(bed, view.store)
    await restarted.reconcile(TINY)
    assert bed.kube.writes[before:] == []
    tell(bed, view.store, health=None)
    await restarted.reconcile(TINY)
    assert bed.status["conditions"] != said["conditions"], "a pod that does not tell any more is another matter"


async def test_a_label_of_a_node_decides_whether_models_fit() -> None:
    bed = Bed(gpu={"count": 1})
    bed.view = ClusterView(sees_nodes=True)
    bed.store = bed.view.store
    bed.reconciler = Reconciler(bed.kube, bed.view, CONFIG, ask=nobody_is_asked, clock=ticks())
    await bed.reconcile()
    tell(bed, bed.store)
    await bed.reconcile()
    assert "FitsGPU" not in by_type(bed.status)
    assert list(bed.view.event(NODES, "ADDED", node("n", 8, "2048"))) == [TINY]
    await bed.reconcile()
    assert by_type(bed.status)["FitsGPU"]["status"] == "False"
    assert list(bed.view.event(NODES, "MODIFIED", node("n", 8, "81559"))) == [TINY]
    await bed.reconcile()
    assert by_type(bed.status)["FitsGPU"]["status"] == "True"


def failed(message: str) -> Object:
    """A pod whose container has ended with a termination message."""
    return live_pod(container={"state": {"terminated": {"exitCode": 1, "message": message}}})


def test_a_load_that_fails_at_once_leaves_the_shape_in_its_last_words() -> None:
    told = Termination(Error.OUT_OF_MEMORY, "too large", SHAPE).encode().decode()
    assert pod_state(failed(told)).shape == SHAPE
    again = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"message": told}}}
    assert pod_state(live_pod(container=again)).shape == SHAPE


def test_last_words_without_a_shape_or_with_a_forged_one_leave_none() -> None:
    assert pod_state(failed(Termination(Error.OUT_OF_MEMORY, "too large").encode().decode())).shape is None
    assert pod_state(failed("Killed")).shape is None
    forged = '{"reason":"OutOfMemory","message":"","shape":{"architecture":"x","storedBytes":-1}}'
    assert pod_state(failed(forged)).shape is None
