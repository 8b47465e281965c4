"""Who has which GPUs: nodes and pods as the API server tells them, in all their variety."""

from typing import Any

from moorage_gateway.manage.gpus import held, is_extended, nodes_told, totals_told


def node(name: str, capacity: dict[str, str], **more: Any) -> dict[str, Any]:
    status = {"capacity": capacity, "allocatable": more.pop("allocatable", capacity)}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, **more}, "spec": {}, "status": {**status, "conditions": conditions}}


def pod(name: str, on: str, gpus: str, *, phase: str = "Running", model: str = "") -> dict[str, Any]:
    labels = {"moorage.dev/model": model} if model else {}
    requests = {"cpu": "1", "nvidia.com/gpu": gpus}
    return {
        "metadata": {"namespace": "team-a", "name": name, "labels": labels},
        "spec": {"nodeName": on, "containers": [{"resources": {"requests": requests}}, {}]},
        "status": {"phase": phase},
    }


def test_what_is_used_is_what_pods_that_are_not_over_have_asked_for() -> None:
    pods = [
        pod("a-1", "one", "2", model="a"),
        pod("a-2", "one", "1", model="a"),
        pod("other", "one", "1"),
        pod("done", "one", "4", phase="Succeeded"),
        pod("waits", "", "4", phase="Pending"),
    ]
    nodes = [
        node("one", {"cpu": "8", "nvidia.com/gpu": "8"}, allocatable={"nvidia.com/gpu": "7"}),
        node("cpu", {"cpu": "8"}),
    ]
    (told,) = nodes_told(nodes, [seen for one in pods if (seen := held(one))])
    assert told["resources"] == {
        "nvidia.com/gpu": {
            "capacity": 8,
            "allocatable": 7,
            "used": 4,
            "by": [
                {"name": "team-a/a", "count": 1},
                {"name": "team-a/a", "count": 2},
                {"name": "team-a/other", "count": 1},
            ],
        }
    }
    assert totals_told([told]) == {"nvidia.com/gpu": {"capacity": 8, "allocatable": 7, "used": 4}}


def test_what_cannot_be_seen_is_null_and_not_zero() -> None:
    told = nodes_told([node("one", {"nvidia.com/gpu": "8"})], None)
    assert told[0]["resources"]["nvidia.com/gpu"]["used"] is None
    assert totals_told(told)["nvidia.com/gpu"] == {"capacity": 8, "allocatable": 8, "used": None}


def test_a_node_says_which_gpus_it_has_and_whether_it_takes_pods() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771"}
    seen = node("one", {"nvidia.com/gpu": "1k"}, labels=labels)
    seen["spec"]["unschedulable"] = True
    seen["status"]["conditions"][0]["status"] = "Unknown"
    (told,) = nodes_told([seen], [])
    assert (told["ready"], told["schedulable"], told["product"], told["memoryMiB"]) == (
        False,
        False,
        "NVIDIA-H200",
        "143771",
    )
    assert told["resources"]["nvidia.com/gpu"]["capacity"] == 1000


def test_extended_resources_are_those_of_device_plugins() -> None:
    assert [
        name
        for name in ("cpu", "hugepages-2Mi", "nvidia.com/gpu", "amd.com/gpu", "a.kubernetes.io/b")
        if is_extended(name)
    ] == [
        "nvidia.com/gpu",
        "amd.com/gpu",
    ]
