"""The scheduling queue: its order, positions, and which models a change concerns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.status.observe import PodState, QueuePosition
from moorage_operator.status.queue import QueueEntry, SchedulingQueue, queue_entry
from tests.unit.operator.situations import pod
from tests.unit.operator.support import thorough

GPU = "nvidia.com/gpu"
EARLY, LATE = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"


def starved(name: str = "new", *, gpus: str = "2", **fields: Any) -> PodState:
    """A pod that waits for GPUs."""
    return pod(name, **{"lacks": (GPU,), "requests": ((GPU, gpus),), "priority": 5000, **fields})


def test_the_queue_is_ordered_by_priority_then_age_then_name() -> None:
    queue: SchedulingQueue[str] = SchedulingQueue()
    for key, priority, since in (
        ("low", 1000, EARLY),
        ("young", 5000, LATE),
        ("b", 5000, EARLY),
        ("a", 5000, EARLY),
        ("high", 9000, LATE),
    ):
        queue.update(key, QueueEntry(GPU, "1", priority, since))
    positions = {key: queue.position(key) for key in queue.keys()}  # noqa: SIM118 - a SchedulingQueue is no dict
    assert sorted(positions, key=lambda key: positions[key] or QueuePosition(0, 0, "")) == [
        "high",
        "a",
        "b",
        "young",
        "low",
    ]
    assert positions["b"] == QueuePosition(3, 5, f"1 {GPU}")


def test_each_resource_has_a_queue_of_its_own() -> None:
    queue: SchedulingQueue[str] = SchedulingQueue()
    queue.update("gpu", QueueEntry(GPU, "1", 1000, EARLY))
    queue.update("cpu", QueueEntry("cpu", "500", 9000, EARLY))
    assert queue.position("gpu") == QueuePosition(1, 1, f"1 {GPU}")
    assert queue.position("cpu") == QueuePosition(1, 1, "500 cpu")


def test_a_model_that_does_not_wait_has_no_position() -> None:
    queue: SchedulingQueue[str] = SchedulingQueue()
    queue.update("a", QueueEntry(GPU, "1", 1000, EARLY))
    assert queue.update("a", None) == {"a"}
    assert queue.position("a") is None
    assert queue.update("a", None) == set()


def test_an_entry_that_does_not_change_moves_nothing() -> None:
    queue: SchedulingQueue[str] = SchedulingQueue()
    queue.update("a", QueueEntry(GPU, "1", 1000, EARLY))
    assert queue.update("a", QueueEntry(GPU, "1", 1000, EARLY)) == set()


changes = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.none()
        | st.builds(
            QueueEntry, st.sampled_from((GPU, "cpu")), st.just("1"), st.integers(1, 3), st.sampled_from((EARLY, LATE))
        ),
    ),
    max_size=30,
)


@thorough
@given(changes)
def test_positions_are_those_of_a_sorted_list_and_every_model_that_moved_is_returned(
    steps: list[tuple[str, QueueEntry | None]],
) -> None:
    queue: SchedulingQueue[str] = SchedulingQueue()
    current: dict[str, QueueEntry] = {}
    for key, now in steps:
        before = {k: queue.position(k) for k in "abcdef"}
        changed = queue.update(key, now)
        if now:
            current[key] = now
        else:
            current.pop(key, None)
        for k in "abcdef":
            rivals = sorted(
                (other for other, w in current.items() if k in current and w.resource == current[k].resource),
                key=lambda other: (-current[other].priority, current[other].since, other),
            )
            expected = (
                QueuePosition(rivals.index(k) + 1, len(rivals), f"1 {current[k].resource}") if k in current else None
            )
            assert queue.position(k) == expected
        assert {k for k in "abcdef" if queue.position(k) != before[k]} <= changed


def test_a_model_waits_for_what_its_pods_lack_in_all() -> None:
    found = queue_entry([starved("a"), starved("b", created=EARLY), pod("c", node="node-1")], None)
    assert found == QueueEntry(GPU, "4", 5000, EARLY)


def test_the_unit_that_was_asked_in_is_kept_for_one_pod() -> None:
    assert queue_entry([starved(lacks=("memory",), requests=(("memory", "32Gi"),))], None) == QueueEntry(
        "memory", "32Gi", 5000, EARLY
    )


@pytest.mark.parametrize("fields", [{"node": "node-1"}, {"terminating": True}, {"finished": True}, {"lacks": ()}])
def test_pods_that_do_not_wait_for_resources(fields: dict[str, Any]) -> None:
    assert queue_entry([starved(**fields)], None) is None


def test_a_pod_that_requests_more_than_any_node_has_is_in_no_queue() -> None:
    assert queue_entry([starved(gpus="8")], {GPU: 4}) is None
    assert queue_entry([starved(gpus="8")], {}) is None
    assert queue_entry([starved(gpus="4")], {GPU: 4}) is not None


def test_a_pod_that_can_never_be_scheduled_does_not_count_beside_another() -> None:
    """A rollout from 9 GPUs to 8, where no node has more: the old pod does not count, however old it is."""
    pods = [starved("old", gpus="9", created=EARLY), starved("young", gpus="8", created=LATE)]
    assert queue_entry(pods, {GPU: 8}) == QueueEntry(GPU, "8", 5000, LATE)


def test_a_sum_is_of_the_pods_that_lack_it() -> None:
    pods = [starved("one"), starved("two", lacks=("cpu",), requests=(("cpu", "1"),), priority=1000)]
    assert queue_entry(pods, None) == QueueEntry(GPU, "2", 5000, pods[0].created)
