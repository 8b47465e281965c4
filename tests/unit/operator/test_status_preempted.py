"""The condition Preempted, its account and its end."""

from typing import Any

from moorage_operator.status import status
from moorage_operator.status.observe import Observation, PodState
from moorage_operator.status.preemption import Preemption
from tests.unit.operator.situations import deployment, pod, ready
from tests.unit.operator.support import Object, by_type, model

NOW, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z"
LOST = Preemption("victim", NOW, "node-7", "team-b/big")


def seen(*pods: PodState, lost: tuple[Preemption, ...] = (LOST,)) -> Observation:
    """A model of which pods are seen."""
    return Observation(deployment(), pods, None, preemptions=lost)


def told(found: Object) -> tuple[str, str, Any]:
    """Status and reason of Preempted, and who has the place."""
    condition = by_type(found)["Preempted"]
    return condition["status"], condition["reason"], found.get("preemptedBy")


def test_a_model_that_never_lost_a_pod_says_so_and_has_no_account() -> None:
    found = status(model(), seen(ready(), lost=()), NOW)
    assert told(found) == ("False", "Never", None)
    assert "preemption" not in found


def test_a_model_that_lost_its_pod_says_to_whom_where_and_when() -> None:
    found = status(model(), seen(pod("next")), LATER)
    assert told(found) == ("True", "Preempted", "team-b/big")
    assert by_type(found)["Preempted"]["message"] == (
        f"Pod victim was preempted by team-b/big on node node-7 at {NOW}; 0 of 1 replicas ready"
    )
    assert found["preemption"] == {"count": 1, "last": LOST.entry(), "history": [LOST.entry()]}


def test_the_victim_that_still_answers_is_no_recovery() -> None:
    assert told(status(model(), seen(ready("victim")), NOW))[0] == "True"
    assert told(status(model(), seen(ready("x", preempted=NOW)), NOW))[0] == "True"


def test_it_ends_when_all_replicas_are_back_and_the_account_stays() -> None:
    first = status(model(replicas=2), seen(ready("a"), pod("next")), NOW)
    still = status(model(replicas=2, status=first), seen(ready("a"), pod("next"), lost=()), LATER)
    assert told(still) == ("True", "Preempted", "team-b/big")
    after = status(model(replicas=2, status=still), seen(ready("a"), ready("next"), lost=()), LATER)
    assert told(after) == ("False", "Recovered", None)
    assert after["preemption"] == first["preemption"]
    # A pod that goes away for another reason later is no preemption.
    gone = status(model(replicas=2, status=after), seen(ready("a")), LATER)
    assert told(gone) == ("False", "Recovered", None)


def test_a_second_time_it_begins_anew() -> None:
    first = status(model(), seen(pod("next")), NOW)
    back = status(model(status=first), seen(ready("next")), NOW)
    again = Preemption("next", LATER, "node-8", "team-c/other")
    found = status(model(status=back), seen(pod("third"), lost=(LOST, again)), LATER)
    assert told(found) == ("True", "Preempted", "team-c/other")
    assert found["preemption"]["count"] == 2


def test_a_model_that_is_told_to_stop_misses_nothing() -> None:
    first = status(model(), seen(pod("next")), NOW)
    assert told(status(model(status=first, replicas=0), seen(), LATER)) == ("False", "Recovered", None)


def test_what_happened_to_an_earlier_model_of_that_name_is_not_told() -> None:
    young = model()
    young = young.model_copy(
        update={"metadata": young.metadata.model_copy(update={"creation_timestamp": "2026-01-02T03:04:06Z"})}
    )
    assert told(status(young, seen(pod("next")), LATER)) == ("False", "Never", None)
