"""The line: its order, what a place says, and who is told when it changes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.status.observe import Place, PodState
from moorage_operator.status.waiting import Line, Waiting, waiting
from tests.unit.operator.situations import pod
from tests.unit.operator.support import thorough

GPU = "nvidia.com/gpu"
EARLY, LATE = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"


def starved(name: str = "new", *, gpus: str = "2", **fields: Any) -> PodState:
    """A pod that waits for GPUs."""
    return pod(name, **{"lacks": (GPU,), "requests": ((GPU, gpus),), "priority": 5000, **fields})


def test_the_line_is_ordered_by_priority_then_age_then_name() -> None:
    line: Line[str] = Line()
    for key, priority, since in (
        ("low", 1000, EARLY),
        ("young", 5000, LATE),
        ("b", 5000, EARLY),
        ("a", 5000, EARLY),
        ("high", 9000, LATE),
    ):
        line.update(key, Waiting(GPU, "1", priority, since))
    places = {key: line.place(key) for key in line.keys()}  # noqa: SIM118 - a Line is no dict
    assert sorted(places, key=lambda key: places[key] or Place(0, 0, "")) == ["high", "a", "b", "young", "low"]
    assert places["b"] == Place(3, 5, f"1 {GPU}")


def test_each_resource_has_a_line_of_its_own() -> None:
    line: Line[str] = Line()
    line.update("gpu", Waiting(GPU, "1", 1000, EARLY))
    line.update("cpu", Waiting("cpu", "500", 9000, EARLY))
    assert line.place("gpu") == Place(1, 1, f"1 {GPU}")
    assert line.place("cpu") == Place(1, 1, "500 cpu")


def test_whoever_does_not_wait_has_no_place() -> None:
    line: Line[str] = Line()
    line.update("a", Waiting(GPU, "1", 1000, EARLY))
    assert line.update("a", None) == {"a"}
    assert line.place("a") is None
    assert line.update("a", None) == set()


def test_what_stays_as_it_is_moves_nobody() -> None:
    line: Line[str] = Line()
    line.update("a", Waiting(GPU, "1", 1000, EARLY))
    assert line.update("a", Waiting(GPU, "1", 1000, EARLY)) == set()


changes = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.none()
        | st.builds(
            Waiting, st.sampled_from((GPU, "cpu")), st.just("1"), st.integers(1, 3), st.sampled_from((EARLY, LATE))
        ),
    ),
    max_size=30,
)


@thorough
@given(changes)
def test_places_are_those_of_a_sorted_list_and_everybody_who_moved_is_told(
    steps: list[tuple[str, Waiting | None]],
) -> None:
    line: Line[str] = Line()
    current: dict[str, Waiting] = {}
    for key, now in steps:
        before = {k: line.place(k) for k in "abcdef"}
        told = line.update(key, now)
        if now:
            current[key] = now
        else:
            current.pop(key, None)
        for k in "abcdef":
            rivals = sorted(
                (other for other, w in current.items() if k in current and w.resource == current[k].resource),
                key=lambda other: (-current[other].priority, current[other].since, other),
            )
            expected = Place(rivals.index(k) + 1, len(rivals), f"1 {current[k].resource}") if k in current else None
            assert line.place(k) == expected
        assert {k for k in "abcdef" if line.place(k) != before[k]} <= told


def test_a_model_waits_for_what_its_pods_lack_in_all() -> None:
    found = waiting([starved("a"), starved("b", created=EARLY), pod("c", node="node-1")], None)
    assert found == Waiting(GPU, "4", 5000, EARLY)


def test_the_unit_that_was_asked_in_is_kept_for_one_pod() -> None:
    assert waiting([starved(lacks=("memory",), requests=(("memory", "32Gi"),))], None) == Waiting(
        "memory", "32Gi", 5000, EARLY
    )


@pytest.mark.parametrize("fields", [{"node": "node-1"}, {"terminating": True}, {"finished": True}, {"lacks": ()}])
def test_who_does_not_wait_for_room(fields: dict[str, Any]) -> None:
    assert waiting([starved(**fields)], None) is None


def test_who_asks_for_more_than_any_node_has_waits_in_vain_in_no_line() -> None:
    assert waiting([starved(gpus="8")], {GPU: 4}) is None
    assert waiting([starved(gpus="8")], {}) is None
    assert waiting([starved(gpus="4")], {GPU: 4}) is not None


def test_a_pod_in_vain_does_not_count_where_another_has_hope() -> None:
    """A rollout from 9 GPUs to 8, where no node has more: the old pod is of no account, however old it is."""
    pods = [starved("old", gpus="9", created=EARLY), starved("young", gpus="8", created=LATE)]
    assert waiting(pods, {GPU: 8}) == Waiting(GPU, "8", 5000, LATE)


def test_a_sum_is_of_the_pods_that_lack_it() -> None:
    pods = [starved("one"), starved("two", lacks=("cpu",), requests=(("cpu", "1"),), priority=1000)]
    assert waiting(pods, None) == Waiting(GPU, "2", 5000, pods[0].created)
