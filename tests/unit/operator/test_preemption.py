"""Who took whose place: read from the scheduler's Event, and kept in a status."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.api.v1alpha1 import MAX_PREEMPTIONS
from moorage_operator.status.preemption import PodRef, Preemption, new_entries, preemption_from_event, preemption_status
from tests.unit.operator.support import NAMESPACE, Object, thorough

NOW = "2026-01-02T03:04:05Z"


def event(**fields: Any) -> Object:
    """The Event that the scheduler writes on a victim."""
    return {
        "metadata": {"name": "tiny-abc-1.18", "namespace": NAMESPACE, "creationTimestamp": NOW},
        "reason": "Preempted",
        "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "tiny-abc-1", "uid": "victim"},
        "message": "Preempted by pod winner on node node-7",
        "eventTime": "2026-01-02T03:04:05.123456Z",
        **fields,
    }


def test_the_event_tells_victim_preemptor_node_and_time() -> None:
    victim = PodRef(NAMESPACE, "tiny-abc-1", "victim")
    assert preemption_from_event(event()) == (victim, Preemption("tiny-abc-1", NOW, "node-7", "winner"))


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "Killing"},
        {"message": "Preempted by a pod on node node-7"},
        {"message": "Preempted by pod winner on node \x1b[31mRED"},
        {"message": f"Preempted by pod {'w' * 65} on node node-7"},
        {"involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "tiny\n-1", "uid": "victim"}},
        {"involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "tiny-1", "uid": "u" * 65}},
        {"message": None},
        {"involvedObject": {"kind": "Node", "name": "n"}},
        {"involvedObject": {"kind": "Pod", "namespace": "elsewhere", "name": "x", "uid": "y"}},
    ],
)
def test_other_events_tell_nothing(fields: dict[str, Any]) -> None:
    assert preemption_from_event(event(**fields)) is None


def test_an_event_without_a_time_of_its_own_is_understood() -> None:
    assert preemption_from_event(
        event(eventTime="2099-01-01T00:00:00Z", lastTimestamp="2099-01-01T00:00:00Z")
    ) == preemption_from_event(event())


def at(second: int, pod: str | None = None, by: str = "team-b/big") -> Preemption:
    """A preemption at a second of the minute."""
    return Preemption(pod or f"pod-{second}", f"2026-01-02T03:04:{second:02d}Z", "node-1", by)


def test_nothing_that_happened_is_an_empty_account() -> None:
    assert preemption_status({}, ()) == {}


def test_the_account_counts_and_has_the_newest_first() -> None:
    found = preemption_status({}, [at(1), at(2)])
    assert (found["count"], found["last"]) == (2, at(2).entry())
    assert found["history"] == [at(2).entry(), at(1).entry()]


def test_what_is_known_is_not_counted_again_but_completed() -> None:
    before = preemption_status({}, [at(1, by="")])
    after = preemption_status(before, [at(1)])
    assert (after["count"], after["last"]["by"]) == (1, "team-b/big")
    assert before["last"]["by"] == ""
    assert preemption_status(after, [at(1, by="")]) == after


def test_a_name_that_is_known_is_not_lost_to_an_old_event_of_a_forgotten_pod() -> None:
    before = preemption_status({}, [at(1)])
    assert preemption_status(before, [at(1, by="pod 0f5e")]) == before


def test_the_account_keeps_ten_and_counts_on() -> None:
    found: dict[str, Any] = {}
    for second in range(15):
        found = preemption_status(found, [at(second)])
    assert (found["count"], len(found["history"])) == (15, MAX_PREEMPTIONS)
    # Events live for an hour, so a restart hears the old ones again.
    assert preemption_status(found, [at(second) for second in range(15)]) == found


@thorough
@given(st.lists(st.integers(0, 59), max_size=25, unique=True), st.integers(0, 25))
def test_told_again_in_any_order_nothing_changes(seconds: list[int], again: int) -> None:
    news = [at(second) for second in sorted(seconds)]
    found: dict[str, Any] = {}
    for one in news:
        found = preemption_status(found, [one])
    assert preemption_status(found, news[:again]) == found
    assert found.get("count", 0) == len(news)


def test_news_are_what_was_not_told_with_a_name_before() -> None:
    before = preemption_status({}, [at(1), at(2, by="")])
    after = preemption_status(before, [at(2), at(3)])
    assert [entry["pod"] for entry in new_entries(before, after)] == ["pod-2", "pod-3"]
    assert new_entries(after, after) == []
