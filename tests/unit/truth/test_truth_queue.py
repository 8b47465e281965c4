"""Queue positions: by priority, then by age, among models that wait for the same resource."""

import pytest

from tests.truth.objects import Object, name_of, uid
from tests.truth.pods import lacks
from tests.truth.queue import queue_positions
from tests.unit.truth.scene import GPU, NO_GPU, Scene, says_it_waits


@pytest.fixture
def scene() -> Scene:
    return Scene()


def position_texts(scene: Scene) -> dict[str, str]:
    """The positions of all models that wait, by name."""
    positions = queue_positions(scene.world(), scene.world().most)
    return {name_of(model).partition("/")[2]: str(positions.get(uid(model))) for model in scene.found["InferenceModel"]}


def test_the_queue_is_by_priority_then_by_age_and_by_resource(scene: Scene) -> None:
    scene.waiting("old", second=1)
    scene.waiting("young", second=2)
    scene.waiting("important", second=3, priority=8)
    cpu = scene.model("cpu")
    scene.pod(cpu, words="0/1 nodes are available: 1 Insufficient cpu.")
    assert position_texts(scene) == {
        "old": f"position 2 of 3, for 2 {GPU}",
        "young": f"position 3 of 3, for 2 {GPU}",
        "important": f"position 1 of 3, for 2 {GPU}",
        "cpu": "position 1 of 1, for 1 cpu",
    }


def test_those_of_the_same_second_are_in_any_order_but_each_alone(scene: Scene) -> None:
    first, second = scene.waiting("a", second=1), scene.waiting("b", second=1)
    says_it_waits(first, 2, 2)
    says_it_waits(second, 1, 2)
    assert scene.lies() == []
    says_it_waits(second, 2, 2)
    assert scene.false_fields() == {"queue.position"}


def test_the_order_is_not_free_otherwise(scene: Scene) -> None:
    first, second = scene.waiting("a", second=1), scene.waiting("b", second=2)
    says_it_waits(first, 2, 2)
    says_it_waits(second, 1, 2)
    assert scene.false_fields() == {"queue.position", "queue.summary"}


def test_all_pods_of_a_model_wait_together(scene: Scene) -> None:
    model = scene.model(replicas=2)
    for second in (1, 2):
        scene.pod(model, words=NO_GPU, second=second)
    says_it_waits(model, 1, 1, "4")
    assert scene.lies() == []
    says_it_waits(model, 1, 1, "2")
    assert scene.false_fields() == {"queue.waitingFor"}


def test_an_amount_is_compared_as_a_number(scene: Scene) -> None:
    model = scene.model(resources={"memory": "4Gi"})
    pod = scene.pod(model, words="0/1 nodes are available: 1 Insufficient memory.")
    pod["spec"]["containers"][0]["resources"]["requests"]["memory"] = "4Gi"
    why = ("False", "Unschedulable")
    says_it_waits(model, 1, 1, Ready=why, Scheduled=why)
    for said in ("4Gi memory", "4294967296 memory"):
        model["status"]["queue"]["waitingFor"] = said
        assert scene.lies() == []


@pytest.mark.parametrize("change", ["ending", "placed", "silent", "too many", "deleted"])
def test_who_does_not_wait_has_no_place(scene: Scene, change: str) -> None:
    model = scene.waiting(gpus=9 if change == "too many" else 2)
    (pod,) = scene.found["Pod"]
    changes: dict[str, tuple[Object, str, object]] = {
        "ending": (pod["metadata"], "deletionTimestamp", "now"),
        "placed": (pod["spec"], "nodeName", "gpu-0"),
        "silent": (pod["status"], "conditions", []),
        "too many": (pod, "nothing", "changes"),
        "deleted": (model["metadata"], "deletionTimestamp", "now"),
    }
    place, field, value = changes[change]
    place[field] = value
    assert queue_positions(scene.world(), scene.world().most) == {}


def test_what_the_scheduler_says_of_preemption_is_not_what_a_pod_lacks() -> None:
    assert lacks(NO_GPU) == [GPU]
    assert lacks("0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods. preemption: 2 Insufficient x.") == [
        "cpu"
    ]
